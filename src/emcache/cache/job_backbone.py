"""The backbone of an extraction."""

from __future__ import annotations

from emcache.cache.plan import Job
from emcache.models.backbones.base import BackboneModule
from emcache.models.loading import load_backbone
from emcache.models.tuned import load_tuned
from emcache.progress import Reporter


def load_job_backbone(job: Job, reporter: Reporter) -> BackboneModule:
    """The backbone of a job, with what a run changed in it if it is one's, on the job's device.

    Raises:
        WeightsError: The weights do not fit, or changed since they were hashed.
        AdapterError: An adapter does not fit, or changed since it was hashed.
    """
    backbone = load_backbone(job.spec, job.weights, job.device, reporter)
    if job.adapter is not None:
        load_tuned(backbone, job.adapter)
        backbone.to(job.device)
    return backbone

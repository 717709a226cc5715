"""Training heads on cached tokens.

Only feature sets are read: no image is decoded and no backbone is built. Files are looked at by
size and time, to be sure that the tokens are still those of today's slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emcache.cache.find import FeatureRequest
from emcache.models.device import pick_device, pick_layout, pick_precision
from emcache.models.heads import build_head
from emcache.progress import Reporter
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.batches import TokenReader
from emcache.training.features import PlannedFeatures, plan_features
from emcache.training.model import Model
from emcache.training.run import Deliver, audit_sources, check_grids, train_runs
from emcache.training.sampling import check_sampling
from emcache.training.setting import Data, Setting, TrainingOptions
from emcache.training.sources import training_sources


def train_head(
    workspace: Workspace,
    datasets: Sequence[str],
    request: FeatureRequest,
    options: TrainingOptions,
    reporter: Reporter,
    deliver: Deliver | None = None,
) -> list[Record]:
    """Train one head for each seed; extract first what is not in the cache.

    Args:
        workspace: Where.
        datasets: Names of the datasets to train on.
        request: Which features; what is not named must be unambiguous.
        options: How.
        reporter: Receives progress.
        deliver: Gets the records when all are there; what a killed command goes on from is kept
            until it returns.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        EmcacheError: Of the dataset, the features or the options.
    """
    setting, planned = plan_head_training(workspace, datasets, request, options, reporter)
    audits = audit_sources(workspace, setting, reporter)
    features = [item.make(reporter) for item in planned]
    protocol = setting.options.protocol
    grids = [[place.grid for place in item.feature_set.slices] for item in features]
    check_grids(setting.data.sources, grids)
    dim, classes = setting.data.description["dim"], len(setting.data.sources.class_names)

    def build(seed: int) -> Model:
        head = build_head(protocol.head, dim, seed, classes, pick_layout(setting.device))
        return Model(head, head)

    return train_runs(workspace, setting, TokenReader(features), build, audits, reporter, deliver)


def plan_head_training(
    workspace: Workspace,
    datasets: Sequence[str],
    request: FeatureRequest,
    options: TrainingOptions,
    reporter: Reporter,
) -> tuple[Setting, tuple[PlannedFeatures, ...]]:
    """Resolve a training without extracting or training anything.

    Raises:
        EmcacheError: Of the dataset, the features or the options.
    """
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    check_sampling(options.sampling, len(datasets), options.protocol.batch)
    sources = training_sources(workspace, datasets, reporter)
    planned = plan_features(workspace, sources, request, options.device, reporter)
    first = planned[0]
    # The features chosen may be of one physical scale though the user did not ask for it by name.
    scale = first.description.get("pixel_size_nm")
    protocol = replace(options.protocol, pixel_size_nm=scale)
    data = Data(
        sources,
        first.description,
        first.recipe,
        tuple(item.fingerprint for item in planned),
        tuple(item.label_key for item in planned),
        tuple(item.name for item in planned),
    )
    setting = Setting("frozen", data, replace(options, protocol=protocol), device, precision)
    return setting, planned

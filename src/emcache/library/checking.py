"""The audit as a function."""

from __future__ import annotations

from emcache.auditing.findings import Audit
from emcache.auditing.run import audit_dataset
from emcache.library.workspace import Dataset
from emcache.progress import Quiet, Reporter


def audit(dataset: Dataset, *, progress: Reporter | None = None) -> Audit:
    """Check that masks belong to their slices, and the rest of the data; kept as a record.

    Args:
        dataset: Which.
        progress: Receives progress.

    Returns:
        Its ``verdict`` (``pass``, ``warn`` or ``fail``) and its ``checks``.

    Raises:
        ImageError: A file that cannot be read.
    """
    found, _ = audit_dataset(dataset.workspace.place, dataset.data, progress or Quiet())
    return found

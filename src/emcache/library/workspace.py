"""Workspaces and datasets, as scripts see them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcache.auditing.findings import Audit
from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.data import dataset as data
from emcache.data.dataset import Selection, Slice, load_dataset
from emcache.data.register import add_dataset
from emcache.progress import Quiet, Reporter
from emcache.storage import workspace as storage
from emcache.summaries import Summarised

if TYPE_CHECKING:
    from emcache.library.runs import TrainedRun


class Workspace(Summarised):
    """A folder with ``emcache.toml``, a cache, records and a warehouse."""

    _kind = "Workspace"

    def __init__(self, place: storage.Workspace) -> None:
        self.place = place
        """Its paths, for the functions of the rooms below."""

    @classmethod
    def open(cls, path: str | Path | None = None) -> Workspace:
        """Open a workspace.

        Args:
            path: Its folder; None for ``$EMCACHE_WORKSPACE``, or from the current folder upward.

        Raises:
            WorkspaceError: There is none.
        """
        return cls(storage.find_workspace(None if path is None else Path(path)))

    @classmethod
    def create(cls, path: str | Path) -> Workspace:
        """Make a folder a workspace, or open it where it is one.

        Raises:
            WorkspaceError: The folder cannot be made or written.
        """
        return cls(storage.init_workspace(Path(path))[0])

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.place.root

    @property
    def datasets(self) -> list[str]:
        """Names of its datasets."""
        return self.place.dataset_names()

    def dataset(self, name: str) -> Dataset:
        """A dataset, as its files are today.

        Raises:
            DatasetError: There is no such dataset, or its folder has gone.
            PairingError: Its images and masks cannot be paired.
            ImageError: A file that cannot be read.
        """
        return Dataset(self, load_dataset(self.place, name))

    def add_dataset(
        self,
        name: str,
        layout: str,
        root: str | Path,
        *,
        progress: Reporter | None = None,
        **options: Any,
    ) -> Dataset:
        """Check every slice and mask of a dataset, and add it.

        Args:
            name: What to call it.
            layout: ``lucchi++``, ``kasthuri++``, ``vnc``, ``folder`` or ``stack``.
            root: Its folder.
            progress: Receives progress.
            options: Of the layout, as ``emcache.toml`` has them: ``images``, ``masks``, ``pair``,
                ``split`` and others (``docs/formats.md``).

        Raises:
            UsageError: A name, layout or option that cannot be.
            DatasetError: The name is taken, or the folder holds nothing that fits.
            PairingError: Images and masks cannot be paired.
            ImageError: A file that cannot be read.
        """
        found, _ = add_dataset(self.place, name, layout, Path(root), options, progress or Quiet())
        return Dataset(self, found)

    def feature_sets(
        self, dataset: str | None = None, backbone: str | None = None
    ) -> list[FeatureSet]:
        """Feature sets of the cache, in the order of names; damaged ones are left out.

        Args:
            dataset: Only those that were made of this dataset.
            backbone: Only those of this backbone.
        """
        wanted = {"dataset": dataset, "backbone": backbone}
        return [
            feature_set
            for feature_set in list_feature_sets(self.place.cache)
            if all(
                value is None or feature_set.description[key] == value
                for key, value in wanted.items()
            )
        ]

    def runs(self) -> list[TrainedRun]:
        """Trained runs, oldest first.

        Raises:
            RecordError: One of them is damaged, or of an older version.
        """
        # Runs load PyTorch, and a workspace does not need it.
        from emcache.library.runs import TrainedRun
        from emcache.storage.run_names import list_run_ids

        return [TrainedRun.open(self, run) for run in list_run_ids(self.place)]

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        records = [path for path in self.place.runs.glob("*") if path.is_dir()]
        return str(self.root), {
            "datasets": ", ".join(self.datasets) or "none",
            "feature sets": len(self.feature_sets()),
            "records": len(records),
        }


class Dataset(Summarised):
    """A named set of slices in a workspace."""

    _kind = "Dataset"

    def __init__(self, workspace: Workspace, found: data.Dataset) -> None:
        self.workspace = workspace
        self.data = found
        """Everything that is known of it: layout, pairing, classes, voxel size."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.data.name

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All its slices, in natural order."""
        return self.data.slices

    def select(self, split: str | None = None) -> tuple[Slice, ...]:
        """The slices of a split; without one the labelled slices, or all where none has a mask.

        Raises:
            DatasetError: There is no such split.
        """
        return Selection(self.name, split).of(self.data)

    def __len__(self) -> int:
        return len(self.slices)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        facts: dict[str, object] = {"slices": len(self), "labelled": len(self.data.labelled)}
        facts |= self.data.split_counts()
        sizes = sorted({(item.height, item.width) for item in self.slices})
        facts["pixels"] = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        if self.data.voxel_size_nm is not None:
            facts["voxel size in nm"] = " x ".join(f"{v:g}" for v in self.data.voxel_size_nm)
        return self.name, facts


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
    # SciPy takes a while to import, and a workspace does not need it.
    from emcache.auditing.run import audit_dataset

    found, _ = audit_dataset(dataset.workspace.place, dataset.data, progress or Quiet())
    return found

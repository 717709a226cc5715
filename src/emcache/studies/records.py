"""What the workspace's records say of a study's trainings, evaluations and distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emcache.data.dataset import Dataset
from emcache.errors import EmcacheError
from emcache.evaluation.evaluate import evaluation_key
from emcache.storage.records import Record, list_record_ids, read_record
from emcache.storage.workspace import Workspace
from emcache.studies.file import Cell
from emcache.training.regimes import REGIMES

_KINDS = (*(regime.record_kind for regime in REGIMES.values()), "evaluate", "gap")
_MOST_EPOCHS = 1 << 31


class StudyRecords:
    """What the workspace's records say of trainings, evaluations and distances."""

    def __init__(self, workspace: Workspace) -> None:
        self.runs: dict[str, str] = {}
        """Identifier of the newest run of each fingerprint."""
        self.recipes: dict[str, Mapping[str, Any]] = {}
        """How the tokens of each run were made."""
        self.gaps: set[str] = set()
        """Keys of the distances that were measured."""
        self._evaluations: set[tuple[str, str, str | None, str]] = set()
        """Runs with the datasets they were scored on, the split (None where it was the whole
        dataset), and the key of what stood there."""
        self._seconds: dict[tuple[Any, ...], float] = {}
        for name in list_record_ids(workspace.runs):
            if not any(kind in name for kind in _KINDS):
                continue
            try:
                # Sizes and checksums of files are for those who read them.
                record = read_record(workspace.runs / name, verify_files=False)
            except EmcacheError:
                continue
            self._take(record)

    def is_evaluated(
        self, run: str, dataset: Dataset, split: str | None, recipe: Mapping[str, Any]
    ) -> bool:
        """Whether a record says how a run scores on a dataset as it is today, by either name."""
        key = evaluation_key(dataset, recipe)
        names = (dataset.name, dataset.first_name)
        return any((run, name, split, key) in self._evaluations for name in names)

    def seconds_per_epoch(self, cell: Cell) -> float | None:
        """Of the newest run with the same data, backbone, size and head, or None."""
        request = cell.request
        return self._seconds.get(
            (
                request.regime,
                cell.backbone,
                request.features.longest_edge,
                " + ".join(request.datasets),
                request.sampling,
                request.protocol.as_dict()["head"],
            )
        )

    def _take(self, record: Record) -> None:
        # A record says what a study needs, or it counts as none: records may come from elsewhere.
        match record.config:
            case {
                "run_id": str(run),
                "eval_on": list(names),
                "data_keys": list(keys),
                "whole": list(whole),
            } if (
                record.kind == "evaluate"
                and len(names) == len(keys)
                and all(isinstance(x, str) for x in (*names, *keys))
            ):
                scored = list(zip(names, keys, strict=True))
                self._evaluations |= {
                    (run, name, None, key) for name, key in scored if name in whole
                }
                self._evaluations |= {
                    (run, name, split, key)
                    for (name, key), splits in zip(scored, _splits(record), strict=False)
                    for split in splits
                }
            case {"gap_key": str(key)} if record.kind == "gap":
                self.gaps.add(key)
            case {"run_fingerprint": str(fingerprint), "recipe": dict(recipe)} if (
                record.kind not in ("evaluate", "gap")
            ):
                self.runs[fingerprint] = record.id
                self.recipes[record.id] = recipe
                self._take_time(record.config)

    def _take_time(self, config: Mapping[str, Any]) -> None:
        names = ("regime", "backbone", "longest_edge", "train_on", "sampling", "head")
        key = tuple(config.get(name) for name in names)
        match config:
            case {"train_seconds": float(seconds), "epochs_run": int(epochs)} if (
                0 < epochs < _MOST_EPOCHS
                and all(isinstance(part, str | int | None) for part in key)
            ):
                self._seconds[key] = seconds / epochs


def _splits(record: Record) -> list[list[str]]:
    """The splits that an evaluation scored of each dataset; records of older versions say none."""
    match record.config.get("splits"):
        case list(splits) if all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in splits
        ):
            return splits
    return []

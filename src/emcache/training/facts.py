"""What the record of a run says of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from emcache.models.measured import timing_facts
from emcache.training.plan import TrainingPlan
from emcache.training.sampling import Sources, Split
from emcache.training.trainer import Epoch, Fit

NOTHING_GIVEN: Mapping[str, Any] = {
    "n_train": 0,
    "n_val": 0,
    "train_slices": [],
    "val_slices": [],
    "annotated_slices": 0,
    "labelled_pixels": 0,
}
"""What a record says of the slices that it learned from where there were none."""

_LOSSES = ("train_loss", "val_loss", "val_iou_fg", "seconds")


def run_config(plan: TrainingPlan, seed: int, result: Fit) -> dict[str, Any]:
    """What was trained, on what and how, and what training came to."""
    inputs, protocol = plan.inputs, plan.protocol
    facts = inputs.description
    return {
        "regime": plan.request.regime,
        "backbone": facts["backbone"],
        "weights": facts["weights"],
        "weights_sha256": facts["weights_sha256"],
        "weights_revision": facts.get("weights_revision"),
        "longest_edge": facts["longest_edge"],
        "pixel_size_nm": facts.get("pixel_size_nm"),
        "protocol": protocol.label,
        "protocol_fields": protocol.as_dict(),
        "train_on": plan.sources.names,
        "sampling": plan.request.sampling,
        "seed": seed,
        "head": protocol.as_dict()["head"],
        "precision": plan.precision,
        **timing_facts(plan.device),
        "device": plan.device.type,
        "dim": facts["dim"],
        "classes": _class_values(plan.sources),
        "grey_window": _shared_window(plan.sources),
        "recipe": inputs.recipe,
        "feature_sets": list(inputs.feature_sets),
        "feature_fingerprints": list(inputs.fingerprints),
        "label_sets": list(inputs.label_keys),
        "run_fingerprint": plan.fingerprint(seed),
        "setup_fingerprint": plan.fingerprint(None),
        "epochs_run": len(result.epochs),
        "best_epoch": result.best_epoch,
        "best_val_loss": result.best_val_loss,
        "stopped_by": result.stopped_by,
        "train_seconds": result.seconds,
    }


def epoch_table(epochs: Sequence[Epoch]) -> pl.DataFrame:
    """A row for each epoch; none of a head that was fitted in one go."""
    schema = {"epoch": pl.Int64, **dict.fromkeys(_LOSSES, pl.Float64)}
    return pl.DataFrame([asdict(epoch) for epoch in epochs], schema)


def split_facts(sources: Sources, split: Split) -> dict[str, Any]:
    """Which slices a run learned from, and how much had to be annotated: all of their pixels."""
    items = [sources.at(position) for position in {*split.steps, *split.val}]
    return {
        "n_train": len(split.steps),
        "n_val": len(split.val),
        "train_slices": _names(sources, split.steps),
        "val_slices": _names(sources, split.val),
        "annotated_slices": len({(source.dataset.name, item.whole.id) for source, item in items}),
        "labelled_pixels": sum(item.own_pixels for _, item in items),
    }


def _names(sources: Sources, positions: Sequence[int]) -> list[str]:
    """``dataset/slice`` of each position."""
    return [f"{source.dataset.name}/{item.id}" for source, item in map(sources.at, positions)]


def _class_values(sources: Sources) -> list[tuple[str, list[int]]] | None:
    """The values of each class, in the order of the labels; None where a threshold divides."""
    values = sources.items[0].dataset.classes.values
    if values is None or tuple(sources.class_names) != sources.items[0].dataset.classes.names:
        return None
    # Pairs, since their order is that of the labels.
    return [(name, list(ids)) for name, ids in values.items()]


def _shared_window(sources: Sources) -> list[float] | None:
    """The grey window that all datasets have in common."""
    windows = {source.dataset.grey_window for source in sources.items}
    window = windows.pop()
    return None if windows or window is None else [window.black, window.white]

"""What a training says of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emcache.progress import Reporter
from emcache.storage.records import Record
from emcache.training.checkpoints import CheckpointFolder
from emcache.training.sampling import Sources
from emcache.training.scoring import iou_of
from emcache.training.trainer import Fit


def tell_interrupted(
    reporter: Reporter, done: int, seeds: Sequence[int], seed: int, keeper: CheckpointFolder
) -> None:
    """Say how much is kept of a training that was stopped."""
    kept = f", and seed {seed} up to epoch {keeper.epoch}" if keeper.epoch else ""
    reporter.say(
        f"{done} of {len(seeds)} seeds are done{kept}; the same command goes on from there."
    )


def tell_result(
    reporter: Reporter,
    sources: Sources,
    seed: int,
    result: Fit,
    rows: Sequence[Mapping[str, Any]],
    record: Record,
) -> None:
    """Say how a run did on its test slices, and whether it learned anything."""
    names = [source.dataset.name for source in sources.items]
    tested = (sources.at(position) for position in sources.positions("test"))
    n_test = len({(source.dataset.name, item.whole.id) for source, item in tested})
    scores = ", ".join(
        f"{name} {iou_of(row for row in rows if row['eval_on'] == name):.4f}" for name in names
    )
    epochs = (
        f"best epoch {result.best_epoch} of {len(result.epochs)}"
        if result.epochs
        else result.stopped_by
    )
    reporter.say(
        f"Seed {seed}: test IoU {scores} on {n_test} slices, {epochs} ({result.seconds:.1f} s); "
        f"record {record.id}."
    )
    if (reason := record.config["nothing_learned"]) is not None:
        reporter.say(
            f"Warning: seed {seed} learned nothing: {reason}; try another --learning-rate, --head "
            f"or more --epochs, and look at emcache dataset audit."
        )

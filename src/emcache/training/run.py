"""Training runs: one record for each seed, whatever the regime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from emcache.auditing.checks import compare_datasets
from emcache.auditing.run import accept_audits
from emcache.cache.shards import Grid
from emcache.errors import TrainingError
from emcache.models.device import advise_on_memory, kept_memory, pick_layout
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, new_record, package_versions
from emcache.storage.workspace import Workspace
from emcache.training.batches import Examples, Reader, open_examples
from emcache.training.checkpoints import CheckpointFolder, Keeper, unfinished_command
from emcache.training.model import Model
from emcache.training.nothing_learned import nothing_learned
from emcache.training.sampling import split_validation
from emcache.training.scoring import iou_of, score_slices, slice_table
from emcache.training.seen import TRAINING_SLICES, Seen, training_slices
from emcache.training.setting import Setting
from emcache.training.sources import Sources
from emcache.training.trainer import Fit, Trainer, fit

Deliver = Callable[[Sequence[Record]], None]
"""Hands the records of a training to whoever asked for them."""


def train_runs(
    workspace: Workspace,
    setting: Setting,
    reader: Reader,
    build: Callable[[int], Model],
    extra: Mapping[str, Any],
    reporter: Reporter,
    deliver: Deliver | None = None,
) -> list[Record]:
    """Train and test once for each seed.

    Args:
        workspace: Where the records go.
        setting: What the runs share.
        reader: Where examples come from, by the positions of the setting's sources.
        build: An untrained model for a seed.
        extra: Further values for the records' ``config``.
        reporter: Receives progress: every epoch and run.
        deliver: Gets the records when all are there. Who is killed before it returns has shown
            nothing: the same command then finds what was trained and trains nothing again.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        TrainingError: A loss that is not finite.
    """
    options, sources = setting.options, setting.data.sources
    weights = setting.data.description["weights"]
    if is_untrained(weights):
        reporter.say(describe_untrained(weights))
    train, val = split_validation([s.positions("train") for s in sources.items], options.protocol)
    test = sources.positions("test")
    steps = [position for positions in train for position in sorted(positions)]
    used = [*steps, *val, *test]
    with _memory_advice():
        examples, resident = open_examples(reader, setting.device, options.resident, used)
    facts = {
        **extra,
        "resident": resident,
        "n_train": len(steps),
        "n_val": len(val),
        "train_slices": _names(sources, steps),
        "val_slices": _names(sources, val),
    }
    key = _command_key(setting, extra)
    facts["command"] = key
    run = _Runs(workspace, setting, examples, train, val, test, facts, reporter)
    records: list[Record] = []
    with unfinished_command(workspace.runs, key, f"training {sources.names}", reporter) as command:
        for seed in options.seeds:
            if (done := command.finished(seed)) is not None:
                reporter.say(f"Seed {seed} is done: record {done.id}.")
                records.append(done)
                continue
            keeper = command.keeper(seed)
            try:
                records.append(run.one(seed, build, command.begin(seed, setting.kind), keeper))
            except KeyboardInterrupt:
                _tell_interrupted(reporter, len(records), options.seeds, seed, keeper)
                raise
            command.end(seed)
        if deliver is not None:
            deliver(records)
    return records


def _command_key(setting: Setting, extra: Mapping[str, Any]) -> str:
    """Key of a command: the same words on the same data, with the same arithmetic."""
    options = setting.options
    return json_sha256(
        {
            "setting": setting.fingerprint(None),
            # Two commands that begin at once may each make an audit; they judge the same data.
            "extra": {name: value for name, value in extra.items() if name != "audits"},
            "seeds": list(options.seeds),
            "save_predictions": options.save_predictions,
            "device": setting.device.type,
            "layout": str(pick_layout(setting.device)),
            "versions": package_versions(),
        }
    )


def _tell_interrupted(
    reporter: Reporter, done: int, seeds: Sequence[int], seed: int, keeper: CheckpointFolder
) -> None:
    kept = f", and seed {seed} up to epoch {keeper.epoch}" if keeper.epoch else ""
    reporter.say(
        f"{done} of {len(seeds)} seeds are done{kept}; the same command goes on from there."
    )


def _memory_advice() -> AbstractContextManager[None]:
    return advise_on_memory(
        TrainingError,
        "training",
        "with train-lora use --accumulate 2 or --checkpoint, else a smaller --batch or "
        "--longest-edge, or --resident disk",
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    workspace: Workspace
    setting: Setting
    examples: Examples
    train: list[list[int]]
    val: list[int]
    test: list[int]
    facts: Mapping[str, Any]
    reporter: Reporter

    def one(
        self, seed: int, build: Callable[[int], Model], record_id: str, keeper: Keeper
    ) -> Record:
        """Train and test one model; it is gone from memory before the next is built."""
        options, sources = self.setting.options, self.setting.data.sources
        protocol = options.protocol
        with (
            kept_memory(),
            _memory_advice(),
            new_record(self.workspace.runs, self.setting.kind, record_id) as draft,
        ):
            model = build(seed)
            trainer = Trainer(
                model.module,
                protocol,
                self.setting.device,
                self.setting.precision,
                ignores=sources.ignores,
            )
            result = fit(
                trainer,
                self.examples,
                self.train,
                self.val,
                options.sampling,
                protocol,
                seed,
                self.reporter,
                keeper,
            )
            model.module.load_state_dict(dict(result.state), strict=False)
            pictures = draft if options.save_predictions else None
            learned = training_slices(sources, [p for part in self.train for p in part], self.val)
            rows = score_slices(
                trainer,
                self.examples,
                sources,
                self.test,
                protocol.batch,
                pictures,
                Seen(frozenset(learned["pixel_sha256"])),
            )
            losses = [(epoch.train_loss, epoch.val_loss) for epoch in result.epochs]
            draft.config = {
                **_config(self.setting, seed, result),
                **model.facts(),
                **self.facts,
                "nothing_learned": nothing_learned(rows, losses),
            }
            draft.write_table("epochs.parquet", pl.DataFrame([asdict(e) for e in result.epochs]))
            draft.write_table("slice_metrics.parquet", slice_table(rows))
            draft.write_table(TRAINING_SLICES, learned)
            model.save(draft)
            record = draft.finish()
        _tell(self.reporter, sources, seed, result, rows, record)
        return record


def _names(sources: Sources, positions: Sequence[int]) -> list[str]:
    """``dataset/slice`` of each position."""
    return [f"{source.dataset.name}/{item.id}" for source, item in map(sources.at, positions)]


def audit_sources(workspace: Workspace, setting: Setting, reporter: Reporter) -> dict[str, Any]:
    """Audit what is about to be trained on; what a record says of it.

    Raises:
        AuditError: An audit failed, and the options do not accept that.
    """
    datasets = [source.dataset for source in setting.data.sources.items]
    same_scale = setting.options.protocol.pixel_size_nm is not None
    for note in compare_datasets(datasets, same_scale):
        reporter.say(note)
    accept = setting.options.accept_audit
    accepted, audits = accept_audits(workspace, datasets, accept, reporter)
    return {"audit_accepted": accepted, "audits": audits}


def check_grids(sources: Sources, grids: Sequence[Sequence[Grid]]) -> None:
    """Refuse grids that no head can train on.

    Args:
        sources: Whose.
        grids: Of each source's slices.

    Raises:
        TrainingError: A grid of one token.
    """
    for source, own in zip(sources.items, grids, strict=True):
        if (1, 1) in own:
            raise TrainingError(
                f"the tokens of {source.dataset.name} are a grid of one, whose batch norm has no "
                f"spread; expected several a slice: choose a larger --longest-edge.",
                subject=source.dataset.name,
            )


def _tell(
    reporter: Reporter,
    sources: Sources,
    seed: int,
    result: Fit,
    rows: Sequence[Mapping[str, Any]],
    record: Record,
) -> None:
    names = [source.dataset.name for source in sources.items]
    n_test = len(sources.positions("test"))
    scores = ", ".join(
        f"{name} {iou_of(row for row in rows if row['eval_on'] == name):.4f}" for name in names
    )
    reporter.say(
        f"Seed {seed}: test IoU {scores} on {n_test} slices, best epoch {result.best_epoch} of "
        f"{len(result.epochs)} ({result.seconds:.1f} s); record {record.id}."
    )
    if (reason := record.config["nothing_learned"]) is not None:
        reporter.say(
            f"Warning: seed {seed} learned nothing: {reason}; try another --learning-rate, --head "
            f"or more --epochs, and look at emcache dataset audit."
        )


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


def _config(setting: Setting, seed: int, result: Fit) -> dict[str, Any]:
    data, protocol = setting.data, setting.options.protocol
    return {
        "regime": setting.regime,
        "backbone": data.description["backbone"],
        "weights": data.description["weights"],
        "weights_sha256": data.description["weights_sha256"],
        "weights_revision": data.description.get("weights_revision"),
        "longest_edge": data.description["longest_edge"],
        "pixel_size_nm": data.description.get("pixel_size_nm"),
        "protocol": protocol.label,
        "protocol_fields": protocol.as_dict(),
        "train_on": data.sources.names,
        "sampling": setting.options.sampling,
        "seed": seed,
        "head": protocol.as_dict()["head"],
        "precision": setting.precision,
        "device": setting.device.type,
        "dim": data.description["dim"],
        "classes": _class_values(data.sources),
        "grey_window": _shared_window(data.sources),
        "recipe": data.recipe,
        "feature_sets": list(data.feature_sets),
        "feature_fingerprints": list(data.fingerprints),
        "label_sets": list(data.label_keys),
        "run_fingerprint": setting.fingerprint(seed),
        "setup_fingerprint": setting.fingerprint(None),
        "epochs_run": len(result.epochs),
        "best_epoch": result.best_epoch,
        "best_val_loss": result.best_val_loss,
        "stopped_by": result.stopped_by,
        "train_seconds": result.seconds,
    }

"""Training runs: one record for each seed, whatever the regime."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from emcache.auditing.checks import compare_datasets
from emcache.auditing.run import accept_audits
from emcache.cache.encoding import BASIS_FILE
from emcache.cache.moments import ALIGNMENT_FILE, save_moments
from emcache.cache.recipe import read_shift
from emcache.data.greys import find_grey_rule
from emcache.data.tiles import check_pictures
from emcache.data.tiling import Tiling
from emcache.errors import TrainingError
from emcache.freed import kept_memory
from emcache.models.arithmetic import pick_precision
from emcache.models.device import advise_on_memory, pick_device, watch_memory
from emcache.models.layouts import pick_layout
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, new_record, package_versions
from emcache.storage.workspace import Workspace
from emcache.training.batches import Examples, Reader, TokenReader, open_examples
from emcache.training.checkpoints import Keeper, unfinished_command
from emcache.training.counts import nothing_learned
from emcache.training.facts import NOTHING_GIVEN, epoch_table, run_config, split_facts
from emcache.training.few_label import Learned, check_method, fit_few_labels, with_annotations
from emcache.training.inputs import Inputs, InputsRequest
from emcache.training.penalties import build_penalty, check_penalty
from emcache.training.plan import Model, TrainingPlan, TrainingRequest
from emcache.training.reference import (
    REFERENCE_FILE,
    Reference,
    save_references,
    take_reference,
)
from emcache.training.regimes import find_regime
from emcache.training.sampling import Sources, Split, check_sampling, training_sources
from emcache.training.scoring import (
    TRAINING_SLICES,
    Seen,
    score_slices,
    slice_table,
    training_slices,
)
from emcache.training.telling import tell_interrupted, tell_result
from emcache.training.trainer import Fit, Trainer, TrainingOrder, fit

Deliver = Callable[[Sequence[Record]], None]
"""Takes the records of a training when all are there."""


def train(
    workspace: Workspace,
    request: TrainingRequest,
    reporter: Reporter,
    deliver: Deliver | None = None,
) -> list[Record]:
    """Train and test once for each seed; what is not in the cache is extracted first.

    Args:
        workspace: Where.
        request: What, and how.
        reporter: Receives progress: every epoch and run.
        deliver: Gets the records when all are there. Who is killed before it returns has shown
            nothing: the same command then finds what was trained and trains nothing again.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        AuditError: A dataset failed its audit, and the request does not accept that.
        TrainingError: A loss that is not finite.
        EmcacheError: Of the datasets, the features, the backbone or the options.
    """
    plan = plan_training(workspace, request, reporter)
    sources = plan.sources
    splits = {seed: plan.split(seed) for seed in request.seeds} if plan.regime.learns else {}
    audits = _audit(workspace, plan, reporter)
    reader = plan.inputs.open(reporter)
    weights = plan.inputs.description["weights"]
    if is_untrained(weights):
        reporter.say(describe_untrained(weights))
    test = sources.positions("test")
    used = dict.fromkeys(test)
    if not plan.regime.fits:
        used = dict.fromkeys(p for split in splits.values() for p in (*split.steps, *split.val))
        used |= dict.fromkeys(test)
    with _memory_advice():
        examples, resident = open_examples(
            reader, plan.device, request.resident, list(used), plan.domains.at
        )
    extra = {**audits, **plan.regime.facts(plan)}
    facts = {
        **extra,
        "resident": resident,
        "command": (key := _command_key(plan, extra)),
    }
    run = _Runs(workspace, plan, examples, splits, test, facts, reporter, reader)
    build = plan.regime.builder(plan, reporter)
    records: list[Record] = []
    with unfinished_command(workspace.runs, key, f"training {sources.names}", reporter) as command:
        for seed in request.seeds:
            if (done := command.finished(seed)) is not None:
                reporter.say(f"Seed {seed} is done: record {done.id}.")
                records.append(done)
                continue
            keeper, record_id = command.keeper(seed), command.begin(seed, plan.regime.record_kind)
            try:
                records.append(run.one(seed, build, record_id, keeper))
            except KeyboardInterrupt:
                tell_interrupted(reporter, len(records), request.seeds, seed, keeper)
                raise
            command.end(seed)
        if deliver is not None:
            deliver(records)
    return records


def train_each(
    workspace: Workspace,
    requests: Sequence[TrainingRequest],
    reporter: Reporter,
    deliver: Deliver,
    done: Sequence[Record] = (),
) -> None:
    """Several trainings, one after the other; their records are delivered together.

    Each waits for the next to be delivered, so that none is trained again after a kill.

    Args:
        workspace: Where.
        requests: One or more.
        reporter: Receives progress.
        deliver: Gets the records of all.
        done: Those of trainings before.

    Raises:
        EmcacheError: As :func:`train`.
    """
    first, *others = requests

    def next_one(records: Sequence[Record]) -> None:
        whole = [*done, *records]
        if others:
            train_each(workspace, others, reporter, deliver, whole)
        else:
            deliver(whole)

    train(workspace, first, reporter, next_one)


def plan_training(
    workspace: Workspace, request: TrainingRequest, reporter: Reporter
) -> TrainingPlan:
    """Resolve a training without extracting or training anything.

    Raises:
        EmcacheError: Of the datasets, the features, the backbone or the options.
    """
    regime = find_regime(request.regime)
    device = pick_device(request.device)
    precision = pick_precision(request.precision, device)
    check_sampling(request.sampling, len(request.datasets), request.protocol.batch)
    features, protocol = request.features, request.protocol
    tiling = Tiling.of(protocol.tile, protocol.overlap)
    check_pictures(request.save_predictions, tiling)
    sources = training_sources(workspace, request.datasets, reporter, tiling)
    check_penalty(protocol, sources)
    check_method(regime, protocol, sources)
    protocol = with_annotations(protocol, request.annotations)
    if protocol.pixel_size_nm is not None:
        features = replace(features, pixel_size_nm=protocol.pixel_size_nm)
    features = replace(features, shift=read_shift(protocol.tokens), tiling=tiling)
    if protocol.normalise != "none":
        features = replace(features, greys=find_grey_rule(workspace, protocol.normalise, reporter))
    if regime.runs_backbone:
        # Tokens go to the head as they are computed, in the arithmetic of the training.
        features = replace(features, dtype="float32", precision=precision)
    asked = InputsRequest(
        sources, features, request.device, protocol, cached_blocks=not request.on_the_fly
    )
    inputs = regime.plan(workspace, asked, reporter)
    # Features of one physical scale may be chosen though the user did not ask for it, and an
    # overlap that is not given is the same as the one that it stands for.
    protocol = replace(
        protocol,
        pixel_size_nm=inputs.description.get("pixel_size_nm"),
        overlap=None if tiling is None else tiling.overlap,
    )
    _check_grids(sources, inputs)
    return TrainingPlan(request, regime, sources, inputs, protocol, device, precision)


def _check_grids(sources: Sources, inputs: Inputs) -> None:
    for source, own in zip(sources.items, inputs.grids, strict=True):
        if (1, 1) in own:
            raise TrainingError(
                f"the tokens of {source.dataset.name} are a grid of one, whose batch norm has no "
                f"spread; expected several a slice: choose a larger --longest-edge.",
                subject=source.dataset.name,
            )


def _audit(workspace: Workspace, plan: TrainingPlan, reporter: Reporter) -> dict[str, Any]:
    """Audit what is about to be trained on; what a record says of it.

    Raises:
        AuditError: An audit failed, and the request does not accept that.
    """
    datasets = [source.dataset for source in plan.sources.items]
    for note in compare_datasets(datasets, plan.protocol.pixel_size_nm is not None):
        reporter.say(note)
    accepted, audits = accept_audits(workspace, datasets, plan.request.accept_audit, reporter)
    return {"audit_accepted": accepted, "audits": audits}


def _command_key(plan: TrainingPlan, extra: Mapping[str, Any]) -> str:
    """Key of a command: the same words on the same data, with the same arithmetic."""
    return json_sha256(
        {
            "setting": plan.fingerprint(None),
            # Two commands that begin at once may each make an audit; they judge the same data.
            "extra": {name: value for name, value in extra.items() if name != "audits"},
            "seeds": list(plan.request.seeds),
            "save_predictions": plan.request.save_predictions,
            "device": plan.device.type,
            "layout": str(pick_layout(plan.device, plan.precision)),
            "versions": package_versions(),
        }
    )


def _memory_advice() -> AbstractContextManager[None]:
    return advise_on_memory(
        TrainingError,
        "training",
        "where a backbone trains use --accumulate 2 or --checkpoint, else a smaller --batch or "
        "--longest-edge, or --resident disk",
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    workspace: Workspace
    plan: TrainingPlan
    examples: Examples
    splits: Mapping[int, Split]
    test: list[int]
    facts: Mapping[str, Any]
    reporter: Reporter
    reader: Reader
    references: list[Reference] = field(default_factory=list)

    def one(
        self, seed: int, build: Callable[[int], Model], record_id: str, keeper: Keeper
    ) -> Record:
        """Train and test one model; it is gone from memory before the next is built."""
        plan = self.plan
        request, sources, protocol = plan.request, plan.sources, plan.protocol
        with (
            kept_memory(),
            _memory_advice(),
            new_record(self.workspace.runs, plan.regime.record_kind, record_id) as draft,
        ):
            peak_memory = watch_memory(plan.device)
            model = build(seed)
            trainer = Trainer(
                model.module,
                protocol,
                plan.device,
                plan.precision,
                ignores=sources.ignores,
                penalty=build_penalty(protocol, sources, model.head, seed),
                backbone_rate=model.backbone_rate,
                augmentation=model.augmentation,
            )
            learned = self._learn(model, trainer, seed, keeper)
            result = learned.fit
            if protocol.align_on == "test":
                for positions in plan.domains.slices("test", new=False):
                    plan.domains.adapt(trainer, self.examples, positions)
            pictures = draft if request.save_predictions else None
            used = training_slices(sources, learned.train, learned.val)
            rows = score_slices(
                trainer,
                self.examples,
                sources,
                self.test,
                protocol.batch,
                pictures,
                Seen(frozenset(used["pixel_sha256"])),
            )
            losses = [(epoch.train_loss, epoch.val_loss) for epoch in result.epochs]
            draft.config = {
                **run_config(plan, seed, result),
                **model.facts(),
                **self.facts,
                **learned.facts,
                "domains": list(plan.domains.names),
                "nothing_learned": nothing_learned(rows, losses),
                "peak_memory_bytes": peak_memory(),
            }
            draft.write_table("epochs.parquet", epoch_table(result.epochs))
            draft.write_table("slice_metrics.parquet", slice_table(rows))
            draft.write_table(TRAINING_SLICES, used)
            if self.reader.domains:
                save_moments(draft.path(ALIGNMENT_FILE), self.reader.domains)
            if isinstance(self.reader, TokenReader) and self.reader.basis is not None:
                self.reader.basis.save(draft.path(BASIS_FILE))
            if references := self._references(trainer, {*learned.train, *learned.val}):
                save_references(draft.path(REFERENCE_FILE), references)
            model.save(draft)
            record = draft.finish()
        tell_result(self.reporter, sources, seed, result, rows, record)
        return record

    def _learn(self, model: Model, trainer: Trainer, seed: int, keeper: Keeper) -> Learned:
        """Train, or fit to a few labels; the model is the best there was then."""
        if not self.plan.regime.learns:
            return Learned(Fit({}, (), 0, "nothing to learn", 0.0), [], [], NOTHING_GIVEN)
        split, sources = self.splits[seed], self.plan.sources
        if self.plan.regime.fits:
            return fit_few_labels(model.head, self.reader, self.plan, split.train, seed)
        order = TrainingOrder(split.train, split.val, self.plan.request.sampling)
        result = fit(trainer, self.examples, order, seed, self.reporter, keeper)
        model.module.load_state_dict(dict(result.state), strict=False)
        return Learned(result, split.steps, split.val, split_facts(sources, split))

    def _references(self, trainer: Trainer, learned: Container[int]) -> list[Reference]:
        """What new slices can be compared with: the tokens of the slices that were learned from."""
        if self.references or self.plan.regime.fits or not self.plan.regime.has_backbone:
            # A few annotated slices are too few to compare others with; a U-Net has no tokens.
            return self.references
        if isinstance(self.reader, TokenReader):
            tokens_of = self.reader.deepest
        else:

            def tokens_of(position: int) -> Float[np.ndarray, "row col channel"]:
                return trainer.backbone_tokens(self.examples.steps([[position]]))[0]

        found = [
            take_reference(source.dataset.first_name, tokens_of, own)
            for source in self.plan.sources.items
            if (own := [p for p in source.positions("train") if p in learned])
        ]
        references = [reference for reference in found if reference is not None]
        if isinstance(self.reader, TokenReader) and self.plan.protocol.train_slices is None:
            # Cached tokens are the same for every seed; those of an adapter are its own.
            self.references.extend(references)
        return references

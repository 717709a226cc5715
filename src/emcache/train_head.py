"""Training heads from a feature set, one record for each seed.

Only the feature set is read: no image is decoded and no backbone is built. Files are looked at by
size and time, to be sure that the tokens are still those of today's slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import UInt8
from PIL import Image
from safetensors.torch import save_file

from emcache.counts import Counts
from emcache.datasets import Slice
from emcache.devices import Precision, pick_device, pick_precision
from emcache.errors import TrainingError
from emcache.examples import Examples, Residency, open_examples
from emcache.feature_choice import FeatureRequest
from emcache.heads import build_head, count_parameters
from emcache.progress import Reporter
from emcache.protocol import Protocol
from emcache.records import Draft, Record, new_record
from emcache.sampling import Sampling, check_sampling, chunks, split_validation
from emcache.sources import Source, dataset_names, resolve_sources
from emcache.training import Fit, Trainer, fit
from emcache.weights import describe_untrained, is_untrained
from emcache.workspace import Workspace


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What the user may choose about head training, beside the protocol."""

    seeds: Sequence[int]
    protocol: Protocol
    sampling: Sampling = Sampling.NATURAL
    resident: Residency = Residency.AUTO
    device: str = "auto"
    precision: str = "auto"
    save_predictions: bool = False


@dataclass(frozen=True, slots=True)
class _Setting:
    """Everything that the runs of one command share."""

    sources: tuple[Source, ...]
    examples: Examples
    resident: Residency
    train: list[list[int]]
    val: list[int]
    test: list[int]
    device: torch.device
    precision: Precision
    options: HeadOptions

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the feature sets have in common."""
        return self.sources[0].features.feature_set.description

    def slice_at(self, position: int) -> tuple[Source, Slice]:
        """The slice at a position, and where it comes from."""
        source = [item for item in self.sources if item.first <= position][-1]
        return source, source.slices[position - source.first]


def train_head(
    workspace: Workspace,
    datasets: Sequence[str],
    request: FeatureRequest,
    options: HeadOptions,
    reporter: Reporter,
) -> list[Record]:
    """Train one head for each seed; extract first what is not in the cache.

    Args:
        workspace: Where.
        datasets: Names of the datasets to train on.
        request: Which features; what is not named must be unambiguous.
        options: How.
        reporter: Hears of everything that takes long.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        EmcacheError: Of the dataset, the features or the options.
    """
    setting = _prepare(workspace, dataset_names(datasets), request, options, reporter)
    if is_untrained(setting.facts["weights"]):
        reporter.say(describe_untrained(setting.facts["weights"]))
    records: list[Record] = []
    try:
        for seed in options.seeds:
            record = _run(workspace, setting, seed, reporter)
            records.append(record)
    except KeyboardInterrupt:
        left = ",".join(str(seed) for seed in options.seeds[len(records) :])
        reporter.say(
            f"{len(records)} of {len(options.seeds)} seeds are done; go on with --seeds {left}."
        )
        raise
    return records


def _prepare(
    workspace: Workspace,
    names: Sequence[str],
    request: FeatureRequest,
    options: HeadOptions,
    reporter: Reporter,
) -> _Setting:
    protocol = options.protocol
    check_sampling(options.sampling, len(names), protocol.batch)
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    sources = resolve_sources(workspace, names, request, options.device, reporter)
    if protocol.head == "deconv":
        _check_grids(sources)
    train, val = split_validation([source.positions("train") for source in sources], protocol)
    test = [position for source in sources for position in source.positions("test")]
    used = [*(position for positions in train for position in positions), *val, *test]
    examples, resident = open_examples(
        [source.features for source in sources], device, options.resident, used
    )
    return _Setting(sources, examples, resident, train, val, test, device, precision, options)


def _check_grids(sources: Sequence[Source]) -> None:
    for source in sources:
        if any(item.grid == (1, 1) for item in source.features.feature_set.slices):
            raise TrainingError(
                f"the tokens of {source.dataset.name} are a grid of one, whose batch norm has no "
                f"spread; extract with a larger --longest-edge, or use --head linear.",
                subject=source.dataset.name,
            )


def _run(workspace: Workspace, setting: _Setting, seed: int, reporter: Reporter) -> Record:
    protocol = setting.options.protocol
    with new_record(workspace.runs, "train-head") as draft:
        head = build_head(protocol.head, setting.facts["dim"], seed)
        trainer = Trainer(head, protocol, setting.device, setting.precision)
        result = fit(
            trainer,
            setting.examples,
            setting.train,
            setting.val,
            setting.options.sampling,
            protocol,
            seed,
            reporter,
        )
        head.load_state_dict(dict(result.state))
        rows = _test(setting, trainer, draft)
        draft.config = _config(setting, seed, result, count_parameters(head))
        draft.write_table("epochs.parquet", pl.DataFrame([asdict(e) for e in result.epochs]))
        draft.write_table("slice_metrics.parquet", pl.DataFrame(rows))
        state = {name: tensor.contiguous() for name, tensor in head.cpu().state_dict().items()}
        save_file(state, draft.path("head.safetensors"))
        record = draft.finish()
    scores = ", ".join(
        f"{source.dataset.name} {_iou(rows, source.dataset.name):.4f}" for source in setting.sources
    )
    reporter.say(
        f"Seed {seed}: test IoU {scores} on {len(rows)} slices, best epoch {result.best_epoch} of "
        f"{len(result.epochs)} ({result.seconds:.1f} s); record {record.id}."
    )
    return record


def _test(setting: _Setting, trainer: Trainer, draft: Draft) -> list[dict[str, Any]]:
    """Score the test slices; one row a slice."""
    steps = setting.examples.steps(chunks(setting.test, setting.options.protocol.batch))
    rows = {}
    for _, slices in trainer.predict(steps):
        for position, predicted, true in slices:
            source, item = setting.slice_at(position)
            rows[position] = {
                "eval_on": source.dataset.name,
                "split": item.split,
                "slice_id": item.id,
                "class": "foreground",
                **asdict(Counts.of(predicted, true)),
            }
            if setting.options.save_predictions:
                for kind, labels in (("predictions", predicted), ("masks", true)):
                    name = PurePosixPath(kind, source.dataset.name, f"{item.id}.png")
                    _save_labels(draft, str(name), labels.to("cpu", torch.uint8).numpy())
    return [rows[position] for position in setting.test]


def _iou(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    counts = (Counts(r["tp"], r["fp"], r["fn"], r["tn"]) for r in rows if r["eval_on"] == name)
    return Counts.total(counts).iou


def _save_labels(draft: Draft, name: str, labels: UInt8[np.ndarray, "row col"]) -> None:
    """Write a label image that can be seen: foreground 255."""
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(draft.path(name))


def _config(setting: _Setting, seed: int, result: Fit, parameters: int) -> dict[str, Any]:
    facts, protocol, sources = setting.facts, setting.options.protocol, setting.sources
    feature_sets = [source.features.feature_set for source in sources]
    return {
        "regime": "frozen",
        "backbone": facts["backbone"],
        "weights": facts["weights"],
        "weights_sha256": facts["weights_sha256"],
        "longest_edge": facts["longest_edge"],
        "protocol": protocol.label,
        "protocol_fields": protocol.as_dict(),
        "train_on": " + ".join(source.dataset.name for source in sources),
        "sampling": setting.options.sampling,
        "seed": seed,
        "head": protocol.head,
        "head_parameters": parameters,
        "audit_accepted": None,
        "precision": setting.precision,
        "device": setting.device.type,
        "resident": setting.resident,
        "feature_sets": [item.name for item in feature_sets],
        "feature_fingerprints": [item.fingerprint for item in feature_sets],
        "label_sets": [source.features.labels.key for source in sources],
        "epochs_run": len(result.epochs),
        "best_epoch": result.best_epoch,
        "best_val_loss": result.best_val_loss,
        "stopped_by": result.stopped_by,
        "n_train": sum(len(positions) for positions in setting.train),
        "n_val": len(setting.val),
        "val_slices": [
            f"{source.dataset.name}/{item.id}"
            for source, item in map(setting.slice_at, setting.val)
        ],
        "train_seconds": result.seconds,
    }

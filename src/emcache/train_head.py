"""Training heads from a feature set, one record for each seed.

Only the feature set is read: no image is decoded and no backbone is built. Files are looked at by
size and time, to be sure that the tokens are still those of today's slices.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from emcache.datasets import Dataset, Selection, Slice, load_dataset
from emcache.devices import Precision, pick_device, pick_precision
from emcache.errors import DatasetError, TrainingError, UsageError
from emcache.examples import Examples, Residency, open_examples
from emcache.extract import run_extraction
from emcache.feature_choice import FeatureRequest, choose_feature_set
from emcache.heads import build_head, count_parameters
from emcache.jobs import plan_extraction
from emcache.labels import LabelSet, ensure_labels
from emcache.progress import Reporter
from emcache.protocol import Protocol
from emcache.records import Draft, Record, new_record
from emcache.store import FeatureSet
from emcache.training import Fit, Trainer, batch_order, fit, split_validation
from emcache.weights import describe_untrained, is_untrained
from emcache.workspace import Workspace


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What the user may choose about head training, beside the protocol."""

    seeds: Sequence[int]
    protocol: Protocol
    resident: Residency = Residency.AUTO
    device: str = "auto"
    precision: str = "auto"
    save_predictions: bool = False


@dataclass(frozen=True, slots=True)
class _Setting:
    """Everything that the runs of one command share."""

    dataset: Dataset
    slices: tuple[Slice, ...]
    feature_set: FeatureSet
    labels: LabelSet
    examples: Examples
    resident: Residency
    train: list[int]
    val: list[int]
    test: list[int]
    device: torch.device
    precision: Precision
    options: HeadOptions


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
        datasets: Names of the datasets to train on; exactly one.
        request: Which features; what is not named must be unambiguous.
        options: How.
        reporter: Hears of everything that takes long.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        EmcacheError: Of the dataset, the features or the options.
    """
    setting = _prepare(workspace, _single(datasets), request, options, reporter)
    if is_untrained(setting.feature_set.description["weights"]):
        reporter.say(describe_untrained(setting.feature_set.description["weights"]))
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


def _single(datasets: Sequence[str]) -> str:
    if len(datasets) != 1:
        raise UsageError(
            f"found {len(datasets)} datasets to train on; this version trains on one at a time.",
            subject=tuple(datasets),
        )
    selection = Selection.parse(datasets[0])
    if selection.split is not None:
        raise UsageError(
            f"{selection} names a split; training takes a whole dataset, whose own split says what "
            f"trains and what tests: use {selection.dataset}.",
            subject=datasets[0],
        )
    return selection.dataset


def _prepare(
    workspace: Workspace,
    name: str,
    request: FeatureRequest,
    options: HeadOptions,
    reporter: Reporter,
) -> _Setting:
    dataset = load_dataset(workspace, name, reporter)
    slices = dataset.labelled
    if not slices:
        raise DatasetError(
            f"dataset {name} has no masks; training needs them: add it again with --masks.",
            subject=name,
        )
    by_split = {
        split: [place for place, item in enumerate(slices) if item.split == split]
        for split in ("train", "test")
    }
    for split, positions in by_split.items():
        if not positions:
            raise DatasetError(
                f"dataset {name} has no labelled slice in split {split}; training needs train and "
                f"test: set its split in emcache.toml.",
                subject=name,
            )
    train, val = split_validation(by_split["train"], options.protocol)
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    feature_set = choose_feature_set(workspace, dataset, request)
    if feature_set is None:
        extract_options = request.extract_options(name, options.device)
        reporter.say(f"No features of {name} for {extract_options.backbone} yet: extracting first.")
        job = plan_extraction(workspace, Selection(name, None), extract_options, reporter)
        feature_set = run_extraction(job, reporter).feature_set
    if options.protocol.head == "deconv" and any(s.grid == (1, 1) for s in feature_set.slices):
        raise TrainingError(
            f"the tokens of {name} are a grid of one, whose batch norm has no spread; extract with "
            f"a larger --longest-edge, or use --head linear.",
            subject=feature_set.name,
        )
    labels = ensure_labels(feature_set, slices, dataset.mask_threshold, reporter)
    test = by_split["test"]
    examples, resident = open_examples(
        feature_set, labels, device, options.resident, [*train, *val, *test]
    )
    return _Setting(
        dataset,
        slices,
        feature_set,
        labels,
        examples,
        resident,
        train,
        val,
        test,
        device,
        precision,
        options,
    )


def _run(workspace: Workspace, setting: _Setting, seed: int, reporter: Reporter) -> Record:
    protocol = setting.options.protocol
    with new_record(workspace.runs, "train-head") as draft:
        head = build_head(protocol.head, setting.feature_set.description["dim"], seed)
        trainer = Trainer(head, protocol, setting.device, setting.precision)
        result = fit(
            trainer, setting.examples, setting.train, setting.val, protocol, seed, reporter
        )
        head.load_state_dict(dict(result.state))
        rows = _test(setting, trainer, draft)
        draft.config = _config(setting, seed, result, count_parameters(head))
        draft.write_table("epochs.parquet", pl.DataFrame([asdict(e) for e in result.epochs]))
        draft.write_table("slice_metrics.parquet", pl.DataFrame(rows))
        state = {name: tensor.contiguous() for name, tensor in head.cpu().state_dict().items()}
        save_file(state, draft.path("head.safetensors"))
        record = draft.finish()
    iou = Counts.total(Counts(r["tp"], r["fp"], r["fn"], r["tn"]) for r in rows).iou
    reporter.say(
        f"Seed {seed}: test IoU {iou:.4f} on {len(rows)} slices, best epoch {result.best_epoch} of "
        f"{len(result.epochs)} ({result.seconds:.1f} s); record {record.id}."
    )
    return record


def _test(setting: _Setting, trainer: Trainer, draft: Draft) -> list[dict[str, Any]]:
    """Score the test slices; one row a slice."""
    grids = {position: setting.examples.grid(position) for position in setting.test}
    order = list(batch_order(setting.test, grids, setting.options.protocol.batch))
    outcomes = trainer.predict(setting.examples.batches(order))
    rows = {}
    for positions, (_, predicted, true) in zip(order, outcomes, strict=True):
        for position, p, t in zip(positions, predicted, true, strict=True):
            item = setting.slices[position]
            rows[position] = {
                "eval_on": setting.dataset.name,
                "split": item.split,
                "slice_id": item.id,
                "class": "foreground",
                **asdict(Counts.of(p, t)),
            }
            if setting.options.save_predictions:
                for kind, labels in (("predictions", p), ("masks", t)):
                    name = PurePosixPath(kind, setting.dataset.name, f"{item.id}.png")
                    _save_labels(draft, str(name), labels.to("cpu", torch.uint8).numpy())
    return [rows[position] for position in setting.test]


def _save_labels(draft: Draft, name: str, labels: UInt8[np.ndarray, "row col"]) -> None:
    """Write a label image that can be seen: foreground 255."""
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(draft.path(name))


def _config(setting: _Setting, seed: int, result: Fit, parameters: int) -> dict[str, Any]:
    facts, protocol = setting.feature_set.description, setting.options.protocol
    return {
        "regime": "frozen",
        "backbone": facts["backbone"],
        "weights": facts["weights"],
        "weights_sha256": facts["weights_sha256"],
        "longest_edge": facts["longest_edge"],
        "protocol": protocol.label,
        "protocol_fields": protocol.as_dict(),
        "train_on": setting.dataset.name,
        "sampling": "natural",
        "seed": seed,
        "head": protocol.head,
        "head_parameters": parameters,
        "audit_accepted": None,
        "precision": setting.precision,
        "device": setting.device.type,
        "resident": setting.resident,
        "feature_sets": [setting.feature_set.name],
        "feature_fingerprints": [setting.feature_set.fingerprint],
        "label_sets": [setting.labels.key],
        "epochs_run": len(result.epochs),
        "best_epoch": result.best_epoch,
        "best_val_loss": result.best_val_loss,
        "stopped_by": result.stopped_by,
        "n_train": len(setting.train),
        "n_val": len(setting.val),
        "val_slices": [setting.slices[position].id for position in setting.val],
        "train_seconds": result.seconds,
    }

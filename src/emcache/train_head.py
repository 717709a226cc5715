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
from emcache.datasets import Dataset, Selection, Slice, load_dataset
from emcache.devices import Precision, pick_device, pick_precision
from emcache.errors import DatasetError, StoreError, TrainingError, UsageError
from emcache.examples import Examples, LabelledFeatures, Residency, open_examples
from emcache.extract import run_extraction
from emcache.feature_choice import FeatureRequest, choose_feature_set
from emcache.heads import build_head, count_parameters
from emcache.jobs import plan_extraction
from emcache.labels import ensure_labels
from emcache.progress import Reporter
from emcache.protocol import Protocol
from emcache.records import Draft, Record, new_record
from emcache.sampling import Sampling, check_sampling, chunks, split_validation
from emcache.training import Fit, Trainer, fit
from emcache.weights import describe_untrained, is_untrained
from emcache.workspace import Workspace

_RECIPE_FIELDS = ("backbone", "weights", "weights_sha256", "longest_edge", "dtype", "precision")


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
class _Source:
    """One dataset of a training, with its features; positions count through all sources."""

    dataset: Dataset
    slices: tuple[Slice, ...]
    features: LabelledFeatures
    first: int
    """Position of its first slice."""

    def positions(self, split: str) -> list[int]:
        return [self.first + i for i, item in enumerate(self.slices) if item.split == split]


@dataclass(frozen=True, slots=True)
class _Setting:
    """Everything that the runs of one command share."""

    sources: tuple[_Source, ...]
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

    def slice_at(self, position: int) -> tuple[_Source, Slice]:
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
    setting = _prepare(workspace, _names(datasets), request, options, reporter)
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


def _names(datasets: Sequence[str]) -> list[str]:
    selections = [Selection.parse(text) for text in datasets]
    for selection in selections:
        if selection.split is not None:
            raise UsageError(
                f"{selection} names a split; training takes a whole dataset, whose own split says "
                f"what trains and what tests: use {selection.dataset}.",
                subject=str(selection),
            )
    names = [selection.dataset for selection in selections]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(
            f"dataset {twice[0]} is named twice; name each once.", subject=tuple(datasets)
        )
    return names


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
    # Every dataset is checked before anything is extracted for one of them.
    datasets = [_trainable(load_dataset(workspace, name, reporter)) for name in names]
    sources: list[_Source] = []
    for dataset in datasets:
        features = _features(workspace, dataset, request, options, reporter)
        first = sources[-1].first + len(sources[-1].slices) if sources else 0
        sources.append(_Source(dataset, dataset.labelled, features, first))
    _check_same_recipe(sources)
    train, val = split_validation([source.positions("train") for source in sources], protocol)
    test = [position for source in sources for position in source.positions("test")]
    used = [*(position for positions in train for position in positions), *val, *test]
    examples, resident = open_examples(
        [source.features for source in sources], device, options.resident, used
    )
    return _Setting(
        tuple(sources), examples, resident, train, val, test, device, precision, options
    )


def _trainable(dataset: Dataset) -> Dataset:
    if not dataset.labelled:
        raise DatasetError(
            f"dataset {dataset.name} has no masks; training needs them: add it again with --masks.",
            subject=dataset.name,
        )
    for split in ("train", "test"):
        if not any(item.split == split for item in dataset.labelled):
            raise DatasetError(
                f"dataset {dataset.name} has no labelled slice in split {split}; training needs "
                f"train and test: set its split in emcache.toml.",
                subject=dataset.name,
            )
    return dataset


def _features(
    workspace: Workspace,
    dataset: Dataset,
    request: FeatureRequest,
    options: HeadOptions,
    reporter: Reporter,
) -> LabelledFeatures:
    """Tokens and labels of a dataset, made now where they are not there."""
    name = dataset.name
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
    labels = ensure_labels(feature_set, dataset.labelled, dataset.mask_threshold, reporter)
    return LabelledFeatures(feature_set, labels)


def _check_same_recipe(sources: Sequence[_Source]) -> None:
    """One head reads tokens of one kind."""
    first = sources[0].features.feature_set
    for source in sources[1:]:
        other = source.features.feature_set
        if other.manifest["recipe_sha256"] == first.manifest["recipe_sha256"]:
            continue
        differing = "; ".join(
            f"{name} {first.description[name]} and {other.description[name]}"
            for name in _RECIPE_FIELDS
            if first.description[name] != other.description[name]
        )
        raise StoreError(
            f"the features of {sources[0].dataset.name} and {source.dataset.name} differ "
            f"({differing}); expected one backbone and size: name them with --backbone, --weights "
            f"and --longest-edge.",
            subject=(first.name, other.name),
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

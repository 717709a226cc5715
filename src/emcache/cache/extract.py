"""Extraction: the tokens of every slice, computed once.

Reading and resizing run ahead of the forward pass in threads, writing behind it; the backbone never
waits for a disk that keeps up. Batches never cross a shard, so a resumed extraction forms the same
batches as an unbroken one, and so the same bytes on the same device.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float32, UInt8

from emcache.auditing.run import ensure_audited
from emcache.cache.feature_set import PARTIAL_SUFFIX, RECEIPTS, FeatureSet, find_feature_set
from emcache.cache.find import Donors
from emcache.cache.inputs import normalise, training_image
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import Job
from emcache.cache.recipe import Shard
from emcache.cache.writer import FeatureSetWriter
from emcache.data.dataset import slice_table_rows
from emcache.errors import AdapterError, StoreError
from emcache.models.backbones.base import Backbone, BackboneModule
from emcache.models.device import Precision, advise_on_memory, autocast, kept_memory
from emcache.models.loading import load_backbone
from emcache.models.lora_files import adapter_sha256
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.locks import held
from emcache.storage.manifest import MANIFEST_NAME
from emcache.storage.records import Record, new_record, new_record_id


def embedding_table(
    dataset: str,
    slice_ids: Sequence[str],
    level: str,
    vectors: Float32[np.ndarray, "vector channel"],
    *,
    name_of_class: str | None = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> pl.DataFrame:
    """Rows for some vectors of one dataset, level and class.

    Args:
        dataset: Whose.
        slice_ids: Slice of each vector.
        level: ``slice``, ``cls`` or ``token``.
        vectors: In float32.
        name_of_class: Of tokens.
        places: Row and column of each token.
    """
    count = len(slice_ids)
    rows, columns = zip(*places, strict=True) if places else ([None] * count,) * 2
    return pl.DataFrame(
        {
            "dataset": [dataset] * count,
            "slice_id": list(slice_ids),
            "level": [level] * count,
            "class": pl.Series([name_of_class] * count, dtype=pl.String),
            "token_row": pl.Series(rows, dtype=pl.Int32),
            "token_col": pl.Series(columns, dtype=pl.Int32),
            "vector": pl.Series(
                np.ascontiguousarray(vectors, dtype=np.float32),
                dtype=pl.Array(pl.Float32, vectors.shape[1]),
            ),
        }
    )


def slice_embeddings(job: Job, feature_set: FeatureSet) -> pl.DataFrame:
    """Both vectors of every slice of a feature set."""
    ids, name = [item.id for item in job.slices], job.selection.dataset
    return pl.concat(
        [
            embedding_table(name, ids, "slice", feature_set.pooled()),
            embedding_table(name, ids, "cls", feature_set.cls()),
        ]
    )


_READ_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did."""

    feature_set: FeatureSet
    computed: int
    """Slices that went through the backbone."""
    copied: int
    """Slices taken from older feature sets."""
    record: Record | None
    """None where the feature set was there already."""


def run_extraction(job: Job, reporter: Reporter) -> Extraction:
    """Make the feature set of a job, or find that it is there; make its labels too.

    Two processes that want the same feature set work one after the other, and the second finds
    the first one's.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
        WeightsError: The weights do not fit, or changed since they were hashed.
    """
    ensure_audited(job.workspace, job.dataset, reporter)
    cache = job.workspace.cache
    cache.mkdir(parents=True, exist_ok=True)
    with held(cache / f".{job.name}.lock", f"extracting {job.name}", reporter):
        extraction = _find(job, reporter) or _extract(job, reporter)
    if all(item.mask is not None for item in job.slices):
        ensure_labels(extraction.feature_set, job.slices, job.dataset.classes, reporter)
    return extraction


def _find(job: Job, reporter: Reporter) -> Extraction | None:
    folder = job.workspace.cache / job.name
    # Opened by its name, so that one that is damaged is said and not made a second time.
    found = (
        FeatureSet.open(folder)
        if folder.is_dir()
        else find_feature_set(job.workspace.cache, job.fingerprint)
    )
    if found is None:
        return None
    if found.name == job.name:
        # Of a process that was killed when all was done but this.
        shutil.rmtree(found.folder / RECEIPTS, ignore_errors=True)
    record = job.workspace.runs / found.manifest["extraction"]["record_id"]
    if not record.is_dir():
        # A crash between the feature set and its record must not lose the record. One of another
        # name may just have been made, by a process that is writing its record.
        lock = found.folder.with_name(f".{found.name}.lock")
        others = found.name != job.name
        with held(lock, f"extracting {found.name}", reporter) if others else nullcontext():
            if not record.is_dir():
                write_record(job, found)
    return Extraction(found, 0, 0, None)


def _extract(job: Job, reporter: Reporter) -> Extraction:
    started = time.perf_counter()
    if is_untrained(job.weights.label):
        reporter.say(describe_untrained(job.weights.label))
    donors = Donors.find(job.workspace.cache, job.recipe.sha256(), job.places)
    copied = sum(item in donors for item in job.places)
    # Before anything is written, so that weights that do not fit leave nothing behind.
    backbone = load_job_backbone(job, reporter) if copied < len(job.places) else None
    advice = "use a smaller --batch or --longest-edge"
    with kept_memory(), advise_on_memory(StoreError, "the backbone", advice):
        feature_set = compute_tokens(job, backbone, donors, reporter)
    record = write_record(job, feature_set)
    seconds = time.perf_counter() - started
    reporter.say(
        f"Extracted {job.name}: {len(job.places) - copied} slices computed, {copied} copied, "
        f"{job.token_bytes / 1e9:.3f} GB of tokens, {seconds:.1f} s."
    )
    return Extraction(feature_set, len(job.places) - copied, copied, record)


def compute_tokens(
    job: Job,
    backbone: Backbone | None,
    donors: Donors,
    reporter: Reporter,
    extraction: Mapping[str, Any] | None = None,
) -> FeatureSet:
    """Read, resize, hash and compute what is pending, and write the feature set.

    Args:
        job: What to make.
        backbone: On the job's device; None where every slice is donated.
        donors: Older feature sets that hold some of the slices.
        reporter: Receives progress: every batch.
        extraction: What the manifest says of how it came about; None for what is made now.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
    """
    copied = sum(item in donors for item in job.places)
    final = job.workspace.cache / job.name
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    writer = FeatureSetWriter(partial, job.places, job.spec.dim, job.recipe.dtype)
    done = len(job.places) - sum(len(shard.positions) for shard in writer.pending)
    if done:
        reporter.say(f"Resuming {job.name}: {done} of {len(job.places)} slices are done.")
    _fill(job, writer, backbone, donors, reporter)
    return writer.finish(
        final,
        {
            "fingerprint": job.fingerprint,
            "recipe": job.recipe.identity(),
            "recipe_sha256": job.recipe.sha256(),
            "description": job.description(),
            "extraction": extraction
            or {
                "record_id": new_record_id("extract"),
                "n_computed": len(job.places) - copied,
                "n_copied": copied,
                "compute_seconds": writer.seconds,
            },
        },
    )


def load_job_backbone(job: Job, reporter: Reporter) -> BackboneModule:
    """The backbone of a job, with its adapter where it has one, on the job's device.

    Raises:
        WeightsError: The weights do not fit, or changed since they were hashed.
        AdapterError: The adapter does not fit, or changed since it was hashed.
    """
    backbone = load_backbone(job.spec, job.weights, job.device, reporter)
    if job.adapter is not None:
        # PEFT takes seconds to import, and a bare backbone needs none of it.
        from emcache.models.lora import load_adapter

        load_adapter(backbone, job.adapter.folder)
        if adapter_sha256(job.adapter.folder) != job.recipe.adapter_sha256:
            raise AdapterError(
                f"the adapter of run {job.adapter.run_id} changed while it was in use; run the "
                f"command again.",
                subject=job.adapter.folder,
            )
        backbone.eval().requires_grad_(False).to(job.device)
    return backbone


def _seconds(value: object) -> float:
    """What a manifest says of time; 0 where it says none."""
    held = isinstance(value, int | float) and 0 <= value < 1e9
    return float(value) if held else 0.0  # type: ignore[arg-type]


def write_record(job: Job, feature_set: FeatureSet) -> Record:
    """The record of an extraction, from what the feature set's manifest says of it."""
    extraction = dict(feature_set.manifest["extraction"])
    with new_record(job.workspace.runs, "extract", extraction.pop("record_id")) as draft:
        files = [feature_set.folder / name for name in feature_set.manifest["files"]]
        files.append(feature_set.folder / MANIFEST_NAME)
        draft.began(_seconds(extraction.get("compute_seconds")))
        draft.config = {
            **feature_set.description,
            **extraction,
            "feature_set": feature_set.name,
            "fingerprint": feature_set.fingerprint,
            "recipe_sha256": feature_set.manifest["recipe_sha256"],
            "n_slices": len(feature_set.slices),
            "token_bytes": feature_set.token_bytes,
            "total_bytes": sum(path.stat().st_size for path in files),
            "n_files": len(files),
        }
        rows = slice_table_rows(job.slices, job.dataset.root)
        draft.write_table("slices.parquet", pl.DataFrame(rows, infer_schema_length=None))
        draft.write_table("embeddings.parquet", slice_embeddings(job, feature_set))
        return draft.finish()


def _fill(
    job: Job,
    writer: FeatureSetWriter,
    backbone: Backbone | None,
    donors: Donors,
    reporter: Reporter,
) -> None:
    """Write every pending shard."""
    pending = writer.pending
    to_compute = [
        position
        for shard in pending
        for position in shard.positions
        if job.places[position] not in donors
    ]
    total = sum(len(shard.positions) for shard in pending)
    if not total:
        return
    writing: Future[None] | None = None
    with (
        reporter.task(f"Extracting {job.selection}", total, "slices") as task,
        ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), "read") as readers,
        ThreadPoolExecutor(1, "write") as writers,
    ):
        images = _read_ahead(
            readers, [_reader(job, position) for position in to_compute], _READ_AHEAD * job.batch
        )
        try:
            for shard in pending:
                started = time.perf_counter()
                block = _Block(job, shard)
                block.copy_from(donors, task.advance)
                if backbone is not None:
                    block.compute(backbone, images, task.advance)
                if writing is not None:
                    writing.result()
                seconds = time.perf_counter() - started
                writing = writers.submit(
                    writer.write, shard, block.tokens, block.pooled, block.cls, seconds
                )
            if writing is not None:
                writing.result()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            raise


class _Block:
    """The tokens of one shard, being gathered."""

    def __init__(self, job: Job, shard: Shard) -> None:
        count, (rows, columns), dim = len(shard.positions), shard.grid, job.spec.dim
        self._job = job
        self._shard = shard
        self._missing = list(range(count))
        self.tokens: Float[np.ndarray, "slice row col channel"] = np.empty(
            (count, rows, columns, dim), dtype=job.recipe.dtype
        )
        self.pooled: Float32[np.ndarray, "slice channel"] = np.empty((count, dim), np.float32)
        self.cls: Float32[np.ndarray, "slice channel"] = np.empty((count, dim), np.float32)

    def copy_from(self, donors: Donors, advance: Callable[[int], None]) -> None:
        """Take the slices that older feature sets hold."""
        for place in list(self._missing):
            item = self._job.places[self._shard.positions[place]]
            if item in donors:
                donated = donors.read(item)
                self.tokens[place] = donated.tokens
                self.pooled[place] = donated.pooled
                self.cls[place] = donated.cls
                self._missing.remove(place)
                advance(1)

    def compute(
        self,
        backbone: Backbone,
        images: Iterator[UInt8[np.ndarray, "row col"]],
        advance: Callable[[int], None],
    ) -> None:
        """Run the backbone over the others, batch by batch."""
        job = self._job
        for start in range(0, len(self._missing), job.batch):
            places = self._missing[start : start + job.batch]
            pixels = torch.from_numpy(np.stack([next(images) for _ in places])).to(job.device)
            with torch.inference_mode(), autocast(job.device, Precision(job.recipe.precision)):
                features = backbone(normalise(pixels))
            grid = features.tokens.permute(0, 2, 3, 1).float()
            stored = grid.to(getattr(torch, job.recipe.dtype)).cpu()
            self._check_finite(stored, places)
            self.tokens[places] = stored.numpy()
            self.pooled[places] = grid.mean(dim=(1, 2)).cpu().numpy()
            self.cls[places] = features.cls.float().cpu().numpy()
            advance(len(places))

    def _check_finite(self, stored: torch.Tensor, places: Sequence[int]) -> None:
        finite = stored.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            bad = places[int((~finite).nonzero()[0])]
            slice_id = self._job.places[self._shard.positions[bad]].id
            raise StoreError(
                f"the tokens of slice {slice_id} are not finite in {self._job.recipe.dtype}; "
                f"extract with --dtype float32 or --precision float32.",
                subject=slice_id,
            )


def _reader(job: Job, position: int) -> Callable[[], UInt8[np.ndarray, "row col"]]:
    rows, columns = job.places[position].grid
    size = (rows * job.spec.patch, columns * job.spec.patch)
    return lambda: training_image(job.slices[position], size)


def _read_ahead(
    pool: ThreadPoolExecutor,
    readers: Sequence[Callable[[], UInt8[np.ndarray, "row col"]]],
    depth: int,
) -> Iterator[UInt8[np.ndarray, "row col"]]:
    """Results in order, with at most ``depth`` of them waiting."""
    waiting: deque[Future[UInt8[np.ndarray, "row col"]]] = deque()
    for reader in readers:
        waiting.append(pool.submit(reader))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

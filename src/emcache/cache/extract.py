"""Extraction: the tokens of every slice, computed once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float32

from emcache.auditing.run import ensure_audited
from emcache.cache.blocks import Layer
from emcache.cache.compute import compute_layers
from emcache.cache.feature_set import PARTIAL_SUFFIX, RECEIPTS, FeatureSet, find_feature_set
from emcache.cache.find import donors_of
from emcache.cache.job_backbone import load_job_backbone
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import Job
from emcache.cluster.pool import Pool
from emcache.data.dataset import slice_table_rows
from emcache.errors import EmcacheError, StoreError
from emcache.freed import kept_memory
from emcache.models.device import advise_on_memory
from emcache.models.measured import timing_facts
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.locks import held
from emcache.storage.manifest import MANIFEST_NAME
from emcache.storage.records import Record, new_record

_ATTEMPTS = 3


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
    return run_extractions([job], reporter)[0]


def run_extractions(
    jobs: Sequence[Job], reporter: Reporter, pool: Pool | None = None
) -> list[Extraction]:
    """Make the feature sets of several layers of the same slices, in one pass of the backbone.

    Args:
        jobs: They differ in the recipe's layer alone.
        reporter: Receives progress.
        pool: Workers that compute; None for this process.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
        WeightsError: The weights do not fit, or changed since they were hashed.
        ClusterError: Workers are gone.
    """
    first = jobs[0]
    ensure_audited(first.workspace, first.dataset, reporter)
    cache = first.workspace.cache
    cache.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        # In one order, so that two commands never wait for each other.
        for name in sorted(job.name for job in jobs):
            locks.enter_context(held(cache / f".{name}.lock", f"extracting {name}", reporter))
        found = [_find(job, reporter) for job in jobs]
        missing = [job for job, one in zip(jobs, found, strict=True) if one is None]
        made = iter(_extract_or_find(missing, reporter, pool) if missing else ())
        extractions = [next(made) if one is None else one for one in found]
    if all(item.mask is not None for item in first.slices):
        # Beside the first layer, where trainings look for them; the others have the same.
        feature_set = extractions[0].feature_set
        ensure_labels(feature_set, first.slices, first.dataset.classes, reporter)
    return extractions


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


def _extract_or_find(
    jobs: Sequence[Job], reporter: Reporter, pool: Pool | None
) -> list[Extraction]:
    """Extract, though another process may be at it too: on some file systems locks do nothing."""
    attempt = 1
    while True:
        try:
            return _extract(jobs, reporter, pool)
        except (OSError, EmcacheError) as error:
            found = [one for job in jobs if (one := _find(job, reporter)) is not None]
            if len(found) == len(jobs):
                # It has completed what this one was writing.
                for job in jobs:
                    partial = job.workspace.cache / (job.name + PARTIAL_SUFFIX)
                    shutil.rmtree(partial, ignore_errors=True)
                return found
            if not isinstance(error, FileNotFoundError) or attempt == _ATTEMPTS:
                raise
            # It may be about to: both go on from the same shards.
            attempt += 1
            time.sleep(1)


def _extract(jobs: Sequence[Job], reporter: Reporter, pool: Pool | None) -> list[Extraction]:
    started = time.perf_counter()
    if is_untrained(jobs[0].weights.label):
        reporter.say(describe_untrained(jobs[0].weights.label))
    found = [donors_of(job) for job in jobs]
    layers = [Layer(job, donors) for job, donors in zip(jobs, found, strict=True)]
    donated = all(item in layer.donors for layer in layers for item in layer.job.places)
    # Before anything is written, so that weights that do not fit leave nothing behind.
    backbone = None
    if not donated and pool is None:
        backbone = load_job_backbone(jobs[0], reporter)
    advice = "use a smaller --batch or --longest-edge"
    with kept_memory(), advise_on_memory(StoreError, "the backbone", advice):
        feature_sets = compute_layers(layers, backbone, reporter, pool=pool)
    extractions = []
    seconds = time.perf_counter() - started
    for layer, feature_set in zip(layers, feature_sets, strict=True):
        job, count = layer.job, len(layer.job.places) - layer.copied
        record = write_record(job, feature_set)
        reporter.say(
            f"Extracted {job.name}: {count} slices computed, {layer.copied} copied, "
            f"{job.token_bytes / 1e9:.3f} GB of tokens, {seconds:.1f} s."
        )
        extractions.append(Extraction(feature_set, count, layer.copied, record))
    return extractions


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
            **timing_facts(job.device),
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

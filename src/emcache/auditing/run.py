"""Auditing a dataset, once for each state of its pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, UInt8
from PIL import Image
from threadpoolctl import threadpool_limits

from emcache.ahead import run_ahead
from emcache.auditing.alignment import MOST as MOST_ALIGNED
from emcache.auditing.alignment import Alignment
from emcache.auditing.checks import Brightness, check_alignment, check_content
from emcache.auditing.findings import Audit, Check
from emcache.auditing.looks import Looks, look_at_slices, spread
from emcache.auditing.pairing import Candidates, Judgement, Pairs, judge_pairing
from emcache.auditing.pictures import EDGE, EDGE_OF_MANY
from emcache.auditing.scratch import Drawn, Scratch
from emcache.auditing.search import MOST_AT_ONCE
from emcache.auditing.weighing import FEWEST
from emcache.data.dataset import Dataset, Slice
from emcache.data.images import outline_overlay
from emcache.data.plane import Plane
from emcache.data.sections import read_reduced_image, read_reduced_mask, reduced_size
from emcache.errors import AuditError, RecordError
from emcache.findings import Verdict
from emcache.freed import kept_memory
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Draft, Record, list_record_ids, new_record, read_record
from emcache.storage.workspace import Workspace

AUDIT_VERSION = 4
"""Changes whenever the same data might be judged otherwise."""

_Grey = UInt8[np.ndarray, "row col"]
_Foreground = Bool[np.ndarray, "row col"]

KIND = "audit"
"""Kind of the records."""

_READERS = max(1, min(8, os.cpu_count() or 1))
_PICTURES = 4
_PIXELS = 420


@dataclass(frozen=True, slots=True)
class AuditState:
    """What is known of a dataset's audit, from a record."""

    record: Record

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all checks."""
        return Verdict(self.record.config["verdict"])

    @property
    def failed(self) -> list[str]:
        """Sentences of the checks that failed."""
        checks: Sequence[Mapping[str, Any]] = self.record.config["checks"]
        return [f"{c['name']}: {c['message']}" for c in checks if c["verdict"] == Verdict.FAIL]


def audit_dataset(
    workspace: Workspace, dataset: Dataset, reporter: Reporter
) -> tuple[Audit, Record]:
    """Run every check and keep the result as a record.

    Of slices of several sizes those of the commonest are compared with masks.

    Raises:
        ImageError: A file that cannot be read.
    """
    examined, note = _examined(dataset)
    brightness: list[Brightness] = []
    with new_record(workspace.runs, KIND) as draft, kept_memory():
        judgement, alignment, looks = _judge(dataset, examined, note, brightness, reporter)
        checks = [judgement.check, alignment] if dataset.labelled else []
        audit = Audit(
            dataset.name,
            (*checks, *check_content(dataset, brightness, looks)),
            judgement.pairing,
        )
        draft.config = {**audit.as_dict(), "audit_key": audit_key(dataset)}
        if judgement.scores is not None:
            _write_scores(draft, dataset, examined, judgement)
            _write_pictures(draft, dataset, examined, judgement)
        record = draft.finish()
    return audit, record


def ensure_audited(workspace: Workspace, dataset: Dataset, reporter: Reporter) -> AuditState | None:
    """The audit of the dataset as it is now, made where there is none yet; None without masks.

    What is found is said once, when it is found.
    """
    if not dataset.labelled:
        return None
    dataset = dataset.of_whole_slices
    if (known := find_audit(workspace, dataset)) is not None:
        return known
    audit, record = audit_dataset(workspace, dataset, reporter)
    for check in audit.checks:
        if check.verdict is not Verdict.PASS:
            reporter.say(f"Audit of {dataset.name}, {check.name}: {check.verdict}: {check.message}")
    if audit.verdict is Verdict.PASS:
        reporter.say(f"Audit of {dataset.name}: pass.")
    return AuditState(record)


def accept_audits(
    workspace: Workspace, datasets: Sequence[Dataset], accept: bool, reporter: Reporter
) -> tuple[bool | None, list[str]]:
    """Refuse to train on data that failed its audit, unless the user accepts it.

    Returns:
        Whether a failed audit was accepted (None where nothing was audited), and the audits'
        records.

    Raises:
        AuditError: An audit failed and was not accepted.
    """
    states = [ensure_audited(workspace, dataset, reporter) for dataset in datasets]
    known = [state for state in states if state is not None]
    failed = any(state.verdict is Verdict.FAIL for state in known)
    if not accept:
        _refuse_failed(datasets, states)
    return (failed if known else None), [state.record.id for state in known]


def refuse_known_failures(workspace: Workspace, datasets: Sequence[Dataset]) -> None:
    """Refuse data whose audit has failed already; nothing is audited.

    Raises:
        AuditError: A record says that it failed, or its masks are paired wrongly on purpose.
    """
    for dataset in datasets:
        if dataset.scramble is not None:
            raise _refusal(dataset, f"{dataset.scramble.words}.")
    _refuse_failed(datasets, [find_audit(workspace, dataset) for dataset in datasets])


def _refuse_failed(datasets: Sequence[Dataset], states: Sequence[AuditState | None]) -> None:
    for dataset, state in zip(datasets, states, strict=True):
        if state is not None and state.verdict is Verdict.FAIL:
            raise _refusal(dataset, state.failed[0])


def _refusal(dataset: Dataset, why: str) -> AuditError:
    return AuditError(
        f"the audit of {dataset.name} failed: {why} Fix the data, or train all the same with "
        f"--accept-audit, and every score will say so.",
        subject=dataset.name,
    )


def find_audit(workspace: Workspace, dataset: Dataset) -> AuditState | None:
    """The newest audit of these very pixels, masks and splits."""
    key = audit_key(dataset.of_whole_slices)
    for name in reversed(list_record_ids(workspace.runs)):
        if not name[:-7].endswith(f"-{KIND}"):
            continue
        try:
            record = read_record(workspace.runs / name, verify_files=False)
        except RecordError:
            continue
        if record.config.get("audit_key") == key:
            return AuditState(record)
    return None


def audit_key(dataset: Dataset) -> str:
    """Hash of everything that an audit judges."""
    return json_sha256(
        {
            "version": AUDIT_VERSION,
            **dataset.classes.key(),
            "voxel_size_nm": dataset.voxel_size_nm,
            # Datasets that are paired as they should be have the key that they always had.
            **({} if dataset.scramble is None else {"scramble": dataset.scramble.words}),
            "slices": [[s.id, s.split, s.pixel_sha256, s.mask_sha256] for s in dataset.slices],
        }
    )


def _examined(dataset: Dataset) -> tuple[list[Slice], str]:
    """Slices to compare with masks, and a sentence on what was left out."""
    usable = [
        item
        for item in dataset.labelled
        if item.foreground_pixels and item.foreground_pixels < item.height * item.width
    ]
    sizes = Counter((item.height, item.width) for item in usable)
    if not sizes:
        return [], ""
    size = sizes.most_common(1)[0][0]
    chosen = [item for item in usable if (item.height, item.width) == size]
    note = f"Only the slices of {size[0]} x {size[1]} pixels were compared."
    return chosen, note if len(sizes) > 1 else ""


def _judge(
    dataset: Dataset,
    examined: Sequence[Slice],
    note: str,
    brightness: list[Brightness],
    reporter: Reporter,
) -> tuple[Judgement, Check, Looks]:
    labelled = dataset.labelled
    places = {item.id: place for place, item in enumerate(labelled)}
    candidates = Candidates(
        Pairs(
            [_below(dataset, item.image) for item in labelled],
            [_below(dataset, item.mask) for item in labelled],
            [item.split or "" for item in labelled],
        ),
        [places[item.id] for item in examined],
        [item.mask_sha256 or "" for item in examined],
        note,
    )
    if not examined:
        return judge_pairing(candidates, None), check_alignment(None), look_at_slices(dataset)
    aligned = {item.id for item in spread(examined, MOST_ALIGNED)}
    size = reduced_size(*examined[0].size)
    alignment = Alignment(*size)
    edge = EDGE if len(examined) <= MOST_AT_ONCE else EDGE_OF_MANY
    with (
        Scratch(*size, edge) as scratch,
        # Small products gain little from threads, and lose much on a machine that is busy.
        threadpool_limits(limits=1, user_api="blas"),
        reporter.task(f"Auditing {dataset.name}", len(examined), "slices") as task,
        ThreadPoolExecutor(_READERS, "read") as readers,
    ):

        def read(item: Slice) -> tuple[_Grey, _Foreground, Drawn]:
            assert item.mask is not None  # noqa: S101 - only labelled slices are examined
            pixels = read_reduced_image(item.image, item.grey_window)
            foreground = dataset.classes.foreground(read_reduced_mask(item.mask))
            return pixels, foreground, scratch.draw(pixels, foreground)

        # Decoding and filtering release the interpreter's lock.
        ahead = run_ahead(readers, (partial(read, item) for item in examined), 2 * _READERS)
        for item, (pixels, foreground, drawn) in zip(examined, ahead, strict=True):
            brightness.append(Brightness(item, float(pixels.mean())))
            scratch.add(drawn)
            if item.id in aligned:
                alignment.add(pixels, foreground)
            task.advance()
        # Judging leaves cores idle now and then.
        looks = readers.submit(look_at_slices, dataset)
        placed = readers.submit(alignment.place)
        enough = len(examined) >= FEWEST
        judgement = judge_pairing(candidates, scratch if enough else None)
        return judgement, check_alignment(placed.result()), looks.result()


def _write_scores(
    draft: Draft, dataset: Dataset, examined: Sequence[Slice], judgement: Judgement
) -> None:
    """How well every mask fits every image, as the heat map shows it."""
    assert judgement.scores is not None  # noqa: S101 - the caller has checked
    masks = {_below(dataset, item.mask): item.id for item in examined}
    best = {image: masks[mask] for image, mask in judgement.pairing.assignment.items()}
    shown = [examined[place] for place in judgement.shown]
    ids = np.array([item.id for item in shown])
    assigned = np.array([best.get(_below(dataset, item.image), "") for item in shown])
    table = pl.DataFrame(
        {
            "image": np.repeat(ids, len(ids)),
            "mask": np.tile(ids, len(ids)),
            "score": judgement.scores.ravel(),
            "declared": np.eye(len(ids), dtype=bool).ravel(),
            "assigned": (assigned[:, None] == ids).ravel(),
        }
    )
    draft.write_table("audit_scores.parquet", table)


def _write_pictures(
    draft: Draft, dataset: Dataset, examined: Sequence[Slice], judgement: Judgement
) -> None:
    """The slices whose own masks fit worst, with the masks' outlines."""
    assert judgement.scores is not None  # noqa: S101 - the caller has checked
    own = np.diagonal(judgement.scores)

    def write(place: int) -> None:
        item = examined[place]
        assert item.mask is not None  # noqa: S101 - only labelled slices are examined
        mask = dataset.classes.foreground(read_reduced_mask(item.mask)).astype(np.uint8)
        picture = Image.fromarray(read_reduced_image(item.image, item.grey_window))
        # Made small first: an outline on the large picture would be lost in the small one.
        picture.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
        outlined = outline_overlay(np.asarray(picture), mask, None)
        Image.fromarray(outlined).save(draft.path(f"worst/{item.id}.png"))

    with ThreadPoolExecutor(_READERS, "draw") as pool:
        for _ in pool.map(write, judgement.shown[np.argsort(own)[:_PICTURES]].tolist()):
            pass


def _below(dataset: Dataset, plane: Plane | None) -> str:
    assert plane is not None  # noqa: S101 - only labelled slices are examined
    return plane.below(dataset.root)

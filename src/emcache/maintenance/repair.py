"""Repairing feature sets: what is damaged is computed again, what is sound stays.

A damaged feature set becomes an unfinished one whose sound shards count as done; finishing it the
usual way gives back the very bytes that its manifest states.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emcache.cache.extract import compute_tokens, load_job_backbone
from emcache.cache.feature_jobs import job_of
from emcache.cache.feature_set import PARTIAL_SUFFIX, FeatureSet
from emcache.cache.find import Donors
from emcache.cache.labels import LABEL_FOLDER, ensure_labels
from emcache.cache.manifest import load_feature_manifest
from emcache.cache.plan import Job
from emcache.cache.writer import write_receipts
from emcache.errors import EmcacheError
from emcache.maintenance.prune import labels_aside, remove
from emcache.maintenance.verify import Damage, verify_feature_set
from emcache.progress import Reporter
from emcache.storage.locks import held
from emcache.storage.manifest import MANIFEST_NAME
from emcache.storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a damaged feature set."""

    feature_set: str
    repaired: bool
    message: str
    """What was done, or what is to be done by hand."""


def repair_feature_set(
    workspace: Workspace, name: str, damages: Sequence[Damage], reporter: Reporter
) -> Repair:
    """Bring a feature set and its label sets back to what their manifests state.

    Nothing is removed for a file that may be sound: one of a newer format, or one that cannot be
    read just now.

    Args:
        workspace: Whose cache it stands in.
        name: The feature set.
        damages: What :func:`emcache.maintenance.verify.verify_feature_set` found of it. It is
            verified again once nobody else can change it: another repair may have fixed it.
        reporter: Receives progress, where something is computed.
    """
    folder = workspace.cache / name
    with held(workspace.cache / f".{name}.lock", f"repairing {name}", reporter):
        if not folder.is_dir():
            return Repair(
                name,
                repaired=False,
                message="it is not there any more; `emcache extract` makes it anew, or goes on "
                "from what is left of it.",
            )
        back = _put_back_labels(folder)
        found, damages = len(damages), verify_feature_set(folder)
        if not damages:
            message = f"what was damaged ({found} files) is sound by now; nothing was changed."
            if back:
                message = f"put back: {back} sets of labels, which a repair had put aside."
            return Repair(name, repaired=True, message=message)
        for damage in damages:
            if not damage.certain:
                return _left_alone(damage)
        label_sets = {damage.label_set for damage in damages if damage.label_set is not None}
        for key in label_sets:
            remove(folder / LABEL_FOLDER / key)
        if any(damage.file == MANIFEST_NAME for damage in damages):
            remove(folder)
            return Repair(
                name,
                repaired=False,
                message="its manifest is damaged, so nobody can say what it held: it was removed, "
                "and `emcache extract` makes it anew.",
            )
        try:
            job = job_of(workspace, folder, reporter)
        except EmcacheError as error:
            return _beyond(name, str(error))
        if (job.name, job.fingerprint) != (
            name,
            load_feature_manifest(folder)[0]["fingerprint"],
        ):
            return _beyond(name, "its slices or weights are no longer those it was made of")
        wrong = {damage.file for damage in damages if damage.label_set is None}
        if wrong:
            _recompute(job, folder, wrong, reporter)
    if all(item.mask is not None for item in job.slices):
        ensure_labels(FeatureSet.open(folder), job.slices, job.dataset.classes, reporter)
    left = verify_feature_set(folder)
    if left:
        return _beyond(name, f"{left[0].file} {left[0].why} after all")
    made = sum((folder / LABEL_FOLDER / key).is_dir() for key in label_sets)
    words = [f"{len(wrong)} files of tokens"] if wrong else []
    words += [f"{made} sets of labels"] if made else []
    message = f"made again: {', '.join(words) or 'nothing'}."
    if made < len(label_sets):
        message += (
            f" Removed: {len(label_sets) - made} sets of labels, of masks that have changed since."
        )
    return Repair(name, repaired=True, message=message)


def _recompute(job: Job, folder: Path, wrong: set[str], reporter: Reporter) -> None:
    manifest = load_feature_manifest(folder)[0]
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    # Before anything is moved, so that weights that cannot be loaded change nothing.
    backbone = load_job_backbone(job, reporter)
    shutil.rmtree(partial, ignore_errors=True)
    if (folder / LABEL_FOLDER).is_dir():
        (folder / LABEL_FOLDER).rename(labels_aside(folder))
    folder.rename(partial)
    for name in (*wrong, MANIFEST_NAME):
        (partial / name).unlink(missing_ok=True)
    write_receipts(partial, manifest, wrong)
    compute_tokens(job, backbone, Donors({}), reporter, manifest["extraction"])
    _put_back_labels(folder)


def _put_back_labels(folder: Path) -> int:
    """Give a feature set the labels again that a repair put aside, this one or one that was killed.

    Returns:
        How many label sets came back; those that were made anew meanwhile stay as they are.
    """
    aside, labels = labels_aside(folder), folder / LABEL_FOLDER
    if not aside.is_dir():
        return 0
    labels.mkdir(exist_ok=True)
    back = 0
    for own in sorted(aside.iterdir()):
        if own.name[0] == "." or (labels / own.name).exists():
            continue
        try:
            own.rename(labels / own.name)
            back += 1
        except OSError:
            # A training made the same labels meanwhile; anything else must not lose these.
            if not (labels / own.name).is_dir():
                raise
    shutil.rmtree(aside)
    return back


def _left_alone(damage: Damage) -> Repair:
    return Repair(
        damage.feature_set,
        repaired=False,
        message=f"nothing was changed, since {damage.file} may be sound: {damage.why.rstrip('.')}; "
        f"repair again once it can be read, or remove that file if it never can be.",
    )


def _beyond(name: str, why: str) -> Repair:
    return Repair(
        name,
        repaired=False,
        message=f"it cannot be repaired: {why.rstrip('.')}; remove it with `emcache cache prune "
        f"{name}` and extract again.",
    )

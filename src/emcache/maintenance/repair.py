"""Looking after the cache: is every file what its manifest says, and if not, made again.

A damaged feature set becomes an unfinished one whose sound shards count as done; finishing it the
usual way gives back the very bytes that its manifest states.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.cache.blocks import Layer
from emcache.cache.compute import compute_layers
from emcache.cache.feature_jobs import job_of
from emcache.cache.feature_set import (
    PARTIAL_SUFFIX,
    FeatureSet,
    feature_set_folders,
    load_feature_manifest,
)
from emcache.cache.find import Donors
from emcache.cache.job_backbone import load_job_backbone
from emcache.cache.labels import LABEL_FORMAT, ensure_labels
from emcache.cache.plan import Job
from emcache.cache.recipe import (
    LABEL_FOLDER,
    StoredSlice,
    grid_name,
    plan_shards,
    positions_by_grid,
    slices_per_shard,
)
from emcache.cache.writer import write_receipts
from emcache.cluster.pool import Pool
from emcache.errors import EmcacheError, FormatVersionError, StoreError
from emcache.maintenance.prune import entries, labels_aside, remove
from emcache.progress import Reporter
from emcache.storage.hashing import file_sha256
from emcache.storage.locks import held
from emcache.storage.manifest import MANIFEST_NAME, load_manifest
from emcache.storage.workspace import Workspace

# Shards are large; a few of them are seconds of reading.
_FILES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what its manifest says."""

    feature_set: str
    """Name of the feature set."""
    file: str
    """Path in its folder."""
    why: str
    """``is missing``, ``has 0 bytes instead of 12``, ``has another checksum``, or what reading it
    came to."""
    slices: tuple[str, ...]
    """Names of the slices of the file that are damaged; empty where it holds all or none."""
    certain: bool = True
    """Whether the file is missing or does not hold together. One of a newer format, or one that
    could not be read just now, may be sound: nothing may be removed for it."""

    @property
    def label_set(self) -> str | None:
        """Key of the label set that the file belongs to, or None."""
        parts = self.file.split("/")
        return parts[1] if parts[0] == LABEL_FOLDER and len(parts) > 1 else None


def verify_cache(cache: Path, *, thorough: bool = True) -> list[Damage]:
    """Compare every file of every complete feature set and label set with its manifest.

    Args:
        cache: Folder of the feature sets.
        thorough: Compare checksums, not sizes alone.
    """
    return [
        damage
        for folder in feature_set_folders(cache)
        for damage in verify_feature_set(folder, thorough=thorough)
    ]


def verify_feature_set(
    folder: Path, *, thorough: bool = True, pool: Pool | None = None
) -> list[Damage]:
    """The damage of one feature set, its label sets included.

    Args:
        folder: The feature set.
        thorough: Compare checksums, not sizes alone.
        pool: Workers that compare; None for this process.

    Raises:
        ClusterError: The workers are gone.
    """
    try:
        manifest, slices = load_feature_manifest(folder)
        shards = plan_shards(
            slices, manifest["description"]["dim"], manifest["description"]["dtype"]
        )
    except EmcacheError as error:
        return [_manifest_damage(folder, MANIFEST_NAME, error)]
    found = FeatureSet(folder, manifest, slices)
    held = {shard.token_file: shard.positions for shard in shards}
    damages = [
        Damage(folder.name, name, why, _damaged_slices(found, held.get(name, ())), certain)
        for name, why, certain in _wrong_files(folder, manifest, thorough, pool)
    ]
    patch = manifest["description"]["patch"]
    for own in entries(folder / LABEL_FOLDER):
        if own.is_dir() and own.name[0] != ".":
            damages += _verify_labels(folder, own, slices, patch, thorough, pool)
    if labels_aside(folder).is_dir():
        why = "were put aside by a repair that was not finished"
        damages.append(Damage(folder.name, LABEL_FOLDER, why, ()))
    return damages


def _manifest_damage(folder: Path, file: str, error: EmcacheError) -> Damage:
    """What an error on reading a manifest says of it."""
    context = error.__context__
    if isinstance(context, OSError) and not isinstance(context, FileNotFoundError):
        # Too many open files, or a network disk that is away, say nothing of what it holds.
        return Damage(folder.name, file, _unreadable(context), (), certain=False)
    certain = not isinstance(error, FormatVersionError)
    return Damage(folder.name, file, str(error), (), certain)


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def _damaged_slices(found: FeatureSet, positions: Sequence[int]) -> tuple[str, ...]:
    """Names of those of a damaged file's slices whose own checksums fail.

    All of them where none does: then what all share is damaged, or the file is another sound one.
    """
    failing = []
    for position in positions:
        try:
            found.tokens(position)
        except StoreError:
            failing.append(position)
    return tuple(found.slices[position].id for position in failing or positions)


def _verify_labels(
    folder: Path,
    own: Path,
    slices: tuple[StoredSlice, ...],
    patch: int,
    thorough: bool,
    pool: Pool | None,
) -> Iterator[Damage]:
    place = own.relative_to(folder).as_posix()
    try:
        manifest = load_manifest(own, LABEL_FORMAT)
    except EmcacheError as error:
        yield _manifest_damage(folder, f"{place}/{MANIFEST_NAME}", error)
        return
    held: dict[str, tuple[str, ...]] = {}
    for grid, positions in positions_by_grid(slices).items():
        step = slices_per_shard(grid[0] * grid[1] * patch * patch)
        for number, start in enumerate(range(0, len(positions), step)):
            names = tuple(slices[position].id for position in positions[start : start + step])
            for array in ("mask", "occupancy"):
                held[f"grids/{grid_name(grid)}/{array}/c/{number}/0/0"] = names
    for name, why, certain in _wrong_files(own, manifest, thorough, pool):
        yield Damage(folder.name, f"{place}/{name}", why, held.get(name, ()), certain)


_Wrong = tuple[str, str, bool]
"""Name of a file that is wrong, why, and whether that is certain."""


@dataclass(frozen=True, slots=True)
class _FilesWork:
    folder: Path
    files: Sequence[tuple[str, Mapping[str, Any]]]
    """Names, and what the manifest states of each."""
    thorough: bool


def _wrong_files(
    folder: Path, manifest: Mapping[str, Any], thorough: bool, pool: Pool | None
) -> Iterator[_Wrong]:
    files = list(manifest["files"].items())
    if pool is None:
        yield from _compare(_FilesWork(folder, files, thorough))
        return
    works = (
        _FilesWork(folder, files[start : start + _FILES_AT_ONCE], thorough)
        for start in range(0, len(files), _FILES_AT_ONCE)
    )
    found: list[_Wrong] = []
    for outcome in pool.run(_compare, works):
        if outcome.problem is not None:
            raise outcome.problem
        found += outcome.value or []
    order = {name: number for number, (name, _) in enumerate(files)}
    yield from sorted(found, key=lambda wrong: order[wrong[0]])


def _compare(work: _FilesWork) -> list[_Wrong]:
    """Those of some files that are not what the manifest states; in a worker, or here."""
    wrong: list[_Wrong] = []
    for name, facts in work.files:
        path = work.folder / name
        try:
            size = path.stat().st_size
            if size != facts["bytes"]:
                wrong.append((name, f"has {size} bytes instead of {facts['bytes']}", True))
            elif work.thorough and file_sha256(path) != facts["sha256"]:
                wrong.append((name, "has another checksum", True))
        except FileNotFoundError:
            wrong.append((name, "is missing", True))
        except OSError as error:
            wrong.append((name, _unreadable(error), False))
    return wrong


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
        damages: What :func:`emcache.maintenance.repair.verify_feature_set` found of it. It is
            verified again under the lock: another repair may have fixed it.
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
                message="its manifest is damaged, so its content is not known: it was removed, "
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
    compute_layers([Layer(job, Donors({}))], backbone, reporter, manifest["extraction"])
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

"""Looking after the cache: is every file what its manifest says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.cache.feature_set import FeatureSet, feature_set_folders
from emcache.cache.labels import LABEL_FOLDER, LABEL_FORMAT
from emcache.cache.manifest import load_feature_manifest
from emcache.cache.shards import (
    StoredSlice,
    grid_name,
    plan_shards,
    positions_by_grid,
    slices_per_shard,
)
from emcache.errors import EmcacheError, FormatVersionError, StoreError
from emcache.maintenance.prune import entries, labels_aside
from emcache.storage.hashing import file_sha256
from emcache.storage.manifest import MANIFEST_NAME, load_manifest


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


def verify_feature_set(folder: Path, *, thorough: bool = True) -> list[Damage]:
    """The damage of one feature set, its label sets included."""
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
        for name, why, certain in _wrong_files(folder, manifest, thorough)
    ]
    patch = manifest["description"]["patch"]
    for own in entries(folder / LABEL_FOLDER):
        if own.is_dir() and own.name[0] != ".":
            damages += _verify_labels(folder, own, slices, patch, thorough)
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
    folder: Path, own: Path, slices: tuple[StoredSlice, ...], patch: int, thorough: bool
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
    for name, why, certain in _wrong_files(own, manifest, thorough):
        yield Damage(folder.name, f"{place}/{name}", why, held.get(name, ()), certain)


def _wrong_files(
    folder: Path, manifest: Mapping[str, Any], thorough: bool
) -> Iterator[tuple[str, str, bool]]:
    """Name of each file that is wrong, why, and whether that is certain."""
    for name, facts in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
            if size != facts["bytes"]:
                yield name, f"has {size} bytes instead of {facts['bytes']}", True
            elif thorough and file_sha256(folder / name) != facts["sha256"]:
                yield name, "has another checksum", True
        except FileNotFoundError:
            yield name, "is missing", True
        except OSError as error:
            yield name, _unreadable(error), False

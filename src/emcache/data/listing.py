"""Finding a dataset's files, none of them outside its root."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from emcache.data.plane import natural_sorted
from emcache.data.volumes.open import IMAGE_SUFFIXES
from emcache.errors import DatasetError, PairingError, UsageError


def glob_images(root: Path, pattern: str) -> list[str]:
    """Image files below a root, by their paths relative to it, in natural order.

    Raises:
        UsageError: No pattern, or one that leaves the root.
        DatasetError: A link that leaves the root, or a name that cannot be shown.
    """
    _check_below(pattern, root)
    try:
        return natural_sorted(_matching_files(root, pattern))
    except (IndexError, OSError, RuntimeError, ValueError) as error:
        # pathlib raises any of these, or their subclasses, for a pattern that it cannot use.
        raise UsageError(
            f"{pattern!r:.200} is not a pattern ({error}); expected one as images/*.png.",
            subject=pattern,
        ) from error


def locate(root: Path, spec: str) -> tuple[Path, str]:
    """The file that ``FILE`` or ``FILE:/ARRAY`` names, and the array in it.

    Raises:
        UsageError: It leaves the root.
        DatasetError: It leaves the root by a link.
    """
    file, _, inner = spec.partition(":/")
    _check_below(file, root)
    _check_below(inner or ".", root)
    path = root / file
    _Links(root).check(path)
    return path, inner.strip("/")


def slice_ids(images: Sequence[str]) -> dict[str, str]:
    """Names of slices: the path without its ending, less the folders that all share.

    Raises:
        PairingError: Two images would have one name.
    """
    parents = [PurePosixPath(image).parent.parts for image in images]
    shared = 0
    while all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    ids: dict[str, str] = {}
    taken: dict[str, str] = {}
    for image in images:
        path = PurePosixPath(image)
        name = PurePosixPath(*path.parent.parts[shared:], path.stem).as_posix()
        if name in taken:
            raise PairingError(
                f"images {taken[name]} and {image} have the same name without their endings; a "
                f"slice needs a name of its own: rename one, or narrow --images.",
                subject=(taken[name], image),
            )
        taken[name] = image
        ids[image] = name
    return ids


class _Links:
    """Refuses files that a link puts outside the root; a folder is looked at once."""

    def __init__(self, root: Path) -> None:
        self._home = root.resolve()
        self._folders: set[str] = set()

    def check(self, path: Path) -> None:
        parent = str(path.parent)
        if parent not in self._folders:
            self._refuse_outside(path.parent, path)
            self._folders.add(parent)
        if os.path.islink(path):  # noqa: PTH114 - half the time of a Path's, and asked of each file
            self._refuse_outside(path, path)

    def _refuse_outside(self, place: Path, path: Path) -> None:
        # Not Path.resolve, which fails on links that lead in a circle.
        end = Path(os.path.realpath(place))
        if not end.is_relative_to(self._home):
            raise DatasetError(
                f"{path} is a link to {end}, outside the dataset's root; expected all "
                f"files below {self._home}: copy it there, or choose another --root.",
                subject=path,
            )


def _check_below(path: str, root: Path) -> None:
    if "\0" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise UsageError(
            f"{path!r:.200} leaves the root; expected a path or pattern below {root}.", subject=path
        )


def _matching_files(root: Path, pattern: str) -> Iterator[str]:
    links = _Links(root)
    for path in root.glob(pattern):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file():
            links.check(path)
            name = path.relative_to(root).as_posix()
            if not name.isprintable():
                raise DatasetError(
                    f"a file in {root} has a name that cannot be shown ({name!r:.200}); rename it.",
                    subject=path,
                )
            yield name

"""Slices cut into tiles that overlap: each is from then on a slice, which knows its whole one.

Large sections do not fit a backbone, nor memory. A tile is read, sized, hashed and trained on as a
slice is, and nothing of the section beside it is read where the format can do without.
"""

from __future__ import annotations

from dataclasses import replace

from emcache.data.dataset import Dataset, Tile, describe_slices
from emcache.data.greys import GreyRule
from emcache.data.plane import Entry, Part, Plane
from emcache.data.resize import Preprocessing, preprocessing_of
from emcache.data.tiling import Tiling, cut
from emcache.errors import ImageError, UsageError
from emcache.progress import Reporter
from emcache.storage.file_index import open_file_index
from emcache.storage.workspace import Workspace


def cut_dataset(
    workspace: Workspace, dataset: Dataset, tiling: Tiling | None, reporter: Reporter
) -> Dataset:
    """The dataset of the tiles of all slices, row by row.

    Args:
        workspace: Where it is.
        dataset: Of whole slices.
        tiling: How; None for the dataset as it is.
        reporter: Receives progress, where tiles are new and must be read.

    Returns:
        A dataset whose :attr:`~emcache.data.dataset.Dataset.whole` is the given one. A tile is
        named as its slice with the place of its first pixel, as ``section@0,896``.

    Raises:
        ImageError: A slice that cannot be read.
    """
    if tiling is None:
        return dataset
    cuts = [
        (item, part, own)
        for item in dataset.slices
        for part, own in cut(item.height, item.width, tiling)
    ]
    entries = [
        Entry(
            f"{item.id}@{part.row},{part.column}",
            _part_of(item.image, part, item.size),
            None if item.mask is None else _part_of(item.mask, part, item.size),
            item.split,
        )
        for item, part, _ in cuts
    ]
    found = describe_slices(dataset, entries, open_file_index(workspace), reporter, tiling)
    slices = [
        replace(tile, tile=Tile(item, part, own))
        for tile, (item, part, own) in zip(found, cuts, strict=True)
    ]
    return replace(dataset, slices=tuple(slices), whole=dataset)


LONGEST_EDGE = 1022
"""Pixels that slices are brought to where nothing else is said."""


def default_edge(tiling: Tiling | None) -> int:
    """The longest edge where none is given: a tile keeps its own size."""
    return LONGEST_EDGE if tiling is None else tiling.edge


def preprocessing_with(
    tiling: Tiling | None,
    greys: GreyRule,
    patch: int,
    longest_edge: int | None,
    pixel_size_nm: float | None,
    dataset: Dataset,
) -> Preprocessing:
    """The preprocessing of a dataset's slices, whole or cut into tiles.

    Args:
        tiling: How they are cut; None for whole ones.
        greys: What is done to their greys first.
        patch: Side of the backbone's patch in pixels.
        longest_edge: Of a slice or a tile; None for the usual one (:func:`default_edge`).
        pixel_size_nm: One physical scale instead.
        dataset: Whose voxel size counts.

    Raises:
        UsageError: A size that cannot be, tiles that hold no patch, or that would each have greys
            of their own.
    """
    if tiling is not None and longest_edge is None and tiling.edge < patch:
        raise _below_a_patch(tiling, patch, "")
    if tiling is not None and greys.name != "none":
        raise UsageError(
            f"--normalise {greys.name} would spread the greys of each tile by itself, and leave "
            f"seams between them; leave it out, or leave --tile out.",
            subject=greys.name,
        )
    edge = longest_edge or default_edge(tiling)
    found = preprocessing_of(patch, edge, pixel_size_nm, dataset.voxel_size_nm, dataset.name)
    if tiling is not None:
        try:
            found.grid_of(tiling.edge, tiling.edge)
        except ImageError:
            raise _below_a_patch(tiling, patch, f" at {found.words}") from None
    return replace(found, greys=greys.identity(), tiling=tiling)


def _below_a_patch(tiling: Tiling, patch: int, where: str) -> UsageError:
    return UsageError(
        f"--tile {tiling.edge} is below one patch of {patch} px{where}; choose a larger tile.",
        subject=tiling.edge,
    )


def check_pictures(wanted: bool, tiling: Tiling | None) -> None:
    """Refuse to keep predictions of slices that are predicted tile by tile.

    Raises:
        UsageError: They are wanted.
    """
    if wanted and tiling is not None:
        raise UsageError(
            "--save-predictions keeps whole slices, and these are cut into tiles; leave it out, "
            "and stitch them with `emcache predict`.",
            subject=tiling,
        )


def _part_of(plane: Plane, part: Part, size: tuple[int, int]) -> Plane:
    # A tile that is all of the slice is read as the slice is.
    whole = (part.rows, part.columns) == size
    return plane if whole else replace(plane, part=part)

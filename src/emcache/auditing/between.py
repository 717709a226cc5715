"""What to know before two datasets are trained on together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from emcache.data.dataset import Dataset


def compare_datasets(datasets: Sequence[Dataset], same_scale: bool) -> list[str]:
    """Sentences about datasets that stand in one training.

    Args:
        datasets: All of them.
        same_scale: Whether they are brought to one physical scale.
    """
    notes = []
    for one, other in combinations(datasets, 2):
        names = f"{one.name} and {other.name}"
        shared = {s.pixel_sha256 for s in one.slices} & {s.pixel_sha256 for s in other.slices}
        if shared:
            notes.append(
                f"Warning: {len(shared)} slices of {names} have the same pixels; one may train on "
                f"what the other tests."
            )
        sizes = one.voxel_size_nm, other.voxel_size_nm
        if sizes[0] and sizes[1] and sizes[0][1:] != sizes[1][1:] and not same_scale:
            pitches = " and ".join(" x ".join(f"{s:g}" for s in size[1:]) for size in sizes if size)
            notes.append(
                f"Note: the pixels of {names} measure {pitches} nm; --pixel-size brings them to "
                f"one scale, the first suspect in any domain gap."
            )
    return notes

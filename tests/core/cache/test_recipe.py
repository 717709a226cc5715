from dataclasses import replace

import pytest

from emcache.cache.recipe import Recipe, feature_set_fingerprint
from emcache.data.resize import Preprocessing

RECIPE = Recipe("tiny", "tiny", "ab" * 32, Preprocessing(140, 14), "float32", "float16")
HASHES = ["1" * 64, "2" * 64]
GRIDS = [(10, 10), (10, 7)]


def key(recipe: Recipe, hashes: list[str], grids: list[tuple[int, int]] = GRIDS) -> str:
    return feature_set_fingerprint(recipe, hashes, grids)


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, backbone="other"),
        replace(RECIPE, architecture="other"),
        replace(RECIPE, weights_sha256="cd" * 32),
        replace(RECIPE, preprocessing=Preprocessing(141, 14)),
        replace(RECIPE, preprocessing=Preprocessing(140, 16)),
        replace(RECIPE, preprocessing=Preprocessing(None, 14, 8.0, (4.6, 4.6))),
        replace(RECIPE, precision="bfloat16"),
        replace(RECIPE, dtype="float32"),
        replace(RECIPE, layer="-2"),
    ],
)
def test_every_field_changes_the_key(changed: Recipe) -> None:
    assert changed.sha256() != RECIPE.sha256()
    assert key(changed, HASHES) != key(RECIPE, HASHES)


def test_slices_and_their_order_enter() -> None:
    keys = {
        key(RECIPE, hashes) for hashes in (HASHES, HASHES[::-1], HASHES[:1], [*HASHES, "3" * 64])
    }
    assert len(keys) == 4


def test_same_inputs_same_key() -> None:
    again = Recipe("tiny", "tiny", "ab" * 32, Preprocessing(140, 14), "float32", "float16")
    assert key(again, list(HASHES)) == key(RECIPE, HASHES)


def test_at_one_physical_scale_the_datasets_own_scale_enters_by_the_grids() -> None:
    fine, coarse = (
        replace(RECIPE, preprocessing=Preprocessing(None, 14, 8.0, (pitch, pitch)))
        for pitch in (4.0, 8.0)
    )
    assert fine.sha256() == coarse.sha256(), "one head reads both"
    assert key(fine, HASHES, [(5, 5), (5, 3)]) != key(coarse, HASHES, GRIDS)
    assert key(RECIPE, HASHES, GRIDS) == key(RECIPE, HASHES, GRIDS[::-1]), "grids follow from it"

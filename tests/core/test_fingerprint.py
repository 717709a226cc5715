from dataclasses import replace

import pytest

from emcache.fingerprint import Recipe, feature_set_fingerprint
from emcache.preprocessing import Preprocessing

RECIPE = Recipe("tiny", "tiny", "ab" * 32, Preprocessing(140, 14), "float32", "float16")
HASHES = ["1" * 64, "2" * 64]


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, backbone="other"),
        replace(RECIPE, architecture="other"),
        replace(RECIPE, weights_sha256="cd" * 32),
        replace(RECIPE, preprocessing=Preprocessing(141, 14)),
        replace(RECIPE, preprocessing=Preprocessing(140, 16)),
        replace(RECIPE, precision="bfloat16"),
        replace(RECIPE, dtype="float32"),
        replace(RECIPE, layer="-2"),
    ],
)
def test_every_field_changes_the_key(changed: Recipe) -> None:
    assert changed.sha256() != RECIPE.sha256()
    assert feature_set_fingerprint(changed, HASHES) != feature_set_fingerprint(RECIPE, HASHES)


def test_slices_and_their_order_enter() -> None:
    keys = {
        feature_set_fingerprint(RECIPE, hashes)
        for hashes in (HASHES, HASHES[::-1], HASHES[:1], [*HASHES, "3" * 64])
    }
    assert len(keys) == 4


def test_same_inputs_same_key() -> None:
    again = Recipe("tiny", "tiny", "ab" * 32, Preprocessing(140, 14), "float32", "float16")
    assert feature_set_fingerprint(again, list(HASHES)) == feature_set_fingerprint(RECIPE, HASHES)

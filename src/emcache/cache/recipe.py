"""What could change a token, and the hash of it.

A feature set is keyed by its **fingerprint**: SHA-256 of the canonical JSON of the recipe and of
the slices' pixel hashes in order. File names, file times and the machine do not enter; anything
that could change a value does. Two slices with the same pixels and the same **recipe** have the
same tokens, whichever dataset they stand in, so a new feature set copies what an older one holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from emcache.data.resize import Preprocessing
from emcache.storage.hashing import json_sha256

FORMAT_VERSION = 1
"""Version of a feature set's layout; a reader refuses a newer one."""

TokenType = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How tokens are made of pixels."""

    backbone: str
    """Name of the backbone."""
    architecture: str
    """Architecture behind the name."""
    weights_sha256: str
    """Of the bytes of the weights."""
    preprocessing: Preprocessing
    """Size and normalisation."""
    precision: str
    """Arithmetic of the forward pass: ``float32`` or ``bfloat16``."""
    dtype: TokenType
    """Type the tokens are stored in."""
    layer: str = "last"
    """Which block's output, after the final normalisation."""
    adapter_sha256: str | None = None
    """Of the bytes of the adapter that the tokens go through; None for the bare backbone."""

    def identity(self) -> dict[str, Any]:
        """Canonical JSON value of everything that enters the fingerprint."""
        identity = {
            **asdict(self),
            "preprocessing": self.preprocessing.identity(),
            "format": FORMAT_VERSION,
        }
        if self.adapter_sha256 is None:
            # Bare backbones have the key that they had before there were adapters.
            del identity["adapter_sha256"]
        return identity

    def sha256(self) -> str:
        """Hash of the identity."""
        return json_sha256(self.identity())


def feature_set_fingerprint(
    recipe: Recipe, pixel_sha256s: Sequence[str], grids: Sequence[tuple[int, int]]
) -> str:
    """Key of the feature set of these slices, in this order, by this recipe.

    Args:
        recipe: How the tokens are made.
        pixel_sha256s: Identity of each slice's pixels.
        grids: Rows and columns of tokens of each slice; they enter where they do not follow from
            pixels and recipe alone, that is at one physical scale.
    """
    key: dict[str, Any] = {"recipe": recipe.identity(), "slices": list(pixel_sha256s)}
    if recipe.preprocessing.pixel_size_nm is not None:
        key["grids"] = [list(grid) for grid in grids]
    return json_sha256(key)

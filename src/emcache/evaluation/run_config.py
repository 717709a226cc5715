"""What a run's record must state for it to be evaluated, or to segment new slices."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, Len, Lt
from pydantic import AfterValidator, Field, Strict

from emcache.cache.encoding import TokenType
from emcache.models.arithmetic import Precision
from emcache.training.regimes import REGIMES
from emcache.validation import Content

_Number = Annotated[float, Gt(-1e300), Lt(1e300)]
_Count = Annotated[int, Gt(0), Lt(1 << 31)]


def _known(regime: str) -> str:
    if regime not in REGIMES:
        raise ValueError("unknown")
    return regime


class _RunRecipe(Content):
    precision: Precision = Field(strict=False)
    dtype: TokenType
    preprocessing: dict[str, Any]
    components: _Count | None = None
    basis_sha256: str | None = None


class RunConfig(Content):
    """What evaluation, prediction and gaps ask of a run's configuration."""

    recipe: _RunRecipe
    dim: _Count
    regime: Annotated[str, AfterValidator(_known)]
    backbone: str
    weights: str
    weights_sha256: str
    longest_edge: _Count | None
    pixel_size_nm: Annotated[_Number, Gt(0)] | None
    protocol_fields: dict[str, Any]
    train_on: str
    precision: Precision = Field(strict=False)
    val_slices: list[str]
    train_slices: list[str] = Field([])
    nothing_learned: str | None = None
    seed: Annotated[int, Ge(0), Lt(1 << 31)] = Field(0)
    weights_source: str | None = None
    domains: list[str] = Field([])
    # Pairs of a name and its values, since JSON objects have no order.
    classes: list[Annotated[tuple[str, Annotated[list[int], Len(1)]], Strict(False)]] | None = None
    grey_window: Annotated[tuple[_Number, _Number], Strict(False)] | None = None

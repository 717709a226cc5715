"""A chart of any query: one mark, two columns."""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import polars as pl

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import counted
from emcache_warehouse.formats import plain_value

MARKS = ("bar", "line", "point", "tick", "area", "boxplot")
"""The marks that :func:`mark_chart` knows."""

_Kind = Literal["quantitative", "ordinal", "temporal", "nominal"]

_MOST_CATEGORIES = 40
_LETTER = 7
_WIDTH = 420
_FILLED = ("bar", "area")
_DISCRETE_X = ("bar", "boxplot", "tick")


def mark_chart(frame: pl.DataFrame, mark: str, x: str, y: str) -> alt.Chart:
    """Draw one column against another.

    Columns of numbers and dates get axes of their kind; below bars, boxes and ticks, few distinct
    integers are categories. Rows without a value in either column are left out; NaN and infinity
    are not values.

    Args:
        frame: Result of a query.
        mark: One of :data:`MARKS`.
        x: Column along the horizontal axis.
        y: Column along the vertical axis.

    Raises:
        UsageError: The mark or a column is unknown, or a column holds lists.
        WarehouseError: There is nothing to draw.
    """
    if mark not in MARKS:
        raise UsageError(
            f"there is no mark {mark!r}; the marks are {', '.join(MARKS)}.", subject=mark
        )
    kinds = {name: _kind(frame, name) for name in (x, y)}
    drawn = _without_gaps(frame.select(x=x, y=y))
    if drawn.is_empty():
        raise WarehouseError(
            f"the query has no row with a value in both {x} and {y}, so there is nothing to draw; "
            f"change the query."
        )
    if mark in _DISCRETE_X and _few_integers(drawn["x"]):
        kinds[x] = "ordinal"
    facts = [counted(drawn.height, "row")]
    opacity = 1.0
    if mark in _FILLED and drawn["x"].is_duplicated().any():
        # Stacked marks would show a sum that was not asked for.
        facts.append(f"several rows have the same {x} and are drawn over each other")
        opacity = 0.4
    marked: alt.Chart = getattr(alt.Chart(theme.ROWS), f"mark_{mark}")(
        color=theme.PALETTE[0], opacity=opacity
    )
    chart = marked.encode(
        x=alt.X(
            field="x",
            type=kinds[x],
            title=x,
            sort=_order(kinds[x]),
            axis=_axis(drawn["x"], kinds[x]),
        ),
        y=alt.Y(field="y", type=kinds[y], title=y, sort=_order(kinds[y]), stack=_stack(mark)),
    ).properties(width=_width(drawn["x"], kinds[x]), height=300)
    return theme.finished(chart, _json_rows(drawn), f"{y} by {x}", [theme.SEPARATOR.join(facts)])


def _kind(frame: pl.DataFrame, name: str) -> _Kind:
    if name not in frame.columns:
        raise UsageError(
            f"the result has no column {name!r}; it has {', '.join(frame.columns) or 'none'}.",
            subject=name,
        )
    dtype = frame[name].dtype
    if dtype.is_nested() or dtype == pl.Binary:
        raise UsageError(
            f"the column {name} holds {dtype}, which no axis can show; take it apart in the query.",
            subject=name,
        )
    if dtype.is_numeric():
        return "quantitative"
    if dtype in (pl.Date, pl.Datetime):
        return "temporal"
    return "nominal"


def _few_integers(values: pl.Series) -> bool:
    return values.dtype.is_integer() and values.n_unique() <= _MOST_CATEGORIES


def _order(kind: _Kind) -> Any:
    """Categories stay in the order in which the query gives them."""
    return None if kind == "nominal" else alt.Undefined


def _stack(mark: str) -> Any:
    return None if mark in _FILLED else alt.Undefined


def _axis(values: pl.Series, kind: _Kind) -> Any:
    """Slanted labels where upright ones would run into each other."""
    if kind not in ("nominal", "ordinal"):
        return alt.Undefined
    letters = int(values.cast(pl.String).str.len_chars().max() or 0)  # type: ignore[arg-type]
    fits = letters * _LETTER * values.n_unique() < _WIDTH
    return alt.Axis(labelAngle=0 if fits else -40)


def _width(values: pl.Series, kind: _Kind) -> float | alt.Step:
    return alt.Step(24) if kind in ("nominal", "ordinal") and values.n_unique() > 12 else _WIDTH


def _without_gaps(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that have a number, not NaN or infinity, or another value in every column."""
    floats = [pl.col(name).is_finite() for name, kind in frame.schema.items() if kind.is_float()]
    return frame.drop_nulls().filter(*floats) if floats else frame.drop_nulls()


def _json_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: plain_value(value) for name, value in row.items()} for row in frame.to_dicts()]

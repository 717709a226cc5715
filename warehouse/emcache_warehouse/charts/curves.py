"""Learning curves: training and validation loss by epoch, one pair of lines per run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import counted, describe_setups, training_order

_MOST_POINTS = 15_000
_FEWEST_POINTS = 50
_MOST_COLUMNS = 3
_FEW_EPOCHS = 15
_WIDTH = 250
_LETTERS = 42
_HEIGHT = 140
_LOSSES = {"train_loss": "training", "val_loss": "validation"}


def curves_chart(rows: pl.DataFrame) -> alt.FacetChart:
    """Draw learning curves, one panel per setup and training data.

    Args:
        rows: Columns of the named query ``curves``: one row per run and epoch.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no run has recorded an epoch yet, so there is no curve to draw; train one with "
            "`emcache train-head DATASET`."
        )
    setups = describe_setups(rows)
    trained = training_order(rows)
    name = partial(_panel_name, only=len(setups.order) == 1)
    named = list(map(name, setups.labels, rows["train_on"]))
    titles = _titles(named)
    rows = rows.with_columns(panel=pl.Series([titles[panel] for panel in named], dtype=pl.String))
    every = [name(setup, data) for setup in setups.order for data in trained]
    panels = [titles[panel] for panel in dict.fromkeys(every) if panel in titles]
    whole = len(panels) == len(setups.order) * len(trained)
    columns = len(trained) if whole and len(trained) <= _MOST_COLUMNS else _MOST_COLUMNS
    n_runs = rows["run_id"].n_unique()
    losses = _losses(_thin(rows, max(_FEWEST_POINTS, _MOST_POINTS // (len(_LOSSES) * n_runs))))
    notes = ["One line of each kind per run", "circle: best epoch"]
    if losses.height < len(_LOSSES) * rows.height:
        notes.append("long runs thinned evenly")
    chart: alt.FacetChart = (
        alt.layer(*_layers(losses), data=theme.ROWS)
        .properties(width=_WIDTH, height=_HEIGHT)
        .facet(
            facet=alt.Facet(
                "panel:N",
                title=None,
                sort=panels,
                header=alt.Header(
                    labelExpr="split(datum.label, '\\n')",
                    labelAnchor="start",
                    labelFontSize=12,
                    labelColor=theme.INK,
                ),
            ),
            columns=columns,
            spacing=22,
        )
        .resolve_scale(x="independent")
    )
    return theme.finished(
        chart,
        losses.to_dicts(),
        "Loss by epoch",
        [counted(n_runs, "run"), setups.common, theme.SEPARATOR.join(notes)],
        width=min(len(panels), columns) * (_WIDTH + 60),
    )


def _panel_name(setup: str, train_on: str, *, only: bool) -> str:
    """The lines above a panel; the only setup there is stands above them all."""
    data = f"trained on {train_on}"
    return data if only else ", ".join(setup.split("\n")) + "\n" + data


def _titles(names: Sequence[str]) -> dict[str, str]:
    """Each name broken to its panel's width, and all of them with as many lines as the longest.

    A wider title would push the panels apart, and a higher one would push its panel below the axis
    that it shares with its neighbours.
    """
    broken = {
        name: [piece for line in name.split("\n") for piece in textwrap.wrap(line, _LETTERS)]
        for name in names
    }
    most = max(map(len, broken.values()))
    return {name: "\n".join([" "] * (most - len(lines)) + lines) for name, lines in broken.items()}


def _layers(losses: pl.DataFrame) -> list[alt.Chart]:
    kinds = list(_LOSSES.values())
    base = alt.Chart().encode(
        x=alt.X(
            "epoch:Q",
            title="epoch",
            scale=alt.Scale(zero=False, nice=False),
            # There is no epoch between two epochs.
            axis=alt.Axis(
                labelExpr="datum.value % 1 ? '' : datum.label", format="d", grid=False, tickCount=6
            ),
        ),
        y=alt.Y("loss:Q", title="loss", scale=_loss_scale(losses)),
        color=alt.Color(
            "curve:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=[theme.PALETTE[5], theme.PALETTE[0]]),
            legend=alt.Legend(orient="top", symbolType="stroke", symbolSize=300),
        ),
        tooltip=[
            alt.Tooltip("run_id:N", title="run"),
            alt.Tooltip("seed:Q", title="seed"),
            alt.Tooltip("epoch:Q", title="epoch"),
            alt.Tooltip("loss:Q", title="loss", format=".4f"),
        ],
    )
    dash = alt.Scale(domain=kinds, range=[[4, 2], [1, 0]])
    lines = base.mark_line(strokeWidth=1.2, opacity=0.8).encode(
        detail="run_id:N", strokeDash=alt.StrokeDash("curve:N", title=None, scale=dash)
    )
    epochs = base.transform_filter(f"datum.n_epochs <= {_FEW_EPOCHS}").mark_circle(
        size=14, opacity=1
    )
    best = base.transform_filter("datum.is_best && datum.curve == 'validation'").mark_point(
        size=38, filled=True, stroke="white", strokeWidth=1, opacity=1
    )
    return [lines, epochs, best]


def _losses(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per run, epoch and kind of loss; a loss that is not a number is left out."""
    about = ["panel", "run_id", "seed", "epoch", "is_best", "n_epochs"]
    losses = rows.with_columns(n_epochs=pl.len().over("run_id")).unpivot(
        on=list(_LOSSES), index=about, variable_name="curve", value_name="loss"
    )
    return losses.filter(pl.col("loss").is_finite()).with_columns(pl.col("curve").replace(_LOSSES))


def _thin(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most about so many epochs of each run, evenly spaced; first, best and last stay."""
    epoch = pl.col("epoch")
    step = (pl.len().over("run_id") / most).ceil()
    return rows.filter(
        ((epoch - epoch.min().over("run_id")) % step == 0)
        | (epoch == epoch.max().over("run_id"))
        | pl.col("is_best")
    )


def _loss_scale(long: pl.DataFrame) -> alt.Scale:
    """The same axis in every panel, so that panels can be compared."""
    low, high = _range(long["loss"])
    margin = (high - low) * 0.05 or 0.05
    return alt.Scale(domain=[max(0.0, low - margin), high + margin], nice=True)


def _range(values: pl.Series) -> tuple[float, float]:
    if values.is_empty():
        return 0.0, 1.0
    return float(values.min()), float(values.max())  # type: ignore[arg-type]

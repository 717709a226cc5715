"""The paper's tables as charts, with our own figures beside each of theirs."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import polars as pl

from emcache.errors import UsageError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import (
    counted,
    describe_setups,
    in_words,
    training_order,
)
from emcache_warehouse.choice import EVERYTHING, LABEL, Choice, chosen_rows

SCORE_TABLES = (1, 2, 3, 4, 5, 8)
"""Tables of arXiv 2602.08505 that hold scores."""
PARAMETER_TABLE = 7
"""The one that counts parameters."""

_WIDEST, _NARROWEST = 190, 110
_PAGE = 700
_ROW = 15
_SPACING = 18
_CELL = ("paper_table", "backbone", "regime", "train_on", "eval_on", "sampling")
_SETUP = ("weights", "longest_edge", "protocol", "precision", "audit_accepted", "data")
_PAPER_MARK = "black diamond: the paper (arXiv 2602.08505)"
_OUR_MARK = "dot: our mean"
_WHISKER = "whisker: one standard deviation over runs"
_TITLES = {
    1: "Table 1: large backbones, frozen",
    2: "Table 2: large backbones with LoRA",
    3: "Table 3: DINOv2 by size",
    4: "Table 4: DINOv3 by size",
    5: "Table 5: OpenCLIP ViT-H/14",
    8: "Table 8: natural and balanced sampling",
}


def paper_rows(
    database: Path, table: int | None = None, choice: Choice = EVERYTHING
) -> pl.DataFrame:
    """The rows behind a chart: of one table, or of all that hold scores.

    Args:
        database: The warehouse's file.
        table: Number of the paper's table, or None.
        choice: What of our own runs; of the paper, what has a column that it names.

    Raises:
        UsageError: The paper has no such table.
        WarehouseError: The warehouse cannot be read.
    """
    if table is None:
        return chosen_rows(database, "paper-comparison", choice)
    if table not in (*SCORE_TABLES, PARAMETER_TABLE):
        raise UsageError(
            f"table {table} of the paper holds no figures to compare; choose one of "
            f"{', '.join(map(str, sorted((*SCORE_TABLES, PARAMETER_TABLE))))}.",
            subject=table,
        )
    return chosen_rows(database, f"table-{table}", choice)


def table_chart(database: Path, table: int, choice: Choice = EVERYTHING) -> theme.Whole:
    """One of the paper's tables with our figures.

    Raises:
        UsageError: The paper has no such table.
        WarehouseError: The warehouse cannot be read.
    """
    rows = paper_rows(database, table, choice)
    if table == PARAMETER_TABLE:
        return parameter_chart(rows)
    return score_chart(rows, _TITLES[table])


def score_chart(rows: pl.DataFrame, title: str) -> alt.HConcatChart:
    """Draw cells of the paper beside ours: a panel for each training and test set.

    Args:
        rows: Columns of ``paper_comparison``; a cell that we have not run has NULLs of ours.
        title: What is compared.
    """
    ours = rows.filter(pl.col("iou_fg_mean").is_not_null())
    common = describe_setups(ours).common if ours.height else ""
    drawn = _with_marks(rows)
    names = [name for name in drawn["series"].unique(maintain_order=True) if name]
    cells = _in_order(drawn)
    order = _panel_order(drawn)
    width = max(_NARROWEST, min(_WIDEST, _PAGE // max(1, len(order)) - _SPACING))
    panels = [
        _score_panel(drawn.filter(panel=name), cells, sorted(names), width, first=place == 0)
        for place, name in enumerate(order)
    ]
    chart: alt.HConcatChart = alt.hconcat(*panels, spacing=_SPACING)
    marks = [_PAPER_MARK, _OUR_MARK, _WHISKER] if names else [_PAPER_MARK, _WHISKER]
    here = f"{_cells(ours)} of {_cells(rows)} cells run here"
    runs = counted(int(ours["n_runs"].max()), "run") if ours.height else ""  # type: ignore[arg-type]
    facts = theme.SEPARATOR.join(x for x in (here, f"at most {runs} each" if runs else "") if x)
    return theme.finished(
        chart,
        drawn.to_dicts(),
        title,
        [facts, *([common] if common else []), theme.SEPARATOR.join(marks)],
        width=len(panels) * (width + _SPACING) + 150,
    )


def parameter_chart(rows: pl.DataFrame) -> theme.Panel:
    """Draw Table 7: trainable parameters of head and adapters, with what our runs trained.

    Args:
        rows: Columns of the named query ``table-7``.
    """
    base = alt.Chart(theme.ROWS).encode(
        y=alt.Y("backbone:N", title=None, sort=rows["backbone"].to_list())
    )
    title = "trainable parameters, millions"
    parts = ["head alone", "head with LoRA"]
    colour = alt.Scale(domain=parts, range=[theme.PALETTE[0], theme.PALETTE[1]])

    def bar(column: str, name: str, size: int) -> alt.Chart:
        chart: alt.Chart = base.mark_bar(size=size).encode(
            x=alt.X(f"{column}:Q", title=title, axis=alt.Axis(grid=False)),
            color=alt.datum(name, scale=colour, title=None),
            tooltip=["backbone:N", alt.Tooltip(f"{column}:Q", title=name, format=".3f")],
        )
        return chart

    def ours(column: str) -> alt.Chart:
        chart: alt.Chart = (
            base.transform_filter(f"isValid(datum.{column})")
            .mark_tick(thickness=2, size=18, color="black", opacity=1)
            .encode(
                x=alt.X(f"{column}:Q", title=title),
                tooltip=["backbone:N", alt.Tooltip(f"{column}:Q", title="ours", format=".3f")],
            )
        )
        return chart

    labels = base.mark_text(align="left", dx=5, fontSize=10, color=theme.INK).encode(
        x=alt.X("lora_plus_head:Q"),
        text=alt.Text("label:N"),
    )
    chart = alt.layer(
        bar("lora_plus_head", parts[1], 16),
        bar("head_only", parts[0], 8),
        ours("our_head_only"),
        ours("our_lora_plus_head"),
        labels,
    ).properties(width=420, height=alt.Step(24))
    drawn = rows.with_columns(label=pl.format("{} % / {} %", "head_only_pct", "lora_plus_head_pct"))
    runs = rows.select(
        pl.any_horizontal(pl.col("our_head_only", "our_lora_plus_head").is_not_null()).sum()
    ).item()
    return theme.finished(
        chart,
        drawn.to_dicts(),
        "Table 7: trainable parameters",
        [
            "Bars: the paper (arXiv 2602.08505), with its percentages of backbone and head",
            f"black line: what our runs trained ({counted(runs, 'backbone')})",
        ],
        width=560,
    )


def _score_panel(
    rows: pl.DataFrame, cells: list[str], series: list[str], width: int, *, first: bool
) -> theme.Panel:
    """Theirs and ours of one training and test set."""
    base = alt.Chart(theme.ROWS).transform_filter(
        alt.FieldEqualPredicate(field="panel", equal=rows["panel"][0])
    )
    axis = alt.Axis(labels=first, ticks=False, domain=first, grid=True, labelPadding=8)
    # Apart, so that the outermost of several dots is nearer to its own cell than to the next.
    rows_apart = alt.Scale(domain=cells, paddingInner=0.4, paddingOuter=0.2)
    y = alt.Y("cell:N", title=None, scale=rows_apart, axis=axis)
    score = alt.Scale(domain=[0, 1])

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title="foreground IoU", scale=score)

    theirs = base.encode(y=y, tooltip=_tooltip())
    ours = base.transform_filter("isValid(datum.iou_fg_mean)").encode(
        y=y,
        yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=series, paddingOuter=0.4)),
        color=alt.Color(
            "series:N",
            title="here",
            scale=alt.Scale(domain=series, range=list(theme.PALETTE[: len(series)])),
            legend=alt.Legend(orient="bottom", columns=2) if series else None,
        ),
        tooltip=_tooltip(),
    )
    return alt.layer(
        theirs.mark_rule(color="black").encode(x=x("paper_low"), x2="paper_high"),
        theirs.mark_point(shape="diamond", color="black", fill="white", size=40, opacity=1).encode(
            x=x("paper_iou_fg_mean")
        ),
        ours.mark_rule(strokeWidth=1.5).encode(x=x("our_low"), x2="our_high"),
        ours.mark_circle(size=46, opacity=1).encode(x=x("iou_fg_mean")),
    ).properties(
        width=width,
        height=max(3 * _ROW, len(cells) * _ROW * max(1, len(series))),
        title=theme.panel_title(_panel_title(rows)),
    )


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("cell:N", title="cell"),
        alt.Tooltip("paper_iou_fg_mean:Q", title="paper", format=".3f"),
        alt.Tooltip("paper_iou_fg_std:Q", title="paper, std", format=".3f"),
        alt.Tooltip("series:N", title="here"),
        alt.Tooltip("iou_fg_mean:Q", title="ours", format=".4f"),
        alt.Tooltip("iou_fg_std:Q", title="ours, std", format=".4f"),
        alt.Tooltip("n_runs:Q", title="our runs"),
        alt.Tooltip("weights:N", title="weights"),
        alt.Tooltip("protocol:N", title="protocol"),
    ]


def _panel_title(rows: pl.DataFrame) -> str | list[str]:
    trained, tested = rows["train_on"][0], rows["eval_on"][0]
    if trained == tested:
        return trained if " + " not in trained else [trained, "(the paper's paired figure)"]
    return [trained, f"tested on {tested}"]


def _cells(rows: pl.DataFrame) -> int:
    """How many cells of the paper the rows are about."""
    return rows.select(_CELL).n_unique()


def _with_marks(rows: pl.DataFrame) -> pl.DataFrame:
    """What a row is called, and the ends of its whiskers."""
    names = [pl.col("backbone")]
    if rows["regime"].n_unique() > 1:
        names.append(pl.col("regime").replace({"lora": "LoRA"}))
    # Natural sampling is the rule, and NULL leaves it unsaid.
    names.append(pl.col("sampling").replace({"natural": None}))
    std, our_std = pl.col("paper_iou_fg_std").fill_null(0), pl.col("iou_fg_std").fill_null(0)
    return rows.with_columns(
        pl.Series("series", _series(rows), dtype=pl.String),
        cell=pl.concat_str(names, separator=", ", ignore_nulls=True),
        panel=pl.format("{} / {}", "train_on", "eval_on"),
        paper_low=pl.col("paper_iou_fg_mean") - std,
        paper_high=pl.col("paper_iou_fg_mean") + std,
        our_low=pl.col("iou_fg_mean") - our_std,
        our_high=pl.col("iou_fg_mean") + our_std,
    )


def _series(rows: pl.DataFrame) -> list[str | None]:
    """What tells our figures of one cell apart: the test set, and the setup where it varies."""
    ours = rows.filter(pl.col("iou_fg_mean").is_not_null())
    varying = [name for name in _SETUP if ours.height and ours[name].n_unique() > 1]
    labels: list[str | None] = []
    seen: dict[tuple[object, ...], int] = {}
    for row in rows.iter_rows(named=True):
        if row["iou_fg_mean"] is None:
            labels.append(None)
            continue
        words = row.get(LABEL) or in_words(row, varying).replace("\n", ", ")
        computed = row["our_eval_on"] if row["our_eval_on"] in ("macro", "pooled") else ""
        label = ", ".join(word for word in (computed, words) if word) or "ours"
        # Rows of the leaderboard may differ in what it does not show: splits, labels, arithmetic.
        cell = (*(row[name] for name in _CELL), label)
        seen[cell] = seen.get(cell, 0) + 1
        labels.append(label if seen[cell] == 1 else f"{label} ({seen[cell]})")
    return labels


def _in_order(rows: pl.DataFrame) -> list[str]:
    """The cells as the paper orders them: backbones by family and size, frozen before LoRA."""
    order = {
        name: place for place, name in enumerate(describe_setups(rows.select("backbone")).order)
    }
    cells = rows.select("cell", "backbone", "regime", "sampling").unique()
    ranked = sorted(
        cells.iter_rows(named=True),
        key=lambda r: (order.get(r["backbone"], 0), r["regime"], r["sampling"] != "natural"),
    )
    return [row["cell"] for row in ranked]


def _panel_order(rows: pl.DataFrame) -> list[str]:
    """Single datasets before pairs, and of a pair its datasets before the paired figure."""
    panels = rows.select("panel", "train_on", "eval_on").unique()
    trained = {name: place for place, name in enumerate(training_order(rows))}
    ranked = sorted(
        panels.iter_rows(named=True),
        key=lambda r: (trained[r["train_on"]], " + " in r["eval_on"], r["eval_on"]),
    )
    return [row["panel"] for row in ranked]

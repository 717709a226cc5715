"""Domain gaps: every pair as a heat map, and what LoRA did to each distance as a slope."""

from __future__ import annotations

from itertools import chain

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme

_CELL = 76
_WIDER = 40
_PAGE = 840
_LETTER = 6.0
_SLOPE = 200
_UNCLEAR = "#d7d9dc"
_AS_MADE = "as they are"
_FEW_DIRECTIONS = 3.0
_KINDS = {
    "slice": "mean of the patch tokens, one vector a slice",
    "cls": "class token, one vector a slice",
    "token": "single patch tokens",
}


def gap_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw distances: a heat map for each backbone and regime, then frozen against LoRA.

    Args:
        rows: Columns of the named query ``gap``; of a pair, the row at slice level is drawn.

    Raises:
        WarehouseError: There are no rows.
    """
    if not rows.is_empty():
        rows = rows.filter(pl.col("level") == "slice")
    if rows.is_empty():
        raise WarehouseError(
            "no gap has been measured yet; measure one with `emcache gap DATASET DATASET "
            "--backbone NAME`."
        )
    rows = with_panels(rows).with_columns(pair=_pair(), text=_text())
    domains = list(dict.fromkeys(chain.from_iterable(rows.select("domain_a", "domain_b").rows())))
    rows = _oriented(rows, domains)
    panels = rows["panel"].unique(maintain_order=True).to_list()
    top = max(2.0, float(rows["times_yardstick"].max() or 2.0))  # type: ignore[arg-type]
    heat = [_heat_map(panel, domains, top, legend=place == 0) for place, panel in enumerate(panels)]
    each = max(1, len(domains) - 1) * (_CELL + _WIDER) + max(map(len, domains)) * _LETTER + 26
    columns = max(1, int(_PAGE / each))
    parts: list[theme.Panel | alt.HConcatChart] = [
        alt.hconcat(*heat[start : start + columns], spacing=26)
        for start in range(0, len(heat), columns)
    ]
    if set(rows["regime"]) == {"frozen", "lora"}:
        parts.append(_slopes(rows))
    if rows["align"].n_unique() > 1:
        parts.append(_before_and_after(rows))
    chart: alt.VConcatChart = alt.vconcat(*parts, spacing=30).resolve_scale(color="independent")
    few = (rows["n_a"] < rows["dim"]) | (rows["n_b"] < rows["dim"])
    facts = [
        _KINDS["slice"],
        "second line: 95 % interval, leaving out blocks of slices",
        "third: the same at equal N, and within each domain",
        "grey: the interval reaches the distance within a domain, or one of the two is missing",
        "N is below D: distances are biased upwards, compare them at equal N" if few.any() else "",
        _low_rank(rows),
    ]
    width = max(420.0, min(columns, len(panels)) * each)
    return theme.finished(
        chart,
        rows.to_dicts(),
        "Squared Frechet distance between domains",
        [theme.SEPARATOR.join(fact for fact in facts if fact)],
        width=width,
    )


def with_panels(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with ``backbone_setup`` and ``panel``: how the features were made, in words.

    Features that differ never share a panel. Arithmetic is said where it varies; what else may
    differ (stored type, layer) is told apart by the beginning of the recipe's hash.
    """
    size = (
        pl.when(pl.col("longest_edge").is_null())
        .then(pl.format("{} nm a pixel", "pixel_size_nm"))
        .otherwise(pl.format("{} px", "longest_edge"))
    )
    weights = (
        pl.when(pl.col("weights").str.starts_with("random:"))
        .then(pl.format("{} (untrained)", "weights"))
        .otherwise(pl.col("weights"))
    )
    words = [pl.col("backbone"), weights, size]
    if rows["precision"].n_unique() > 1:
        words.append(pl.col("precision"))
    regime = (
        pl.when(pl.col("regime") == "lora")
        .then(pl.format("LoRA of run {}", pl.col("run_id").str.slice(-6)))
        .otherwise(pl.lit("frozen"))
    )
    setup = pl.concat_str(words, separator=", ", ignore_nulls=True)
    named = rows.with_columns(backbone_setup=setup).with_columns(
        panel=pl.concat_str(
            pl.format("{}: {}", "backbone_setup", regime),
            pl.format("aligned by {}", "align"),
            separator=", ",
            ignore_nulls=True,
        )
    )
    alike = pl.col("recipe_sha256").n_unique().over("panel") > 1
    recipe = pl.format("{}, recipe {}", "panel", pl.col("recipe_sha256").str.slice(0, 6))
    return named.with_columns(panel=pl.when(alike).then(recipe).otherwise("panel"))


def _pair() -> pl.Expr:
    return pl.format("{} and {}", "domain_a", "domain_b")


def _short(column: str) -> pl.Expr:
    value = pl.col(column)
    return (
        pl.when(value.abs() >= 100)
        .then(value.round(0).cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise(value.round_sig_figs(3).cast(pl.String))
    )


def _text() -> pl.Expr:
    """Three lines: the distance, its interval, the yardsticks."""
    interval = (
        pl.when(pl.col("frechet_low").is_null())
        .then(pl.lit("no interval"))
        .otherwise(pl.format("{} to {}", _short("frechet_low"), _short("frechet_high")))
    )
    yardsticks = (
        pl.when(pl.col("frechet_at_n").is_null())
        .then(pl.lit(""))
        .otherwise(
            pl.format(
                "{} | {}, {}",
                _short("frechet_at_n"),
                _short("frechet_within_a"),
                _short("frechet_within_b"),
            )
        )
    )
    return pl.concat_list(_short("frechet"), interval, yardsticks)


def _oriented(rows: pl.DataFrame, domains: list[str]) -> pl.DataFrame:
    """Where each pair stands, whichever way round it was measured, and whether it is a gap.

    ``times_yardstick`` is the distance at equal N over the larger of the distances within the two
    domains; ``clear`` where the whole interval lies above that yardstick.
    """
    place = {name: number for number, name in enumerate(domains)}
    pairs = [
        sorted(pair, key=place.__getitem__) for pair in rows.select("domain_a", "domain_b").rows()
    ]
    yardstick = pl.max_horizontal("frechet_within_a", "frechet_within_b")
    return rows.with_columns(
        pl.Series("column", [pair[0] for pair in pairs], dtype=pl.String),
        pl.Series("row", [pair[1] for pair in pairs], dtype=pl.String),
        times_yardstick=pl.when(yardstick > 0).then(pl.col("frechet_at_n") / yardstick),
        clear=(pl.col("frechet_low") > yardstick).fill_null(value=False),
    )


def _low_rank(rows: pl.DataFrame) -> str:
    """A warning where the distances hang on very few directions."""
    ranks = rows["effective_rank"].drop_nulls()
    lowest = min(ranks, default=_FEW_DIRECTIONS)
    if lowest >= _FEW_DIRECTIONS:
        return ""
    return (
        f"effective rank down to {lowest:.1f}: one or two directions hold nearly all of the "
        f"variance"
    )


def _heat_map(panel: str, domains: list[str], top: float, *, legend: bool) -> theme.Panel:
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False, labelLimit=0)
    fits = max(map(len, domains)) * _LETTER < _CELL + _WIDER
    below = axis if fits else alt.Axis(labelAngle=-25, ticks=False, domain=False, labelLimit=0)
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="panel", equal=panel))
        .encode(
            x=alt.X("column:N", title=None, scale=alt.Scale(domain=domains[:-1]), axis=below),
            y=alt.Y("row:N", title=None, scale=alt.Scale(domain=domains[1:]), axis=axis),
            tooltip=[
                alt.Tooltip("domain_a:N"),
                alt.Tooltip("domain_b:N"),
                alt.Tooltip("n_a:Q", title="N of the first"),
                alt.Tooltip("n_b:Q", title="N of the second"),
                alt.Tooltip("dim:Q", title="D"),
                alt.Tooltip("effective_rank:Q", format=".1f"),
                alt.Tooltip("frechet:Q", format=".4g"),
                alt.Tooltip("frechet_low:Q", format=".4g"),
                alt.Tooltip("frechet_high:Q", format=".4g"),
                alt.Tooltip("n_yardstick:Q", title="N of the next three"),
                alt.Tooltip("frechet_at_n:Q", format=".4g"),
                alt.Tooltip("frechet_within_a:Q", format=".4g"),
                alt.Tooltip("frechet_within_b:Q", format=".4g"),
                alt.Tooltip("times_yardstick:Q", title="over the yardstick", format=".3g"),
                alt.Tooltip("kernel:Q", title="kernel distance", format=".4g"),
                alt.Tooltip("probe_auroc:Q", title="AUROC of the probe", format=".3f"),
                alt.Tooltip("probe_p_value:Q", title="p of the probe", format=".3f"),
            ],
        )
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.condition(
            "datum.clear",
            alt.Color(
                "times_yardstick:Q",
                title=["distance /", "yardstick"],
                scale=alt.Scale(scheme="blues", domain=[1, top]),
                legend=alt.Legend(gradientLength=_CELL) if legend else None,
            ),
            alt.value(_UNCLEAR),
        )
    )
    dark = f"datum.clear && datum.times_yardstick > {1 + 0.55 * (top - 1)}"
    ink = alt.condition(dark, alt.value("white"), alt.value(theme.INK))
    numbers = base.mark_text(fontSize=10.5, lineHeight=14, baseline="middle", dy=-13).encode(
        text="text:N", color=ink
    )
    return alt.layer(cells, numbers).properties(
        width=max(1, len(domains) - 1) * (_CELL + _WIDER),
        height=max(1, len(domains) - 1) * _CELL,
        title=theme.panel_title(panel),
    )


def _colour_of_pairs(rows: pl.DataFrame) -> alt.Color:
    pairs = rows["pair"].unique(maintain_order=True).to_list()
    palette = [theme.PAIRS[i % len(theme.PAIRS)] for i in range(len(pairs))]
    return alt.Color("pair:N", title=None, scale=alt.Scale(domain=pairs, range=palette))


def _before_and_after(rows: pl.DataFrame) -> alt.HConcatChart:
    """What alignment did to every pair: distance over the yardstick, and the probe.

    Alignment changes the unit of the distance, so distances before and after do not compare; the
    distance within a dataset is in the same unit, and changes with it.
    """
    states = [_AS_MADE, *rows["align"].drop_nulls().unique(maintain_order=True)]
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter("datum.regime == 'frozen'")
        .transform_calculate(state=f"datum.align == null ? '{_AS_MADE}' : datum.align")
        .encode(
            x=alt.X(
                "state:N",
                title=None,
                scale=alt.Scale(domain=states, padding=0.4),
                axis=alt.Axis(labelAngle=0 if len(states) < 4 else -25, labelLimit=0),
            ),
            color=_colour_of_pairs(rows),
            tooltip=[
                alt.Tooltip("pair:N"),
                alt.Tooltip("panel:N", title="features"),
                alt.Tooltip("times_yardstick:Q", title="over the yardstick", format=".3g"),
                alt.Tooltip("probe_auroc:Q", title="AUROC of the probe", format=".3f"),
                alt.Tooltip("probe_p_value:Q", title="p of the probe", format=".3f"),
            ],
        )
    )
    panels = []
    for field, title, scale, level, heading in (
        (
            "times_yardstick",
            "distance / yardstick",
            alt.Scale(type="log"),
            1.0,
            "Distance; 1 is that within a dataset",
        ),
        ("probe_auroc", "AUROC", alt.Scale(domain=[0, 1]), 0.5, "Probe; 0.5 tells nothing apart"),
    ):
        y = alt.Y(f"{field}:Q", title=title, scale=scale)
        rule = alt.Chart(theme.ROWS).mark_rule(strokeDash=[4, 3], color=theme.INK, opacity=0.5)
        panels.append(
            alt.layer(
                rule.encode(y=alt.datum(level)),
                base.mark_line(strokeWidth=2).encode(y=y),
                base.mark_point(filled=True, size=40, opacity=1).encode(y=y),
            ).properties(
                width=max(_SLOPE, 70 * len(states)),
                height=220,
                title=theme.panel_title(heading),
            )
        )
    chart: alt.HConcatChart = alt.hconcat(*panels, spacing=30)
    return chart


def _slopes(rows: pl.DataFrame) -> theme.Panel:
    """From the frozen backbone to each LoRA run, one line a pair."""
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter("datum.align == null")
        .encode(
            x=alt.X(
                "regime:N",
                title=None,
                scale=alt.Scale(domain=["frozen", "lora"], padding=0.4),
                axis=alt.Axis(labelAngle=0, labelExpr="datum.label == 'lora' ? 'LoRA' : 'frozen'"),
            ),
            y=alt.Y(
                "mean(frechet):Q", title="squared Frechet distance", scale=alt.Scale(zero=True)
            ),
            color=_colour_of_pairs(rows),
        )
    )
    if rows["backbone_setup"].n_unique() > 1:
        base = base.encode(strokeDash=alt.StrokeDash("backbone_setup:N", title=None))
    line = base.mark_line(strokeWidth=2)
    dots = base.mark_point(filled=True, size=40, opacity=1).encode(
        y=alt.Y("frechet:Q", title="squared Frechet distance"),
        tooltip=[
            alt.Tooltip("pair:N"),
            alt.Tooltip("panel:N", title="features"),
            alt.Tooltip("frechet:Q", format=".4g"),
        ],
    )
    return alt.layer(line, dots).properties(
        width=_SLOPE,
        height=220,
        title=theme.panel_title("Did LoRA bring them closer? Line: mean of the runs; dot: one run"),
    )

"""From rows to a picture in a file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emcache.errors import UsageError
from emcache.progress import Reporter
from emcache_cli.asking import synced_workspace
from emcache_warehouse.charts.custom import mark_chart
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.charts.theme import Whole
from emcache_warehouse.choice import Choice
from emcache_warehouse.report.page import write_report


def draw_report(workspace: Path | None, out: Path, choice: Choice, reporter: Reporter) -> None:
    """Write the report of a workspace."""
    place = synced_workspace(workspace, reporter)
    try:
        write_report(place, out, choice)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
    reporter.say(f"Wrote {out}.")


def draw_query(
    frame: pl.DataFrame,
    mark: str | None,
    x: str | None,
    y: str | None,
    out: Path | None,
    reporter: Reporter,
) -> None:
    """Draw the result of a query with one mark.

    Raises:
        UsageError: One of the four is missing, or a column or mark is unknown.
    """
    missing = [
        option
        for option, value in (("--chart MARK", mark), ("-x COL", x), ("-y COL", y), ("--out", out))
        if value is None
    ]
    if mark is None or x is None or y is None or out is None:
        raise UsageError(
            f"a chart of a query needs --chart MARK, -x COL, -y COL and --out FILE; missing: "
            f"{', '.join(missing)}."
        )
    save(mark_chart(frame, mark, x, y), out, reporter)


def save(chart: Whole, out: Path, reporter: Reporter) -> None:
    """Write a chart, and say where.

    Raises:
        UsageError: The file cannot be written, or has another ending.
    """
    try:
        save_chart(chart, out)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
    reporter.say(f"Wrote {out}.")

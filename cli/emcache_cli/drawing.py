"""From rows to a picture in a file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emcache.errors import UsageError
from emcache.progress import Reporter
from emcache_cli.asking import synced_workspace
from emcache_cli.choosing import Chosen
from emcache_warehouse.charts.audit import audit_chart, audit_rows, worst_slices
from emcache_warehouse.charts.bench import bench_chart, bench_rows
from emcache_warehouse.charts.cost import cost_chart, cost_rows
from emcache_warehouse.charts.curves import curve_rows, curves_chart
from emcache_warehouse.charts.custom import mark_chart
from emcache_warehouse.charts.gap import gap_chart, gap_rows
from emcache_warehouse.charts.iou import iou_chart, iou_rows
from emcache_warehouse.charts.paper import paper_rows, score_chart, table_chart
from emcache_warehouse.charts.pca import pca_chart, pca_rows
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.charts.theme import Whole
from emcache_warehouse.charts.transfer import transfer_chart, transfer_rows
from emcache_warehouse.choice import Choice
from emcache_warehouse.report.page import write_report


def draw_iou(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw every test score, one bar a setup."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(iou_chart(iou_rows(database, Choice(**choice))), out, reporter)


def draw_curves(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw the losses of every run by epoch."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(curves_chart(curve_rows(database, Choice(**choice))), out, reporter)


def draw_table(
    workspace: Path | None, number: int, out: Path, choice: Chosen, reporter: Reporter
) -> None:
    """Draw one of the paper's tables with our figures."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(table_chart(database, number, Choice(**choice)), out, reporter)


def draw_paper_comparison(
    workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter
) -> None:
    """Draw every score of the paper with ours."""
    database = synced_workspace(workspace, reporter).warehouse
    chart = score_chart(
        paper_rows(database, choice=Choice(**choice)), "Every score of the paper, and ours"
    )
    _save(chart, out, reporter)


def draw_audit(workspace: Path | None, dataset: str, out: Path, reporter: Reporter) -> None:
    """Draw the newest audit of a dataset."""
    place = synced_workspace(workspace, reporter)
    rows = audit_rows(place.warehouse, dataset)
    worst = [] if rows.is_empty() else worst_slices(place.runs, rows["audit_id"][0])
    _save(audit_chart(rows, worst), out, reporter)


def draw_gap(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw the distances of all pairs."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(gap_chart(gap_rows(database, Choice(**choice))), out, reporter)


def draw_pca(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw every slice by its principal components."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(pca_chart(pca_rows(database, Choice(**choice))), out, reporter)


def draw_transfer(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw lost score against distance."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(transfer_chart(transfer_rows(database, Choice(**choice))), out, reporter)


def draw_cost(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Draw what the cache cost and saved."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(cost_chart(cost_rows(database, Choice(**choice))), out, reporter)


def draw_bench(workspace: Path | None, out: Path, reporter: Reporter) -> None:
    """Draw the newest benchmarks of the machine measured last."""
    database = synced_workspace(workspace, reporter).warehouse
    _save(bench_chart(bench_rows(database)), out, reporter)


def draw_report(workspace: Path | None, out: Path, choice: Chosen, reporter: Reporter) -> None:
    """Write the report of a workspace."""
    place = synced_workspace(workspace, reporter)
    try:
        write_report(place, out, Choice(**choice))
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
    _save(mark_chart(frame, mark, x, y), out, reporter)


def _save(chart: Whole, out: Path, reporter: Reporter) -> None:
    try:
        save_chart(chart, out)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
    reporter.say(f"Wrote {out}.")

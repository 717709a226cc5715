"""A workspace in a notebook: frames and charts, without a command line.

::

    from emcache_warehouse import connect

    workspace = connect("path/to/workspace")
    workspace.query("select backbone, avg(iou_fg) from run_metrics group by backbone")
    workspace.named("leaderboard")
    workspace.chart("iou")                       # an Altair chart, which a notebook shows
    workspace.chart("gap").save("gap.html")

Nothing stays open between two questions, so an open notebook blocks no other program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emcache.errors import UsageError, suggest
from emcache.storage.workspace import Workspace, find_workspace
from emcache_warehouse.charts.kinds import CHARTS

if TYPE_CHECKING:
    import polars as pl

    from emcache_warehouse.charts.theme import Whole
    from emcache_warehouse.sync import SyncReport


@dataclass(frozen=True, slots=True)
class Connected:
    """A workspace whose warehouse answers questions."""

    workspace: Workspace

    def sync(self) -> SyncReport:
        """Take in the records that are new; what was left out is in the report."""
        from emcache_warehouse.sync import sync

        return sync(self.workspace.runs, self.workspace.warehouse)

    def query(self, sql: str, **parameters: object) -> pl.DataFrame:
        """Answer one SQL statement, read-only.

        Args:
            sql: ``$name`` stands for a parameter.
            parameters: Values of the parameters.

        Raises:
            UsageError: A parameter is missing or unknown.
            WarehouseError: DuckDB refuses the statement.
        """
        from emcache_warehouse.query import run_query

        return run_query(self.workspace.warehouse, sql, _texts(parameters))

    def named(self, name: str, **parameters: object) -> pl.DataFrame:
        """Answer a named query, as ``emcache query --name`` does.

        Raises:
            UsageError: There is no such query or parameter.
            WarehouseError: The warehouse cannot be read.
        """
        from emcache_warehouse.query import run_named_query

        return run_named_query(self.workspace.warehouse, name, _texts(parameters))

    def chart(self, name: str, dataset: str | None = None) -> Whole:
        """Draw a chart, as ``emcache chart`` does.

        Args:
            name: Of :data:`emcache_warehouse.charts.kinds.CHARTS`.
            dataset: Only what is about it.

        Raises:
            UsageError: There is no such chart.
            WarehouseError: There is nothing to draw; the message names the command that fills it.
        """
        from emcache_warehouse.choice import Choice

        if name not in CHARTS:
            raise UsageError(
                f"there is no chart {name!r}; {suggest(name, CHARTS)}known: "
                f"{', '.join(sorted(CHARTS))}.",
                subject=name,
            )
        choice = Choice(datasets=() if dataset is None else (dataset,))
        return CHARTS[name].draw(self.workspace, choice)


def connect(folder: str | Path | None = None) -> Connected:
    """A workspace, its warehouse brought up to date.

    Args:
        folder: The workspace; None for ``$EMCACHE_WORKSPACE``, or the one that the current folder
            is in.

    Raises:
        WorkspaceError: There is none.
        WarehouseError: The warehouse cannot be made.
    """
    connected = Connected(find_workspace(None if folder is None else Path(folder)))
    connected.sync()
    return connected


def _texts(parameters: Mapping[str, object]) -> dict[str, str]:
    """Values as the command line passes them."""
    from emcache_warehouse.query import parse_value

    texts = {}
    for name, value in parameters.items():
        text = "null" if value is None else str(value)
        # Text that looks like a number is put in quotes, which keep it text.
        as_text = isinstance(value, str) and not isinstance(parse_value(text), str)
        texts[name] = f'"{text}"' if as_text else text
    return texts

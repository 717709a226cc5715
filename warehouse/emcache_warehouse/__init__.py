"""The emcache warehouse: an index over records, in DuckDB.

The records are the truth; a warehouse can be made again from them at any time. Importing this
package imports neither DuckDB nor Altair; its modules do.

==================================== ==============================================================
``connect(folder)``                  a workspace in a notebook: ``query``, ``named``, ``chart``
``export.export_warehouse(db, dir)`` every table and view as Parquet, with a data dictionary
``report.page.write_report(ws, p)``  everything as one page
``sync.sync(runs, database)``        ingest what is new -> ``SyncReport``
``sync.rebuild(runs, database)``     make the warehouse again from the records -> ``SyncReport``
``sync.check(runs, database)``       look for anything that is wrong -> ``list[Finding]``
``schema.describe_schema(db)``       every table, view and column, with its meaning
``database.open_readonly(db)``       a DuckDB connection that can change nothing
``query.run_query(db, sql, p)``      one SQL statement -> ``polars.DataFrame``
``query.run_named_query(db, n, p)``  the same for a query that the package carries
``named.named_query(name)``          its SQL, parameters and columns; imports no DuckDB
``named.list_queries()``             all of them
``formats.render(frame, format)``    table, csv, json, jsonl, markdown, parquet
``formats.format_for_path(path)``    the format that a file's ending stands for
``charts.kinds.CHARTS``              every chart by its name: ``CHARTS["iou"].draw(ws, choice)``
``charts.kinds.chart_rows(n, db)``   the rows that it draws
``charts.custom.mark_chart(...)``    one mark, two columns of any query
``charts.render.save_chart(c, p)``   ``.html``, ``.png``, ``.svg``, ``.json``
==================================== ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcache_warehouse.notebook import Connected, connect

__all__ = ["Connected", "connect"]


def __getattr__(name: str) -> Any:
    # Imported on demand: the command line's help lists the charts, and needs no workspace.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emcache_warehouse import notebook

    return getattr(notebook, name)

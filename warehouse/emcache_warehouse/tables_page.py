"""The page about tables: which row belongs to which, and what each table is for.

``python -m emcache_warehouse.tables_page docs/tables.md`` writes it anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

from emcache_warehouse.query import run_query
from emcache_warehouse.schema import describe_schema
from emcache_warehouse.sync import sync

_PRIMARY_KEYS = """
SELECT table_name AS name, constraint_column_names AS columns
FROM duckdb_constraints()
WHERE constraint_type = 'PRIMARY KEY'
"""
# Tables whose key of one column names their rows elsewhere.
_HOMES = (
    "audits",
    "datasets",
    "evaluations",
    "gap_measurements",
    "predictions",
    "runs",
    "shape_measurements",
)
# The records that all rows come from, and what has nothing to do with datasets and runs.
_APART = (
    "benchmark_growth",
    "benchmark_runs",
    "benchmarks",
    "dataset_renames",
    "literature_results",
    "made_by",
    "paper_parameters",
    "paper_results",
    "records",
)

_TOP = """\
# Tables and views

`emcache query "SQL"` asks these; `emcache warehouse schema` describes every column, and
`emcache warehouse schema TABLE` those of one. Every row comes from a record, the folder that a
command leaves in `runs/`: `run_id`, `evaluation_id`, `gap_id`, `audit_id`, `bench_id`, `mark_id`
and `rename_id` are ids of records, with a row each in `records`. The diagram has the tables of
datasets and runs, and the columns that tie them together; `PK` is part of a table's key, `FK`
names a row of another table.
"""


def tables_page() -> str:
    """The page, Markdown with a Mermaid diagram."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "warehouse.duckdb"
        sync(Path(folder) / "runs", database)
        schema = describe_schema(database)
        keys = {
            name: list(columns) for name, columns in run_query(database, _PRIMARY_KEYS, {}).rows()
        }
    tables = schema.filter(kind="table")
    parts = [_TOP, "```mermaid", *_diagram(tables, keys), "```", ""]
    for kind, title in (("table", "Tables"), ("view", "Views")):
        parts += [f"## {title}", "", f"| {kind} | what a row is of |", "| --- | --- |"]
        listed = schema.filter(kind=kind).select("name", "purpose").unique(maintain_order=True)
        parts += [f"| `{name}` | {purpose} |" for name, purpose in listed.rows()]
        parts.append("")
    return "\n".join(parts)


def _diagram(tables: pl.DataFrame, keys: dict[str, list[str]]) -> list[str]:
    """Mermaid's lines: the relations, then each table with its keys."""
    homes = {keys[home][0]: home for home in _HOMES}
    relations, entities = [], []
    for name, *_ in tables.select("name").unique(maintain_order=True).rows():
        if name in _APART:
            continue
        entities.append(f"    {name} {{")
        for column, kind in tables.filter(name=name).select("column", "type").rows():
            marks = ["PK"] if column in keys.get(name, ()) else []
            if homes.get(column, name) != name:
                marks.append("FK")
                relations.append(f"    {homes[column]} ||--o{{ {name} : {column}")
            if marks:
                entities.append(f"        {kind} {column} {', '.join(marks)}")
        entities.append("    }")
    return ["erDiagram", "    direction LR", *sorted(relations), *entities]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(tables_page(), encoding="utf-8")

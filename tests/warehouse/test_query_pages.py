"""The pages about tables and named queries are those of the warehouse."""

import re
from pathlib import Path

from emcache_warehouse.query import run_query
from emcache_warehouse.query_pages import query_pages
from emcache_warehouse.tables_page import tables_page

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "queries"


def test_the_pages_are_up_to_date():
    pages = query_pages()
    assert {path.name for path in FOLDER.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run `make docs`"


def test_every_column_has_a_meaning():
    for name, text in query_pages().items():
        assert "|  |" not in text, name


def test_the_page_of_tables_is_up_to_date():
    page = tables_page()
    assert (DOCS / "tables.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_the_diagram_ties_tables_that_can_be_joined(filled_once):
    """Each line from one table to another is a column of both, and finds its row there."""
    lines = re.findall(r"^    (\w+) \|\|--o\{ (\w+) : (\w+)$", tables_page(), re.MULTILINE)
    assert ("runs", "slice_metrics", "run_id") in lines
    assert ("datasets", "slices", "dataset") in lines
    for home, table, column in lines:
        (lost,) = run_query(
            filled_once.database,
            f"SELECT count(*) AS lost FROM {table} "
            f"WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {column} FROM {home})",
            {},
        )["lost"]
        assert lost == 0, (home, table, column)

"""The pages about named queries are those of the queries."""

from pathlib import Path

from emcache_warehouse.query_pages import query_pages

FOLDER = Path(__file__).parents[2] / "docs" / "queries"


def test_the_pages_are_up_to_date():
    pages = query_pages()
    assert {path.name for path in FOLDER.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run `make docs`"


def test_every_column_has_a_meaning():
    for name, text in query_pages().items():
        assert "|  |" not in text, name

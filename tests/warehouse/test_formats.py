"""Frames as text and bytes."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from emcache.errors import UsageError
from emcache_warehouse.formats import FORMATS, format_for_path, render, render_for_terminal

FRAME = pl.DataFrame(
    {
        "name": ["vnc", "lucchi++ + vnc", None],
        "n": [3, 165, None],
        "iou": [0.123456, 1e-9, None],
        "ok": [True, False, None],
    }
)


def test_a_table_too_wide_for_the_terminal_becomes_a_block_for_each_row():
    frame = pl.DataFrame({"name": ["a", "b"], "iou_fg": [0.25, None]})

    assert render_for_terminal(frame, 80) == render(frame, "table")
    assert render_for_terminal(frame, 10) == ("  name  a\niou_fg  0.2500\n\n  name  b\niou_fg  -\n")


def test_a_table_is_aligned_and_rounded():
    assert render(FRAME, "table") == (
        "name              n     iou  ok\n"
        "--------------  ---  ------  -----\n"
        "vnc               3  0.1235  true\n"
        "lucchi++ + vnc  165   1e-09  false\n"
        "-                 -       -  -\n"
    )


def test_a_table_without_rows_is_its_header():
    assert render(FRAME.clear(), "table") == "name  n  iou  ok\n----  -  ---  --\n"


def test_a_cell_stays_on_its_line_and_controls_no_terminal():
    frame = pl.DataFrame({"x": ["two\nlines\x1b[31m"]})
    assert render(frame, "table").splitlines()[2] == "two\\nlines\\x1b[31m"


def test_large_and_infinite_numbers_in_a_table():
    frame = pl.DataFrame({"x": [0.0, 12345.678, 1e7, float("nan"), float("-inf")]})
    cells = [line.strip() for line in render(frame, "table").splitlines()[2:]]
    assert cells == ["0.0000", "12345.6780", "1e+07", "nan", "-inf"]


def test_markdown_escapes_what_would_end_a_cell():
    frame = pl.DataFrame({"x": ["a|b"], "n": [1]})
    assert render(frame, "markdown") == "| x | n |\n| :-- | --: |\n| a\\|b | 1 |\n"


def test_csv_reads_back_with_every_digit():
    text = render(FRAME, "csv")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == FRAME.columns
    assert rows[1] == ["vnc", "3", "0.123456", "true"]
    assert rows[3] == ["", "", "", ""]
    assert pl.read_csv(io.StringIO(text))["iou"][1] == 1e-9


def test_csv_writes_lists_as_json():
    frame = pl.DataFrame({"x": [[1.5, 2.0]], "b": [b"\xff\x00"]})
    assert list(csv.reader(io.StringIO(render(frame, "csv"))))[1] == ["[1.5, 2.0]", "ff00"]


VALUES = {
    "text": ("ä\n", "ä\n"),
    "integer": (2**53 + 1, 2**53 + 1),
    "float": (0.1, 0.1),
    "nan": (float("nan"), None),
    "infinity": (float("inf"), None),
    "decimal": (Decimal("1.50"), 1.5),
    "date": (date(2026, 2, 8), "2026-02-08"),
    "moment": (datetime(2026, 2, 8, 5, 6), "2026-02-08T05:06:00"),
    "duration": (timedelta(seconds=90), 90.0),
    "bytes": (b"\xab\x01", "ab01"),
    "list": ([1.0, float("nan")], [1.0, None]),
    "struct": ({"a": date(2026, 1, 1)}, {"a": "2026-01-01"}),
    "boolean": (True, True),
}


@pytest.mark.parametrize("format_name", ["json", "jsonl"])
@pytest.mark.parametrize("kind", VALUES)
def test_json_has_every_kind_of_value(format_name, kind):
    value, expected = VALUES[kind]
    text = render(pl.DataFrame({"x": [value]}), format_name)
    rows = json.loads(text) if format_name == "json" else [json.loads(text)]
    assert rows == [{"x": expected}]
    assert type(rows[0]["x"]) is type(expected)


def test_json_is_a_list_of_objects_also_when_empty():
    assert json.loads(render(FRAME, "json")) == FRAME.to_dicts()
    assert json.loads(render(FRAME.clear(), "json")) == []
    assert render(FRAME.clear(), "jsonl") == ""


def test_parquet_reads_back_the_same():
    assert pl.read_parquet(io.BytesIO(render(FRAME, "parquet"))).equals(FRAME)


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "parquet"])
def test_text_ends_in_a_newline(format_name):
    assert render(FRAME, format_name).endswith("\n")


def test_an_unknown_format_is_answered_with_all():
    with pytest.raises(UsageError, match="table, csv, json, jsonl, markdown, parquet"):
        render(FRAME, "xml")


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("a.csv", "csv"), ("a.JSON", "json"), ("a.b.md", "markdown"), ("a.parquet", "parquet")],
)
def test_the_ending_of_a_file_names_the_format(name, format_name):
    assert format_for_path(Path(name)) == format_name


def test_another_ending_is_a_sentence():
    with pytest.raises(UsageError, match=r"a\.xlsx has the ending \.xlsx"):
        format_for_path(Path("a.xlsx"))

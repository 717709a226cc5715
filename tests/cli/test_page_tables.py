"""The tables of pages on measurements are those of the rows beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_pages_have_the_tables_of_their_rows(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/page_tables.py"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("alignment", "tokens", "ladder", "few-label", "methods"):
        page = (checkout / "docs" / f"{name}.md").read_text()
        assert "<!-- table: " in page
        assert " ± " in page

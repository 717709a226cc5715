"""Every promise in the docs names a test that is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_a_test():
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!promise|---)(.+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 15
    for promise, test in rows:
        file, name = test.strip("`").split("::")
        module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
        assert name in names, promise

"""The demo on a pretrained backbone."""

from pathlib import Path

import pytest

from emcache_warehouse.query import run_query


@pytest.mark.slow
@pytest.mark.weights
def test_the_demo_takes_a_pretrained_backbone(run, pretrained_file: Path, tmp_path: Path) -> None:
    result = run("demo", "made-up", "--weights", str(pretrained_file), cwd=tmp_path)
    assert result.code == 0, result
    statement = "SELECT DISTINCT weights FROM runs"
    (label,) = run_query(tmp_path / "made-up/warehouse.duckdb", statement, {}).to_series()
    assert pretrained_file.name in label
    page = (tmp_path / "made-up/slices.html").read_text()
    for said in (result.err, page):
        assert "untrained" not in said
        assert "say nothing of microscopes" in said

import csv
from importlib.resources import files

import pytest


def test_all_nine_rows_equal_the_papers_to_the_last_digit(run) -> None:
    seeds = files("emcache_warehouse") / "seeds" / "paper_parameters.csv"
    printed = list(csv.DictReader(seeds.read_text().splitlines()))
    rows = run("params", "--format", "json").json
    assert len(rows) == len(printed) == 9
    for row, paper in zip(rows, printed, strict=True):
        assert list(row) == list(paper)
        for name, text in paper.items():
            assert row[name] == type(row[name])(text), (row["backbone"], name)


def test_another_backbone(run, fails) -> None:
    (row,) = run("params", "--backbone", "timm:vit_tiny_patch16_224").json
    assert (row["embed_dim"], row["patch"]) == (192, 16)
    assert row["head_only"] == pytest.approx((3_632_258 + 512 * 192) / 1e6, abs=5e-4)
    assert "did you mean dinov3-small?" in fails("params", "--backbone", "dinov3-smal").err

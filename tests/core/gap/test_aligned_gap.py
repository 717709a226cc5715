"""Distances after alignment: what is fitted to which slices, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.cache.feature_set import list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.data.greys import find_grey_rule
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, UsageError
from emcache.gap import probe as probe_module
from emcache.gap.frechet import frechet_distance
from emcache.gap.run import GapOptions, measure_gaps, plan_gaps
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

REQUEST = FeatureRequest("tiny", "random:0", 70)


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 9)


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "other", STYLES["soft"], slices=10, size=100, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    return cells


def measured(workspace: Workspace, *selections: str, listener=None, **options: object):
    chosen = GapOptions(REQUEST, device="cpu", **options)
    rows, record = measure_gaps(workspace, selections, chosen, listener or Quiet())
    return rows[0], record


def test_pixels_are_aligned_before_tokens_are(two: Workspace, listener) -> None:
    plain, _ = measured(two, "cells", "other")
    rule = find_grey_rule(two, "histogram:cells", Quiet())
    options = GapOptions(replace(REQUEST, greys=rule), device="cpu", align="standardise")
    (row,), _ = measure_gaps(two, ["cells", "other"], options, Quiet())
    assert row["align"] == f"{rule.label}, standardise"
    pixels_alone = replace(options, align="none")
    (alone,), record = measure_gaps(two, ["cells", "other"], pixels_alone, Quiet())
    assert (alone["align"], record.config["align"]) == (rule.label, rule.label)
    assert len({plain["frechet"], row["frechet"], alone["frechet"]}) == 3
    measure_gaps(two, ["cells", "other"], pixels_alone, listener)
    assert not [line for line in listener.lines if "extracting" in line]


def tokens_of(workspace: Workspace, name: str, split: str) -> list[np.ndarray]:
    """Tokens of a split's slices, from whatever feature set holds them."""
    wanted = [s.pixel_sha256 for s in load_dataset(workspace, name).slices if s.split == split]
    held = {
        item.pixel_sha256: feature_set.tokens(place).astype(np.float64)
        for feature_set in list_feature_sets(workspace.cache)
        for place, item in enumerate(feature_set.slices)
    }
    return [held[sha] for sha in wanted]


def test_it_is_the_distance_of_transformed_tokens(two: Workspace) -> None:
    row, record = measured(two, "cells:test", "other:test", align="standardise")
    means = []
    for name in ("cells", "other"):
        train = np.concatenate([t.reshape(-1, 64) for t in tokens_of(two, name, "train")])
        mean, deviation = train.mean(axis=0), train.std(axis=0, ddof=1)
        test = [((t - mean) / deviation).mean(axis=(0, 1)) for t in tokens_of(two, name, "test")]
        means.append(np.stack(test))
    assert row["frechet"] == pytest.approx(frechet_distance(*means), rel=1e-3)
    assert row["align"] == record.config["align"] == "standardise"
    plain, _ = measured(two, "cells:test", "other:test")
    assert plain["align"] is None
    assert plain["frechet"] != row["frechet"]


def test_the_slice_mean_of_quantiles_is_that_of_the_transformed_tokens(two: Workspace) -> None:
    row, _ = measured(two, "cells:test", "other:test", align="quantile")
    assert row["align"] == "quantile to cells"
    to_other, _ = measured(two, "cells:test", "other:test", align="quantile", align_to="other")
    assert to_other["align"] == "quantile to other"
    assert to_other["frechet"] != row["frechet"]


def test_slices_that_are_fitted_to_and_measured_are_named(two: Workspace, listener) -> None:
    measured(two, "cells:test", "other", align="standardise", listener=listener)
    (said,) = (line for line in listener.lines if "fitted to slices that are measured" in line)
    assert "alignment of other is" in said


def test_an_alignment_is_part_of_the_key(two: Workspace) -> None:
    keys = {
        plan_gaps(two, ["cells:test", "other:test"], GapOptions(REQUEST, **options), Quiet()).key
        for options in (
            {},
            {"align": "standardise"},
            {"align": "coral"},
            {"align": "coral", "align_to": "other"},
            {"align": "coral", "align_shrinkage": 0.1},
        )
    }
    assert len(keys) == 5


def test_what_cannot_be_aligned(two: Workspace) -> None:
    with pytest.raises(UsageError, match="level cls has no distance after alignment"):
        measured(two, "cells:test", "other:test", align="standardise", levels=["slice", "cls"])
    with pytest.raises(UsageError, match="batch-norm has no distance after alignment"):
        measured(two, "cells:test", "other:test", align="batch-norm")
    with pytest.raises(DatasetError, match="nothere"):
        measured(two, "cells:test", "other:test", align="coral", align_to="nothere")

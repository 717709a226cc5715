"""Removing, renaming and moving datasets."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import _of_the_table, load_dataset
from emcache.data.register import (
    RENAME,
    add_dataset,
    dataset_records,
    move_dataset,
    remove_dataset,
    rename_dataset,
)
from emcache.errors import DatasetError, UsageError
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import plan_training

REQUEST = FeatureRequest("tiny", "random:0", 70)
OPTIONS = {"seeds": [0], "protocol": Protocol(head="linear", max_epochs=1)}


def fingerprint(workspace: Workspace, name: str) -> str:
    setting = plan_training(
        workspace, TrainingRequest(datasets=[name], features=REQUEST, **OPTIONS), Quiet()
    )
    return setting.fingerprint(0)


def test_a_renamed_dataset_trains_nothing_again(cells: Workspace) -> None:
    before = fingerprint(cells, "cells")
    dataset, record = rename_dataset(cells, "cells", "tissue", Quiet())
    assert (dataset.name, dataset.first_name) == ("tissue", "cells")
    assert record.kind == RENAME
    assert cells.dataset_names() == ["tissue"]
    assert fingerprint(cells, "tissue") == before
    rename_dataset(cells, "tissue", "third", Quiet())
    assert fingerprint(cells, "third") == before
    # Once more, and by hand.
    text = cells.config_path.read_text()
    cells.config_path.write_text(text.replace("[datasets.third]", "[datasets.fourth]"))
    rename_dataset(cells, "third", "fourth", Quiet())
    assert fingerprint(cells, "fourth") == before


def test_a_renamed_table_keeps_its_comments(cells: Workspace) -> None:
    text = cells.config_path.read_text()
    cells.config_path.write_text(text.replace("layout =", "# from the freezer\nlayout ="))
    options = dict(cells.dataset_options("cells"))
    rename_dataset(cells, "cells", "tissue", Quiet())
    assert "# from the freezer\n" in cells.config_path.read_text()
    assert dict(cells.dataset_options("tissue")) == {"first_name": "cells", **options}


def test_the_rule_of_greys_stays_with_a_renamed_dataset(
    workspace: Workspace, tmp_path: Path
) -> None:
    for z in range(3):
        pixels = np.random.default_rng(z).integers(0, 4000, (64, 64)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"{z}.tif", pixels)
    _, added = add_dataset(workspace, "deep", "folder", tmp_path, {"images": "*.tif"}, Quiet())
    rename_dataset(workspace, "deep", "deeper", Quiet())
    renamed = next(dataset_records(workspace, "deeper"))
    for fact in ("grey_rule", "grey_window"):
        assert renamed.config[fact] is not None
        assert renamed.config[fact] == added.config[fact]


def test_a_table_renamed_by_hand_is_taken_up(cells: Workspace) -> None:
    before = fingerprint(cells, "cells")
    text = cells.config_path.read_text()
    cells.config_path.write_text(text.replace("[datasets.cells]", "[datasets.tissue]"))
    assert fingerprint(cells, "tissue") != before
    rename_dataset(cells, "cells", "tissue", Quiet())
    assert fingerprint(cells, "tissue") == before
    with pytest.raises(DatasetError, match="no dataset 'celsl'"):
        rename_dataset(cells, "celsl", "tissue", Quiet())


def test_names_that_cannot_be_given(cells: Workspace, tmp_path: Path) -> None:
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=64, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    with pytest.raises(DatasetError, match="records name other slices by 'other'"):
        rename_dataset(cells, "cells", "other", Quiet())
    with pytest.raises(UsageError, match="cannot name a dataset"):
        rename_dataset(cells, "cells", "a b", Quiet())
    assert cells.dataset_names() == ["cells", "other"]


def test_a_folder_that_moved(cells: Workspace, cells_root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    cells_root.rename(elsewhere)
    with pytest.raises(DatasetError, match="`emcache dataset move cells PATH`") as raised:
        load_dataset(cells, "cells")
    assert "--root" not in str(raised.value)
    assert "move" not in _of_the_table("set --mask-threshold, or give --instances.", "cells")
    moved = move_dataset(cells, "cells", elsewhere, Quiet())
    assert load_dataset(cells, "cells").root == moved.root
    path = next((elsewhere / "images").iterdir())
    Image.open(path).rotate(180).save(path)
    with pytest.raises(DatasetError, match=r"holds other slices than cells had \(1 differ"):
        move_dataset(cells, "cells", elsewhere, Quiet())


def test_a_removed_dataset_leaves_its_records(cells: Workspace) -> None:
    records = list_record_ids(cells.runs)
    remove_dataset(cells, "cells")
    assert cells.dataset_names() == []
    assert list_record_ids(cells.runs) == records
    with pytest.raises(DatasetError, match="no dataset 'cells'"):
        remove_dataset(cells, "cells")

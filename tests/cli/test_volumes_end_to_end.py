"""A volume with named classes, from the command line."""

from pathlib import Path

import numpy as np
import tifffile
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image


def test_a_volume_with_named_classes(tmp_path: Path, run, fails) -> None:
    write_domain(tmp_path / "d", STYLES["sharp"], slices=10, size=84, seed=3)
    names = [f"{kind}.tif" for kind in ("images", "masks")]
    for kind, name in zip(("images", "masks"), names, strict=True):
        planes = [
            np.asarray(Image.open(p))
            for p in sorted((tmp_path / "d" / kind).iterdir(), key=lambda p: int(p.stem))
        ]
        tifffile.imwrite(tmp_path / "d" / name, np.stack(planes), photometric="minisblack")
    (tmp_path / "d" / "test.txt").write_text("8\n9\n")
    (tmp_path / "d" / "train.txt").write_text("\n".join(map(str, range(7))) + "\n")
    (tmp_path / "d" / "gap.txt").write_text("7\n")
    run("init", ".")
    add = ("dataset", "add", "vol", "--layout", "stack", "--root", "d", "--images", "images.tif")
    lists = [x for s in ("train", "test", "gap") for x in ("--split", f"{s}=@d/{s}.txt")]
    classes = ("--classes", "background=0", "organelle=255", "ignore=7", "--voxel-size", "8,4,4")
    said = run(*add, "--masks", "masks.tif", *lists, *classes).err
    assert "10 slices (train 7, gap 1, test 2), 10 with masks" in said
    assert "equally many (10 of each), are paired by position" in said
    assert "Masks: background 0, organelle 255, ignore 7." in said
    rows = run("dataset", "show", "vol", "--format", "json").json
    assert rows[3]["image"] == "images.tif#z=3"
    train = ("train-head", "vol", "--backbone", "tiny", "--weights", "random:0", "--seeds", "0")
    run(*train, "--longest-edge", "70", "--epochs", "2", "--head", "linear")
    counts = run("query", "select distinct class from slice_metrics order by all").json
    assert counts == [{"class": "foreground"}, {"class": "organelle"}]
    board = run("query", "--name", "leaderboard", "--format", "json").json
    assert [(row["eval_on"], row["n_slices"]) for row in board] == [("vol", 2)]
    assert "already" in fails(*add, "--masks", "masks.tif", *classes).err

"""The README's examples are run as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from PIL import Image


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def lines_of(readme: str, start: str) -> list[str]:
    """The lines of the one shell block that starts so."""
    (block,) = (b for b in blocks(readme, "sh") if b.startswith(start))
    return block.splitlines()


def shell(line: str, folder: Path) -> str:
    """Run a line as a user's shell would, with ``emcache`` on the path."""
    done = subprocess.run(
        ["bash", "-ec", line],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(folder),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


CHECKPOINT = "path/to/dinov2_vits14.safetensors"
UNTRAINED = {
    f"--weights {CHECKPOINT}": "--weights random:0",
    "--longest-edge 518": "--longest-edge 126",
    "--epochs 60": "--epochs 3",
}


def run_main_job(readme: str, lines: list[str], folder: Path, **different: object) -> list[Any]:
    """Run the main job; its two answers, which are what the README prints but for some values."""
    assert len(lines) == 7
    printed = [shell(line, folder) for line in lines]
    answers = [json.loads(text) for text in printed[3:5]]
    for found, block in zip(answers, blocks(readme, "json")[:2], strict=True):
        said = json.loads(block)
        assert [row.keys() for row in found] == [row.keys() for row in said]
        for row, expected in zip(found, said, strict=True):
            # Scores move with the arithmetic: by 0.002 between float32 and bfloat16, at 266 px.
            assert row == {
                key: pytest.approx(value, abs=0.02) if isinstance(value, float) else value
                for key, value in {
                    **expected,
                    **{key: value for key, value in different.items() if key in expected},
                }.items()
            }
    assert (folder / "iou.html").stat().st_size > 100_000
    assert [shell(line, folder) for line in lines[3:5]] == printed[3:5]
    return answers


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.weights
def test_the_main_job_with_a_checkpoint(
    checkout: Path, tmp_path: Path, vnc_root: Path, pretrained_file: Path
) -> None:
    readme = (checkout / "README.md").read_text()
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    (tmp_path / CHECKPOINT).symlink_to(pretrained_file)
    (tmp_path / "path" / "to" / "vnc").symlink_to(vnc_root)
    lines = lines_of(readme, "emcache init")
    # A processor that computes bfloat16 does so.
    scores, _ = run_main_job(readme, lines, tmp_path, precision=ANY)
    assert all(row["iou_fg"] >= 0.55 for row in scores)


@pytest.mark.real
def test_the_main_job_without_a_checkpoint(checkout: Path, tmp_path: Path, vnc_root: Path) -> None:
    """The same lines at a small size; of what they print only the scores are others."""
    readme = (checkout / "README.md").read_text()
    lines = lines_of(readme, "emcache init")
    for before, after in UNTRAINED.items():
        assert sum(before in line for line in lines) == 1
        lines = [line.replace(before, after) for line in lines]
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "vnc").symlink_to(vnc_root)
    run_main_job(
        readme,
        lines,
        tmp_path,
        weights="random:0",
        longest_edge=126,
        protocol="paper[head=bn-linear, learning_rate=0.01, max_epochs=3]",
        precision=ANY,
        n_nothing_learned=ANY,
        iou_fg=ANY,
        iou_fg_mean=ANY,
        iou_fg_std=ANY,
    )


def test_your_own_slices(checkout: Path, tmp_path: Path, cells_root: Path) -> None:
    root = tmp_path / "path" / "to" / "cells"
    for name, kind, ending in (("images", "raw", "tif"), ("masks", "labels", "png")):
        (root / kind).mkdir(parents=True)
        for path in (cells_root / name).iterdir():
            Image.open(path).save(root / kind / f"{path.stem}.{ending}")
    shutil.rmtree(cells_root)
    shell("emcache init .", tmp_path)
    readme = (checkout / "README.md").read_text()
    printed = [shell(line, tmp_path) for line in lines_of(readme, "emcache dataset add cells")]
    assert [row["mask"] for row in json.loads(printed[-1])] == [
        f"labels/{i}.png" for i in range(10)
    ]


def test_the_two_commands_are_targets(checkout: Path) -> None:
    readme = (checkout / "README.md").read_text()
    makefile = (checkout / "Makefile").read_text()
    for line in lines_of(readme, "make demo"):
        target = line.split()[1]
        assert re.search(rf"^{target}: setup\b", makefile, re.MULTILINE)


def test_links_lead_somewhere(checkout: Path) -> None:
    for page in (checkout / "README.md", *(checkout / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_named_query_is_documented(checkout: Path, run) -> None:
    names = {row["name"] for row in run("query", "--list").json}
    page = (checkout / "docs" / "queries.md").read_text()
    assert names == set(re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE))

"""The README's examples are run as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.real
def test_the_main_job_on_the_real_slices(checkout: Path, tmp_path: Path, vnc_root: Path) -> None:
    readme = (checkout / "README.md").read_text()
    lines = lines_of(readme, "emcache init")
    assert len(lines) == 7
    printed = [shell(line.replace("path/to/vnc", str(vnc_root)), tmp_path) for line in lines]
    scores, leaderboard = (json.loads(text) for text in printed[3:5])
    said_scores, said_leaderboard = (json.loads(block) for block in blocks(readme, "json")[:2])
    for found, said in ((scores, said_scores), (leaderboard, said_leaderboard)):
        assert [row.keys() for row in found] == [row.keys() for row in said]
        for row, expected in zip(found, said, strict=True):
            # Scores may move with the machine's arithmetic; everything else may not.
            assert row == {
                key: pytest.approx(value, abs=0.02) if isinstance(value, float) else value
                for key, value in expected.items()
            }
    assert (tmp_path / "iou.html").stat().st_size > 100_000
    again = [shell(line, tmp_path) for line in lines[3:5]]
    assert again == printed[3:5]


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

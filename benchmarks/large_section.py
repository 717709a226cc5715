"""A made-up section of 16,384 x 16,384 px: memory of every command, and the error beside seams.

    python benchmarks/large_section.py FOLDER WEIGHTS [TILE OVERLAP LONGEST_EDGE [SIDE]]

A section to train on and a smaller one to test on are drawn into tiled TIFF files; then whole
commands add them, extract their tiles with a DINOv2 ViT-S/14, train a linear head and predict both
sections. A row for each command has its seconds and its largest memory. At the end stands the share
of wrong pixels within 32 px of a tile's edge, and elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from emcache_bench.seams import NEAR, near_edges
from emcache_bench.synthetic import STYLES, draw_section

from emcache.data.tiling import Tiling

COMMAND = [sys.executable, "-c", "from emcache_cli.main import main; main()"]
_BLOCK = 1024
_SHIFTS = 24


def draw(folder: Path, name: str, side: int, seed: int) -> None:
    """Draw a section and its mask, block by block, into tiled TIFF files."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    across = -(-side // _BLOCK)

    def tiles(which: int) -> Iterator[np.ndarray]:
        for block in range(across**2):
            yield draw_section(STYLES["sharp"], _BLOCK, 1000 * seed + block)[which]

    for which, kind in enumerate(("images", "masks")):
        tifffile.imwrite(
            folder / kind / f"{name}.tif",
            tiles(which),
            shape=(side, side),
            dtype=np.uint8,
            tile=(_BLOCK, _BLOCK),
            compression="zlib",
            photometric="minisblack",
        )


def measure(folder: Path, *arguments: str) -> None:
    """Run a command, which must end well, and print its seconds and GB."""
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ}
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds, memory = time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9
    print(f"{' '.join(arguments)}: {seconds:.0f} s, {memory:.2f} GB", flush=True)
    if status:
        raise SystemExit(status)


def seam_errors(folder: Path, name: str, tiling: Tiling) -> str:
    """Shares of wrong pixels near tiles' edges and elsewhere, and the IoU, in words.

    What lies near edges differs from what lies elsewhere by chance too, so the same bands are also
    laid elsewhere: they are shifted at random.
    """
    predicted = tifffile.imread(folder / "out" / f"{name}.tif", level=0) > 0
    true = tifffile.imread(folder / "masks" / f"{name}.tif") > 0
    near, wrong = near_edges(true.shape, tiling), predicted != true
    random = np.random.default_rng(0)
    shifts = random.integers(2 * NEAR, tiling.edge - 2 * NEAR, (_SHIFTS, 2))
    shifted = [wrong[np.roll(near, tuple(shift), (0, 1))].mean() for shift in shifts]
    return (
        f"{name}: wrong pixels within {NEAR} px of edges {wrong[near].mean():.4f}, elsewhere "
        f"{wrong[~near].mean():.4f}, in bands shifted {_SHIFTS} times {min(shifted):.4f} to "
        f"{max(shifted):.4f}; IoU {(predicted & true).sum() / (predicted | true).sum():.3f}"
    )


def main() -> None:
    """Print a row for each command, and the errors."""
    folder, weights = Path(sys.argv[1]), sys.argv[2]
    given = [int(word) for word in sys.argv[3:]]
    tile, overlap, edge, side = [*given, *(1022, 126, 1022, 16384)[len(given) :]]
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate((("train", side), ("test", side // 4))):
        if not (folder / "masks" / f"{name}.tif").exists():
            draw(folder, name, size, seed)
    tiling = ["--tile", str(tile), "--overlap", str(overlap)]
    backbone = ["--backbone", "dinov2-small", "--weights", weights, "--longest-edge", str(edge)]
    measure(folder, "init", ".")
    where = ["--images", "images/*.tif", "--masks", "masks/*.tif"]
    splits = ["--split", "train=train", "--split", "test=test"]
    measure(folder, "dataset", "add", "sections", "--root", ".", *where, *splits)
    measure(folder, "extract", "sections", *backbone, *tiling, "--batch", "1")
    head = ["--head", "linear", "--epochs", "5", "--seeds", "0", "--resident", "disk"]
    measure(folder, "train-head", "sections", *backbone, *tiling, *head)
    (run,) = [path.name for path in (folder / "runs").iterdir() if "-train-head-" in path.name]
    measure(folder, "predict", run, "images", "--out", "out", "--overwrite", "--probabilities")
    for name in ("train", "test"):
        print(seam_errors(folder, name, Tiling(tile, overlap)))


if __name__ == "__main__":
    main()

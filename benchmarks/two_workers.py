"""What two workers bring over one process, each computing with one thread.

    python benchmarks/two_workers.py FOLDER WEIGHTS 392 [ROUNDS]

The slices are all PNG and TIFF files of a folder. With a DINOv2 ViT-S/14, whole commands on empty
caches run in pairs. A shard of up to 64 slices is a piece of work, so few slices cannot be shared
evenly. Two ratios are printed: of the
commands as a user starts them, and of the extraction alone, as each command says it, which leaves
out the starting of processes but not the loading of a backbone by each.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from emcache_cli.main import main; main()"]


def run(folder: Path, *arguments: str) -> tuple[float, str]:
    """Seconds of a command, and what it said."""
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, done.stderr


def main() -> None:
    """Print the seconds of each round, and the ratios."""
    root, weights, edge, rounds = [*sys.argv[1:], "2"][:4]
    options = ["--backbone", "dinov2-small", "--weights", weights, "--longest-edge", edge]
    ratios: dict[str, list[float]] = {"whole command": [], "extraction": []}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run(place, "init", ".")
        run(place, "dataset", "add", "slices", "--root", root, "--images", "*.[pt][ni][gf]*")
        for number in range(int(rounds)):
            seconds: dict[str, tuple[float, float]] = {}
            for cluster in ("none", "local:2"):
                for folder in (place / "cache").glob("slices-*"):
                    shutil.rmtree(folder)
                whole, said = run(place, "extract", "slices", *options, "--cluster", cluster)
                alone = re.search(r"of tokens, ([\d.]+) s\.", said)
                if alone is None:
                    raise SystemExit(said)
                seconds[cluster] = whole, float(alone[1])
                print(f"round {number}, {cluster}: {whole:.1f} s, {alone[1]} s of extraction")
            for kind, one, two in zip(ratios, seconds["none"], seconds["local:2"], strict=True):
                ratios[kind].append(one / two)
    for kind, values in ratios.items():
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{kind}: one process / two workers {statistics.median(values):.2f} ({each})")


if __name__ == "__main__":
    main()

"""What every command takes on ever more slices: one volume of made-up slices, tiny and untrained.

    python benchmarks/scale.py FOLDER 1000 10000 100000 > benchmarks/scale.csv

Each number of slices has a workspace of its own. The volume is a Zarr array of slices of 14 x 14
pixels, each different; the untrained tiny backbone makes one token of each. So all that grows is
bookkeeping: files, rows, hashes. Seconds and memory are of whole commands, as a user starts them.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr

COMMAND = [sys.executable, "-c", "from emcache_cli.main import main; main()"]
BACKBONE = ["--backbone", "tiny", "--weights", "random:0", "--longest-edge", "14"]
EXTRACT = ["extract", "big", *BACKBONE, "--batch", "64", "--device", "cpu"]
STAGES = {
    "add a dataset": [
        "dataset",
        "add",
        "big",
        "--layout",
        "stack",
        "--root",
        ".",
        "--images",
        "v.zarr",
    ],
    "plan": [*EXTRACT, "--dry-run"],
    "extract": EXTRACT,
    "find it there": EXTRACT,
    "verify": ["cache", "verify"],
    "verify, 2 workers": ["cache", "verify", "--cluster", "local:2"],
    "ingest": ["warehouse", "sync"],
    "query": ["query", "select count(*) as n, count(distinct pixel_sha256) as d from slices"],
}
EDGE, CHUNK = 14, 1000


def write_volume(path: Path, count: int) -> None:
    """A volume of so many different slices.

    Args:
        path: The Zarr array.
        count: Number of slices.
    """
    volume = zarr.create_array(
        path, shape=(count, EDGE, EDGE), chunks=(min(count, CHUNK), EDGE, EDGE), dtype="uint8"
    )
    random = np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        size = (min(CHUNK, count - start), EDGE, EDGE)
        volume[start : start + size[0]] = random.integers(0, 256, size, dtype=np.uint8)


def measure(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Seconds and GB of a command, which must end well."""
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    """Write a row for each command and number of slices to standard output."""
    place, counts = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    rows = csv.writer(sys.stdout)
    rows.writerow(["n_slices", "stage", "seconds", "peak_gb", "cache_files"])
    for count in counts:
        folder = place / str(count)
        folder.mkdir(parents=True)
        write_volume(folder / "v.zarr", count)
        measure(folder, ["init", "."])
        for stage, arguments in STAGES.items():
            seconds, memory = measure(folder, arguments)
            files = sum(len(names) for _, _, names in os.walk(folder / "cache"))
            rows.writerow([count, stage, f"{seconds:.1f}", f"{memory:.2f}", files])
            sys.stdout.flush()


if __name__ == "__main__":
    main()

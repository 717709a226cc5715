"""Workers leave Ctrl-C to the process that gives the work."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal
from emcache.cluster.preload import dask_setup

dask_setup(None)
import emcache.studies.run, polars
frame = polars.DataFrame({"slice": [1]}).lazy().map_batches(
    lambda batch: (os.kill(os.getpid(), signal.SIGINT), batch)[1]
)
print(frame.collect().item())
"""


def test_an_interrupt_while_polars_works_is_left_alone():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
    assert "KeyboardInterrupt" not in done.stderr

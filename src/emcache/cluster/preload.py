"""What a worker does before anything else: ``dask worker --preload emcache.cluster.preload``."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that gives the work."""
    del worker
    # Polars handles SIGINT from its import on, whatever was set before.
    import polars as pl  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)

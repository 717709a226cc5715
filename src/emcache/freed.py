"""Keeping freed memory with the process, in place of giving it back to the system each time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h of the GNU C library: parameters of mallopt, and their values at the start.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TRIM_THRESHOLD_DEFAULT, _MMAP_MAX_DEFAULT = 128 * 1024, 65536
_NEVER = 2**31 - 1

_depth = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next tensor; at the end the system gets back what it can.

    It changes the whole process, and nothing where the C library is not GNU's. It may be nested.
    """
    global _depth
    libc = _gnu_libc()
    if libc is None:
        yield
        return
    _depth += 1
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            libc.mallopt(_MMAP_MAX, _MMAP_MAX_DEFAULT)
            libc.mallopt(_TRIM_THRESHOLD, _TRIM_THRESHOLD_DEFAULT)
            libc.malloc_trim(0)


def _gnu_libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # Other C libraries of Linux have no such function.
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None

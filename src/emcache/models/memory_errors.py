"""What to do when memory runs out, said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emcache.errors import EmcacheError

# PyTorch has an exception of its own for GPUs; for main memory it raises a RuntimeError.
_HOST = ("DefaultCPUAllocator", "std::bad_alloc")


@contextmanager
def advise_on_memory(kind: type[EmcacheError], what: str, advice: str) -> Iterator[None]:
    """Turn an allocation that fails within it, on the device or in main memory, into advice.

    Args:
        kind: Exception to raise.
        what: Needs the memory: ``training``.
        advice: What to do, after a semicolon.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise kind(f"{what} needs more memory than there is; {advice}.") from error


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in _HOST)

"""Where to compute, and what memory there is for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from emcache.errors import EmcacheError, UsageError
from emcache.models.threads import use_fastest_threads


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the best there is: CUDA, Apple's MPS, the CPU.

    For the CPU, PyTorch gets as many threads as it is fastest with there.

    Raises:
        UsageError: The device is unknown or not there.
    """
    device = _find_device(name)
    if device.type == "cpu":
        use_fastest_threads()
    return device


def _find_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(name.partition(":")[0], False):
        there = ", ".join(device for device, present in available.items() if present)
        raise UsageError(f"there is no device {name!r} here; available: {there}.", subject=name)
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"{name!r} is not a device; expected cpu, cuda, cuda:N or mps.") from None


_RESET_PEAK = "5"  # what proc(5) has for it


def watch_memory(device: torch.device) -> Callable[[], int | None]:
    """Begin to watch how much memory work on a device takes.

    Returns:
        A function for the largest number of bytes that was held since: of a GPU those of PyTorch's
        allocator, otherwise those of the whole process, which Linux alone counts anew; None
        elsewhere.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return lambda: None
    return _largest_resident


def _largest_resident() -> int | None:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


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

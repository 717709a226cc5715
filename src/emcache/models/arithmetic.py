"""Which arithmetic to compute in: float32, or bfloat16 where a device is faster in it.

That a processor has instructions for bfloat16 does not say that they are faster: of two with
AVX512-BF16 one takes twice as long as in float32, the other a third. So the products and
convolutions that backbones and heads consist of are timed in both, once for each machine and
version of PyTorch, and the result is kept in a file of the user's.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from emcache.errors import UsageError
from emcache.storage import atomic
from emcache.storage.hashing import json_sha256

_CLEARLY = 1.05
"""How much faster bfloat16 must be: a tie goes to the exact one."""
_ROUNDS = 7
_TOKENS, _CHANNELS = 19 * 19 * 2, 384
_LOCK_SECONDS = 60.0


class Precision(StrEnum):
    """Arithmetic of the forward pass; parameters stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of the same work in both arithmetics."""

    float32: float
    bfloat16: float

    @property
    def faster(self) -> Precision:
        """Bfloat16 where it is clearly faster."""
        clearly = self.float32 > _CLEARLY * self.bfloat16
        return Precision.BFLOAT16 if clearly else Precision.FLOAT32


def pick_precision(name: str, device: torch.device) -> Precision:
    """The named precision; ``auto`` is the one that the device was measured to be faster in.

    Raises:
        UsageError: An unknown name.
    """
    if name == "auto":
        timing = known_timing(device)
        return Precision.FLOAT32 if timing is None else timing.faster
    try:
        return Precision(name)
    except ValueError:
        raise UsageError(
            f"unknown precision {name!r}; expected auto, {', '.join(Precision)}.", subject=name
        ) from None


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Context in which matrix products run in ``precision``."""
    if precision is Precision.FLOAT32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has arithmetic of its own for bfloat16."""
    if device.type == "cuda":
        # Without emulation: Turing and older would compute it slowly in software.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # On a CPU without these units bfloat16 is emulated, and slower than float32.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001
    return False


def known_timing(device: torch.device) -> Timing | None:
    """What was measured of a device, now or earlier; None where it has no bfloat16 of its own."""
    if not computes_bfloat16(device):
        return None
    return _kept_timing(_key(device), str(device))


def timing_facts(device: torch.device) -> dict[str, Any]:
    """What a record says of it: seconds of the same work in each arithmetic, or None.

    Args:
        device: One that may be elsewhere, as those of workers; then nothing is known of it.
    """
    is_here = device.type != "cuda" or torch.cuda.is_available()
    timing = known_timing(device) if is_here else None
    return {"arithmetic_seconds": None if timing is None else asdict(timing)}


def measure_again(device: torch.device) -> Timing | None:
    """Measure a device anew, and keep that; None where it has no bfloat16 of its own."""
    if not computes_bfloat16(device):
        return None
    _kept_timing.cache_clear()
    return _timing(_key(device), device, again=True)


@lru_cache
def _kept_timing(key: str, device: str) -> Timing:
    """Of one process: the file is asked once."""
    return _timing(key, torch.device(device))


def _timing(key: str, device: torch.device, *, again: bool = False) -> Timing:
    """From the file, which has other machines' beside it; else measured, and then there."""
    path = _store()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that begin at once must not come to different results.
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            kept = _read(path)
            if again or (known := kept.get(key)) is None:
                known = kept[key] = measure(device)
                content = {name: [t.float32, t.bfloat16] for name, t in kept.items()}
                atomic.write_json(path, content, durable=False)
            return known
    except (OSError, Timeout):
        # Nothing can be kept here: measured by each process.
        return measure(device)


def measure(device: torch.device) -> Timing:
    """Time what backbones and heads consist of; a fifth of a second on two cores.

    The two arithmetics take turns, and the best round of each counts, so that other work on the
    machine disturbs both alike.
    """
    work = _work(device)
    best = dict.fromkeys(Precision, float("inf"))
    for number in range(_ROUNDS):
        for precision in Precision:
            began = time.perf_counter()
            with torch.inference_mode(), autocast(device, precision):
                work()
            _wait(device)
            if number:
                best[precision] = min(best[precision], time.perf_counter() - began)
    return Timing(best[Precision.FLOAT32], best[Precision.BFLOAT16])


def _work(device: torch.device) -> Callable[[], object]:
    """A block's two products over the tokens of two slices at 266 px, and a head's convolution."""
    with torch.random.fork_rng(devices=[]):
        wide = nn.Linear(_CHANNELS, 4 * _CHANNELS)
        narrow = nn.Linear(4 * _CHANNELS, _CHANNELS)
        convolution = nn.Conv2d(128, 64, 3, padding=1)
    for module in (wide, narrow, convolution):
        module.to(device)
    tokens = torch.ones(_TOKENS, _CHANNELS, device=device)
    maps = torch.ones(2, 128, 38, 38, device=device)
    return lambda: (narrow(wide(tokens)), convolution(maps))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(device: torch.device) -> str:
    """Hash of everything that could change the result."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return json_sha256(
        {
            "device": device.type,
            "name": name,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _store() -> Path:
    """File of the timings of this user's machines."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "emcache" / "arithmetic.json"


def _read(path: Path) -> dict[str, Timing]:
    try:
        kept = json.loads(path.read_bytes())
        return {key: Timing(float(first), float(second)) for key, (first, second) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

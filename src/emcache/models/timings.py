"""Which of several ways of the same work a machine is faster in, measured once and kept.

What a processor or a GPU is able to do does not say what it is fast in. So the kernels that
backbones and heads consist of are timed in each way, once for each machine, number of threads and
version of PyTorch, and the seconds are kept in a file of the user's.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from emcache.storage import atomic
from emcache.storage.hashing import json_sha256

_CLEARLY = 1.05
"""How much faster another way must be than the usual one."""
_ROUNDS = 7
_LOCK_SECONDS = 60.0

Works = Callable[[torch.device], Mapping[str, Callable[[], object]]]
"""From a device to the same work in each way."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of the same work in each way."""

    seconds: Mapping[str, float]
    usual: str

    @property
    def fastest(self) -> str:
        """Another way than the usual one where it is clearly faster."""
        best = min(self.seconds, key=self.seconds.__getitem__)
        clearly = self.seconds[self.usual] > _CLEARLY * self.seconds[best]
        return best if clearly else self.usual


@dataclass(frozen=True)
class Choice:
    """A choice that a measurement makes."""

    name: str
    usual: str
    works: Works

    def time(self, device: torch.device, *, again: bool = False) -> Timed:
        """What was measured of a device earlier, or is now.

        Args:
            device: Which.
            again: Whether it is measured anew in any case.
        """
        key = self._key(device)
        if again:
            _ask(key, self.works, device, again=True)
            _kept.cache_clear()
        return Timed(_kept(key, self.works, str(device)), self.usual)

    def _key(self, device: torch.device) -> str:
        """Hash of everything that could change the result."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        return json_sha256(
            {
                "choice": self.name,
                "device": device.type,
                "name": name,
                "capability": torch.backends.cpu.get_cpu_capability(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )


@lru_cache
def _kept(key: str, works: Works, device: str) -> Mapping[str, float]:
    """Of one process: the file is asked once."""
    return _ask(key, works, torch.device(device))


def _ask(
    key: str, works: Works, device: torch.device, *, again: bool = False
) -> Mapping[str, float]:
    """From the file, which has other machines' beside it; else measured, and then there."""
    path = _store()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that begin at once must not come to different results.
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            kept = _read(path)
            if again or key not in kept:
                kept[key] = measure(works(device), device)
                atomic.write_json(path, kept, durable=False)
            return kept[key]
    except (OSError, Timeout):
        # Nothing can be kept here: measured by each process.
        return measure(works(device), device)


def measure(works: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Time the same work in each way; a fraction of a second on two cores.

    The ways take turns, and the best round of each counts, so that other work on the machine
    disturbs all alike.
    """
    best = dict.fromkeys(works, float("inf"))
    for number in range(_ROUNDS):
        for way, work in works.items():
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                best[way] = min(best[way], time.perf_counter() - began)
    return best


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _store() -> Path:
    """File of the timings of this user's machines."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "emcache" / "timings.json"


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        kept = json.loads(path.read_bytes())
        return {
            key: {way: float(seconds) for way, seconds in ways.items()}
            for key, ways in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

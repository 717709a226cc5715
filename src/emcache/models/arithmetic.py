"""Which arithmetic to compute in: float32, or bfloat16 where a device is faster in it.

That a processor has instructions for bfloat16 does not say that they are faster: of two with
AVX512-BF16 one takes twice as long as in float32, the other a third. So it is measured
(:mod:`emcache.models.timings`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from functools import partial

import torch
from torch import nn

from emcache.errors import UsageError
from emcache.models.timings import Choice, Timed

_TOKENS, _CHANNELS = 19 * 19 * 2, 384


class Precision(StrEnum):
    """Arithmetic of the forward pass; parameters stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def pick_precision(name: str, device: torch.device) -> Precision:
    """The named precision; ``auto`` is the one that the device was measured to be faster in.

    Raises:
        UsageError: An unknown name.
    """
    if name == "auto":
        timed = time_precisions(device)
        return Precision.FLOAT32 if timed is None else Precision(timed.fastest)
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


def time_precisions(device: torch.device, *, again: bool = False) -> Timed | None:
    """Seconds of the same work in each; None where a device has no bfloat16 of its own."""
    if not computes_bfloat16(device):
        return None
    return _PRECISION.time(device, again=again)


def _works(device: torch.device) -> dict[str, Callable[[], object]]:
    work = products(device)

    def run(precision: Precision) -> None:
        with torch.inference_mode(), autocast(device, precision):
            work()

    return {precision.value: partial(run, precision) for precision in Precision}


# A tie goes to the exact one.
_PRECISION = Choice("precision", Precision.FLOAT32.value, _works)


def products(device: torch.device) -> Callable[[], object]:
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

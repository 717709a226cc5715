"""How the activations of a head lie in memory: channels last, as tokens are stored, or first.

Which of them convolutions are faster in differs between processors, so it is measured
(:mod:`emcache.models.timings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from emcache.models.arithmetic import Precision, autocast
from emcache.models.timings import Choice, Timed

_LAYOUTS: Mapping[str, torch.memory_format] = {
    "channels-last": torch.channels_last,
    "channels-first": torch.contiguous_format,
}


def pick_layout(device: torch.device, precision: Precision) -> torch.memory_format:
    """How convolutions like their tensors laid out: channels last, or first."""
    timed = time_layouts(device, precision)
    return torch.contiguous_format if timed is None else _LAYOUTS[timed.fastest]


def time_layouts(
    device: torch.device, precision: Precision, *, again: bool = False
) -> Timed | None:
    """Seconds of the same work in each; None for a device that is neither a CPU nor CUDA's."""
    if device.type not in ("cpu", "cuda"):
        return None
    return _CHOICES[precision].time(device, again=again)


def _works(precision: Precision, device: torch.device) -> dict[str, Callable[[], object]]:
    """Two convolutions of a block of the study's head, forward and backward."""
    return {name: _work(device, precision, layout) for name, layout in _LAYOUTS.items()}


def _work(
    device: torch.device, precision: Precision, layout: torch.memory_format
) -> Callable[[], object]:
    with torch.random.fork_rng(devices=[]):
        block = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1, bias=False),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
        )
    block.to(device).to(memory_format=layout)
    maps = torch.ones(2, 128, 38, 38, device=device)
    maps = maps.to(memory_format=layout).requires_grad_()
    wanted = [maps, *block.parameters()]

    def run() -> None:
        with autocast(device, precision):
            out = block(maps)
        torch.autograd.grad(out, wanted, torch.ones_like(out))

    return run


# A tie goes to channels last: tokens lie so, and so do batch norm and GELU in one pass.
_CHOICES = {
    precision: Choice(
        f"layout {precision}",
        "channels-last",
        partial(_works, precision),
    )
    for precision in Precision
}

"""Where to compute, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch

from emcache.errors import UsageError


class Precision(StrEnum):
    """Arithmetic of the forward pass; parameters stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the best there is: CUDA, Apple's MPS, the CPU.

    Raises:
        UsageError: The device is unknown or not there.
    """
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
        raise UsageError(f"{name!r} is no device; expected cpu, cuda, cuda:N or mps.") from None


def pick_precision(name: str, device: torch.device) -> Precision:
    """The named precision; ``auto`` is bfloat16 where the device computes it in hardware.

    Raises:
        UsageError: An unknown name.
    """
    if name == "auto":
        return Precision.BFLOAT16 if _computes_bfloat16(device) else Precision.FLOAT32
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


def pick_layout(device: torch.device) -> torch.memory_format:
    """How convolutions like their tensors laid out: channels last, or first.

    GPUs, and CPUs with AVX-512, are faster channels last, which is also how tokens are stored. On a
    CPU with AVX2 a training step of the study's head takes a fifth longer that way.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda" or (device.type == "cpu" and capability.startswith("AVX512")):
        return torch.channels_last
    return torch.contiguous_format


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # Without emulation: Turing and older would compute it slowly in software.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # On a CPU without these units bfloat16 is emulated, and slower than float32.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001
    return False

"""What computes, and how much memory there is for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from emcache.maintenance.doctor.findings import Finding, Verdict

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_PROCESS_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

# A training step of the study's head at 1022 px on a CPU asks for some 6 GB beside the tokens.
_ENOUGH_MEMORY = 8_000_000_000
_ENOUGH_DEVICE_MEMORY = 4_000_000_000
_SMALLER = (
    "close other programs, or use a smaller `--longest-edge`, `--resident disk`, and with "
    "`train-lora` `--checkpoint` and `--accumulate 2`"
)


def look_at_device() -> Iterator[Finding]:
    """The device that ``--device auto`` takes, whether it computes, and bfloat16 on it."""
    import torch

    from emcache.models.device import Precision, pick_device, pick_precision

    device = pick_device()
    try:
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        yield Finding(
            "device",
            Verdict.FAIL,
            f"{device} is there but does not compute ({str(error).splitlines()[0]}).",
            "compute with `--device cpu`, or install the torch that fits the driver",
        )
        device = torch.device("cpu")
    else:
        yield _device(device.type)
    in_hardware = pick_precision("auto", device) is Precision.BFLOAT16
    yield Finding(
        "bfloat16",
        Verdict.PASS,
        f"{device} computes bfloat16 in hardware, and `--precision auto` uses it."
        if in_hardware
        else f"{device} would emulate bfloat16, so `--precision auto` computes in float32.",
    )


def _device(kind: str) -> Finding:
    import torch

    if kind == "cuda":
        name = torch.cuda.get_device_name()
        return Finding("device", Verdict.PASS, f"cuda: {name}, {torch.cuda.device_count()} in all.")
    words = f"{kind}: {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if kind == "cpu":
        words += f", {torch.backends.cpu.get_cpu_capability()}"
        if _NVIDIA_DRIVER.exists():
            return Finding(
                "device",
                Verdict.WARN,
                f"{words}; there is an NVIDIA driver, but torch {torch.__version__} does not use "
                f"it.",
                "install a torch built for the driver's CUDA (https://pytorch.org/get-started)",
            )
    return Finding("device", Verdict.PASS, f"{words}.")


def look_at_memory() -> Iterator[Finding]:
    """Main memory, within the limit that a job scheduler or container sets."""
    import psutil

    facts = psutil.virtual_memory()
    limit = _group_limit()
    total, free = (min(size, limit or size) for size in (facts.total, facts.available))
    yield _memory("memory", total, free, _ENOUGH_MEMORY)


def look_at_device_memory() -> Iterator[Finding]:
    """Memory of the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield _memory("device-memory", total, free, _ENOUGH_DEVICE_MEMORY)


def _memory(name: str, total: int, free: int, enough: int) -> Finding:
    message = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of them free."
    if free >= enough:
        return Finding(name, Verdict.PASS, message)
    return Finding(
        name,
        Verdict.WARN,
        f"{message} Training at the study's size takes about {enough / 1e9:.0f} GB.",
        _SMALLER,
    )


def _group_limit() -> int | None:
    """Bytes that the process's control group may use; None without a limit."""
    try:
        group = _PROCESS_GROUP.read_text(encoding="utf-8").partition("0::/")[2].splitlines()[0]
        return int((_GROUPS / group / "memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return None

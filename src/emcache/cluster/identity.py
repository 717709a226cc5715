"""What a process computes with, and whether a worker's is what the command expects.

Tokens are keyed by what could change them. A worker with another version of PyTorch would write
other bytes under the same key, so it is refused.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from packaging.version import InvalidVersion, Version

from emcache.errors import ClusterError
from emcache.models.arithmetic import pick_precision
from emcache.models.device import pick_device
from emcache.storage.records import package_versions


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process computes with."""

    host: str
    cores: int
    """That the process may use."""
    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    precision: str
    """What ``auto`` stands for there."""
    versions: dict[str, str] = field(default_factory=dict)

    def on(self, device: str, precision: str) -> Identity:
        """The same process, computing elsewhere."""
        return replace(self, device=device, precision=precision)


def own_identity(device: str = "auto", precision: str = "auto") -> Identity:
    """What this process computes with.

    Raises:
        UsageError: The device is not here.
    """
    chosen = pick_device(device)
    return Identity(
        socket.gethostname(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        chosen.type,
        str(pick_precision(precision, chosen)),
        dict(_versions()),
    )


@cache
def _versions() -> dict[str, str]:
    """Asked before every piece of work, and the same as long as a process lives."""
    return {name: _public(text) for name, text in package_versions().items()}


def _public(text: str) -> str:
    """A version without its local part: ``2.15.0+cpu`` and ``2.15.0+cu130`` are one release."""
    try:
        return Version(text).public
    except InvalidVersion:
        return text


def check_versions(worker: str, found: Identity, expected: Identity) -> None:
    """Refuse a worker with other packages.

    Args:
        worker: Its address.
        found: What it computes with.
        expected: What the command was planned with.

    Raises:
        ClusterError: With every package that differs.
    """
    names = sorted({*found.versions, *expected.versions})
    differing = [
        f"{name} {found.versions.get(name, 'none')} instead of "
        f"{expected.versions.get(name, 'none')}"
        for name in names
        if found.versions.get(name) != expected.versions.get(name)
    ]
    if differing:
        raise ClusterError(
            f"worker {worker} on {found.host} has {', '.join(differing)}; expected what this "
            f"process has, since tokens depend on it: install the same versions there.",
            subject=worker,
        )


def check_visible(worker: str, host: str, marker: Path, content: str) -> None:
    """Refuse a worker that does not see the workspace.

    Args:
        worker: Its address.
        host: Where it runs.
        marker: A file that the command has just written into the workspace.
        content: What it holds.

    Raises:
        ClusterError: It is not there, or another one.
    """
    try:
        # Listing a folder makes some shared file systems look again.
        list(marker.parent.iterdir())
        seen = marker.read_text()
    except OSError as error:
        seen = str(error.strerror)
    if seen != content:
        raise ClusterError(
            f"worker {worker} on {host} does not see the workspace {marker.parent} ({seen:.80}); "
            f"expected it at the same path on every machine: put it on a shared file system.",
            subject=marker.parent,
        )


def use_own_gpu(worker: str) -> None:
    """Have each of several workers on a machine compute on a GPU of its own.

    Args:
        worker: Its name, which ends with its number on the machine.
    """
    digits = worker[len(worker.rstrip("0123456789")) :]
    if digits and "://" not in worker and torch.cuda.is_available():
        torch.cuda.set_device(int(digits) % torch.cuda.device_count())

"""Looking at everything that the library knows of, in the order in which it is shown.

The looks import what they look with inside themselves: a library that cannot be imported is a
finding, too.
"""

from __future__ import annotations

from emcache.maintenance.doctor.findings import Finding, guarded
from emcache.maintenance.doctor.machine import (
    look_at_device,
    look_at_device_memory,
    look_at_hub,
    look_at_memory,
    look_at_packages,
)
from emcache.maintenance.doctor.places import look_at_datasets, look_at_disk, look_at_folders
from emcache.maintenance.doctor.stored import look_at_cache, look_at_leftovers, look_at_locks
from emcache.storage.workspace import Workspace


def examine_machine() -> list[Finding]:
    """Packages, device, memory, and the hub; nothing of it needs a workspace."""
    return [
        *guarded("packages", look_at_packages),
        *guarded("device", look_at_device),
        *guarded("memory", look_at_memory),
        *guarded("device-memory", look_at_device_memory),
        *guarded("hub", look_at_hub),
    ]


def examine_workspace(workspace: Workspace | None, *, thorough: bool = False) -> list[Finding]:
    """Disk, folders, datasets, locks, leftovers and cache; nothing is changed.

    Args:
        workspace: None looks at the disk of the current folder alone.
        thorough: Compare every file of the cache with its checksum.
    """
    findings = guarded("disk", lambda: look_at_disk(workspace))
    if workspace is None:
        return findings
    return [
        *findings,
        *guarded("folders", lambda: look_at_folders(workspace)),
        *guarded("datasets", lambda: look_at_datasets(workspace)),
        *guarded("locks", lambda: look_at_locks(workspace)),
        *guarded("leftovers", lambda: look_at_leftovers(workspace)),
        *guarded("cache", lambda: look_at_cache(workspace, thorough=thorough)),
    ]

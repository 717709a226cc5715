"""All that this machine's way of computing was chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from emcache.models.arithmetic import pick_precision, time_precisions
from emcache.models.layouts import time_layouts
from emcache.models.threads import time_threads
from emcache.models.timings import Timed


def timings(device: torch.device, *, again: bool = False) -> Mapping[str, Timed | None]:
    """Of ``threads``, ``arithmetic`` and ``layout``; None where there is no choice.

    Args:
        device: To compute on.
        again: Whether they are measured anew; else they were, once, or are now.
    """
    # In this order: those after the first depend on the number of threads.
    return {
        "threads": time_threads(again=again) if device.type == "cpu" else None,
        "arithmetic": time_precisions(device, again=again),
        "layout": time_layouts(device, pick_precision("auto", device), again=again),
    }


def timing_facts(device: torch.device) -> dict[str, Any]:
    """What a record says of them: seconds of the same work in each way, or None.

    Args:
        device: One that may be elsewhere, as those of workers; then nothing is known of it.
    """
    is_here = device.type != "cuda" or torch.cuda.is_available()
    known = timings(device) if is_here else dict.fromkeys(("threads", "arithmetic", "layout"))
    return {
        f"{name}_seconds": None if timed is None else dict(timed.seconds)
        for name, timed in known.items()
    }

"""Copies between main memory and a device that do not keep a GPU waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor


def stack_on(tensors: Sequence[Tensor], device: torch.device) -> Shaped[Tensor, "batch ..."]:
    """Tensors of one shape as one, on a device.

    To a GPU they are copied from pinned memory, without waiting for the copy. PyTorch keeps that
    memory until the copy is done.
    """
    if device.type != "cuda" or tensors[0].device.type != "cpu":
        return torch.stack(list(tensors)).to(device)
    shape = (len(tensors), *tensors[0].shape)
    pinned = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned).to(device, non_blocking=True)


def begin_to_fetch(
    tensors: Mapping[str, Tensor], device: torch.device
) -> Callable[[], dict[str, Tensor]]:
    """Begin to copy tensors from a device to main memory.

    Args:
        tensors: By name, of any shapes.
        device: Where they are.

    Returns:
        A function that waits for the copies and returns them. Until it is called, a GPU can be
        given more work.
    """
    if device.type != "cuda":
        here = {name: tensor.cpu() for name, tensor in tensors.items()}
        return lambda: here
    here = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
    copied = torch.cuda.current_stream(device).record_event()

    def wait() -> dict[str, Tensor]:
        copied.synchronize()
        return here

    return wait

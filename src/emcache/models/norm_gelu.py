"""Batch norm and the GELU after it in one pass over memory, on a processor.

The same function as PyTorch's two, forward and backward, to within rounding. What lies between them
is not kept for the way back, so a training holds less memory.

The kernels run in PyTorch's own threads. In others they would share the cores with them: for some
time after their work these wait for more at full speed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def norm_gelu(
    values: Float[Tensor, "batch channel row col"],
    mean: Float[Tensor, " channel"],
    var: Float[Tensor, " channel"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    training: bool,
    momentum: float,
    eps: float,
) -> Float[Tensor, "batch channel row col"]:
    """Normalise by the batch while training, else by the running statistics; then GELU.

    Args:
        values: Of any layout and device; one pass does both where they lie channels last in main
            memory, in float32 or bfloat16.
        mean: Running mean; training changes it.
        var: Running variance, without bias; training changes it.
        weight: Scale.
        bias: Shift.
        training: Which of the two.
        momentum: Share of a batch in the running statistics.
        eps: What is added to the variance.
    """
    if not _suits(values, weight, training):
        normed = functional.batch_norm(values, mean, var, weight, bias, training, momentum, eps)
        return functional.gelu(normed)
    if not training:
        with torch.no_grad():
            scale = weight * torch.rsqrt(var + eps)
            return _activate(values, mean, scale, bias)
    activated: Tensor
    activated, batch_mean, batch_var = _NormGELU.apply(values, weight, bias, eps)
    with torch.no_grad():
        pixels = values.numel() // len(weight)
        mean.lerp_(batch_mean, momentum)
        var.lerp_(batch_var * (pixels / (pixels - 1)), momentum)
    return activated


def _suits(values: Tensor, weight: Tensor, training: bool) -> bool:
    return (
        values.device.type == "cpu"
        and _threads() is not None
        and values.dtype in (torch.float32, torch.bfloat16)
        and weight.dtype == torch.float32
        and values.numel() > len(weight)  # more than a pixel, or there is no variance
        and values.is_contiguous(memory_format=torch.channels_last)
        and (training or not torch.is_grad_enabled())
    )


class _NormGELU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels = values.numel() // len(weight)
        near = values[0, :, 0, 0].float()
        first, second = _sums("MOMENTS", values, [near]) / pixels
        mean = near + first.float()
        var = (second - first.square()).clamp_min(0).float()
        deviation = torch.rsqrt(var + eps)
        scale = weight * deviation
        ctx.save_for_backward(values, mean, deviation, scale, bias)
        ctx.mark_non_differentiable(mean, var)
        return _activate(values, mean, scale, bias), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        values, mean, deviation, scale, bias = ctx.saved_tensors
        pixels = values.numel() // len(mean)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        own = torch.empty_like(values)
        sums = _sums("DIFFERENTIATE", values, [mean, scale, bias], own, gradient)
        plain, moment = sums.float()
        # What the values' mean and variance take away again, since they depend on the values too.
        slope = -scale * deviation.square() * moment / pixels
        constant = -scale * plain / pixels
        _run("COMBINE", values, [mean, scale, slope, constant], own)
        return own, moment * deviation, plain, None


def _activate(values: Tensor, mean: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(values)
    _run("ACTIVATE", values, [mean, scale, bias], out)
    return out


def _sums(
    kernel: str,
    values: Float[Tensor, "batch channel row col"],
    factors: Sequence[Float[Tensor, " channel"]],
    out: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Float[Tensor, "2 channel"]:
    """Run a kernel that makes sums; they are in float64."""
    from emcache.models.kernels import PIECES

    sums = torch.empty(PIECES, 2, values.shape[1], dtype=torch.float64)
    _run(kernel, values, factors, out, gradient, sums)
    return sums.sum(dim=0)


def _run(
    kernel: str,
    values: Float[Tensor, "batch channel row col"],
    factors: Sequence[Float[Tensor, " channel"]],
    out: Tensor | None = None,
    gradient: Tensor | None = None,
    sums: Tensor | None = None,
) -> None:
    """Run a kernel in PyTorch's threads."""
    from emcache.models import kernels  # what compiles them takes half a second to import

    channels = values.shape[1]
    stacked = torch.stack([*factors, *[factors[0]] * (kernels.FACTORS - len(factors))])
    job = kernels.Job(
        kernel=kernels.Kernel[kernel],
        channels=channels,
        values=values.numel(),
        x=values.data_ptr(),
        gradient=_address(gradient),
        out=_address(out),
        factors=stacked.data_ptr(),
        sums=_address(sums),
    )
    numbers = (ctypes.c_int64 * len(job))(*job)
    address = kernels.address(is_bfloat16=values.dtype == torch.bfloat16)
    in_threads = _threads()
    assert in_threads is not None  # noqa: S101 - _suits sees to it
    in_threads(address, ctypes.addressof(numbers), torch.get_num_threads(), 0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@lru_cache
def _threads() -> Callable[[int, int, int, int], None] | None:
    """What calls a function of C in each of PyTorch's threads: function, argument, threads, flags.

    It is ``GOMP_parallel`` of the OpenMP library that PyTorch has loaded; None where it has none.
    """
    try:
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        function = library.GOMP_parallel
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function

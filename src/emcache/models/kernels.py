"""Kernels of batch norm with the GELU after it, compiled by Numba.

PyTorch computes the two one after the other, each with passes over memory of its own, and most of
their time is the error function's. Here one pass does both, over activations that lie channels last
(pixel, channel), in float32 or bfloat16. The pixels are taken in pieces whose number is always the
same, so results do not depend on the number of threads.

Phi, the normal distribution function, is formula 7.1.26 of Abramowitz and Stegun, *Handbook of
Mathematical Functions* (1964), whose error is below 1.5e-7; exp is ``expf`` of the Cephes library.
"""

# ruff: noqa: ARG001, ARG005 - Numba calls by name what describes a type

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, overload

PIECES = 64
"""In how many pieces the pixels are taken."""


class Kernel(IntEnum):
    """What is done with each piece; (channel,) float32 are the factors of each."""

    MOMENTS = 0
    """Sums of x - near, and of its square. Factors: near, a value near the mean."""
    ACTIVATE = 1
    """out = GELU((x - mean) * scale + bias). Factors: mean, scale, bias."""
    DIFFERENTIATE = 2
    """out = gradient * GELU'((x - mean) * scale + bias), and the sums of it, and of it times
    x - mean. Factors: mean, scale, bias."""
    COMBINE = 3
    """out = scale * out + slope * (x - mean) + constant. Factors: mean, scale, slope, constant."""


class Job(NamedTuple):
    """What a kernel is given, as an array of int64: numbers, and addresses."""

    kernel: int
    pixels: int
    channels: int
    x: int
    """(pixel, channel)."""
    gradient: int
    """(pixel, channel), or 0 where the kernel reads none."""
    out: int
    """(pixel, channel), or 0 where the kernel makes none."""
    factors: int
    """(:data:`FACTORS`, channel) float32."""
    sums: int
    """(piece, 2, channel) float64, or 0 where the kernel makes none."""
    piece: int = 0
    """Number of the next piece; threads take them one by one."""


_F = TypeVar("_F", bound=Callable[..., Any])
_f32, _i16, _i32, _u32 = np.float32, np.int16, np.int32, np.uint32
_MOMENTS, _ACTIVATE, _DIFFERENTIATE, _ = map(int, Kernel)
FACTORS = 4
"""How many factors a job has room for."""
_LENGTH = len(Job._fields)
_KERNEL, _PIXELS, _CHANNELS, _X, _GRADIENT, _OUT, _FACTORS, _SUMS, _PIECE = range(_LENGTH)
_ROWS = 64
"""Pixels whose sums are added up in float32, before they go into a sum in float64."""
_OPTIONS: dict[str, Any] = {
    # What lets a compiler reorder sums and fuse products; NaN and infinity stay what they are.
    "fastmath": {"contract", "reassoc", "arcp", "nsz", "afn"},
    "error_model": "numpy",
}


def _compiled(function: _F) -> _F:
    return cast("_F", numba.njit(**_OPTIONS)(function))


def _inlined(function: _F) -> _F:
    return cast("_F", numba.njit(inline="always", **_OPTIONS)(function))


@no_type_check
@intrinsic
def _pointer(_, address):
    def build(_, builder, __, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), build


@no_type_check
@intrinsic
def _take(_, job):
    """Number of a piece that no other thread has taken."""

    def build(_, builder, __, arguments):
        numbers = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        counter = builder.gep(numbers, [ir.Constant(ir.IntType(64), _PIECE)])
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.voidptr), build


@no_type_check
def _load(value):
    """A value as float32; int16 stands for the bits of a bfloat16."""


@no_type_check
def _store(number, like):
    """A float32 as a value of the type of another, rounded to even."""


@no_type_check
@overload(_load, inline="always")
def _load_overload(value):
    if value == types.int16:
        return lambda value: _i32(_i32(value) << _i32(16)).view(_f32)
    return lambda value: value


@no_type_check
@overload(_store, inline="always")
def _store_overload(number, like):
    if like == types.int16:

        def rounded(number, like):
            bits = _u32(_f32(number).view(_u32))
            odd = _u32(_u32(bits >> _u32(16)) & _u32(1))
            return _i16(_u32(_u32(bits + _u32(0x7FFF)) + odd) >> _u32(16))

        return rounded
    return lambda number, like: number


@_inlined
@no_type_check
def _exp(x):
    """Of a number that is not positive."""
    x = max(x, _f32(-87.0))
    n = np.floor(x * _f32(1.4426950408889634) + _f32(0.5))
    r = x - n * _f32(0.693359375) - n * _f32(-2.12194440e-4)
    p = _f32(1.9875691500e-4)
    p = p * r + _f32(1.3981999507e-3)
    p = p * r + _f32(8.3334519073e-3)
    p = p * r + _f32(4.1665795894e-2)
    p = p * r + _f32(1.6666665459e-1)
    p = p * r + _f32(5.0000001201e-1)
    power = _i32(_i32(_i32(n) + _i32(127)) << _i32(23)).view(_f32)
    return (p * r * r + r + _f32(1.0)) * power


@_inlined
@no_type_check
def _phi(z):
    """Normal distribution function, and exp(-z^2 / 2)."""
    t = _f32(1.0) / (_f32(1.0) + _f32(0.3275911 * 0.7071067811865476) * abs(z))
    bell = _exp(_f32(-0.5) * z * z)
    p = _f32(1.061405429)
    p = p * t + _f32(-1.453152027)
    p = p * t + _f32(1.421413741)
    p = p * t + _f32(-0.284496736)
    p = p * t + _f32(0.254829592)
    tail = _f32(0.5) * p * t * bell
    return (_f32(1.0) - tail if z >= _f32(0.0) else tail), bell


@_inlined
@no_type_check
def _move(part, total):
    """Add sums of some pixels to those of all, and begin anew."""
    for c in range(len(part)):
        total[c] += part[c]
        part[c] = 0


@_compiled
@no_type_check
def _moments(x, near, sums):
    channels = x.shape[1]
    once, twice = np.zeros(channels, _f32), np.zeros(channels, _f32)
    sums[:] = 0
    for start in range(0, len(x), _ROWS):
        for row in range(start, min(start + _ROWS, len(x))):
            for c in range(channels):
                away = _load(x[row, c]) - near[c]
                once[c] += away
                twice[c] += away * away
        _move(once, sums[0])
        _move(twice, sums[1])


@_compiled
@no_type_check
def _activate(x, out, mean, scale, bias):
    for row in range(len(x)):
        for c in range(x.shape[1]):
            z = (_load(x[row, c]) - mean[c]) * scale[c] + bias[c]
            phi, _ = _phi(z)
            out[row, c] = _store(z * phi, out[row, c])


@_compiled
@no_type_check
def _differentiate(x, gradient, out, mean, scale, bias, sums):
    channels = x.shape[1]
    once, twice = np.zeros(channels, _f32), np.zeros(channels, _f32)
    sums[:] = 0
    for start in range(0, len(x), _ROWS):
        for row in range(start, min(start + _ROWS, len(x))):
            for c in range(channels):
                away = _load(x[row, c]) - mean[c]
                z = away * scale[c] + bias[c]
                phi, bell = _phi(z)
                own = _load(gradient[row, c]) * (phi + z * bell * _f32(0.3989422804014327))
                once[c] += own
                twice[c] += own * away
                out[row, c] = _store(own, out[row, c])
        _move(once, sums[0])
        _move(twice, sums[1])


@_compiled
@no_type_check
def _combine(x, out, mean, scale, slope, constant):
    for row in range(len(x)):
        for c in range(x.shape[1]):
            along = slope[c] * (_load(x[row, c]) - mean[c])
            own = scale[c] * _load(out[row, c]) + along + constant[c]
            out[row, c] = _store(own, out[row, c])


@_compiled
@no_type_check
def _work(job, numbers, dtype):
    shape = (numbers[_PIXELS], numbers[_CHANNELS])
    x = carray(_pointer(numbers[_X]), shape, dtype)
    gradient = carray(_pointer(numbers[_GRADIENT]), shape, dtype)
    out = carray(_pointer(numbers[_OUT]), shape, dtype)
    factors = carray(_pointer(numbers[_FACTORS]), (FACTORS, shape[1]), _f32)
    a, b, c, d = factors[0], factors[1], factors[2], factors[3]
    sums = carray(_pointer(numbers[_SUMS]), (PIECES, 2, shape[1]), np.float64)
    kernel = numbers[_KERNEL]
    while True:
        piece = _take(job)
        if piece >= PIECES:
            return
        first, last = shape[0] * piece // PIECES, shape[0] * (piece + 1) // PIECES
        if kernel == _MOMENTS:
            _moments(x[first:last], a, sums[piece])
        elif kernel == _ACTIVATE:
            _activate(x[first:last], out[first:last], a, b, c)
        elif kernel == _DIFFERENTIATE:
            given = gradient[first:last]
            _differentiate(x[first:last], given, out[first:last], a, b, c, sums[piece])
        else:
            _combine(x[first:last], out[first:last], a, b, c, d)


@no_type_check
def _float32(job):
    _work(job, carray(job, _LENGTH, np.int64), _f32)


@no_type_check
def _bfloat16(job):
    _work(job, carray(job, _LENGTH, np.int64), _i16)


@lru_cache
def address(*, is_bfloat16: bool) -> int:
    """Address of a function of C that does pieces of a job until none is left.

    It takes the address of a :class:`Job`; any number of threads may call it with the same one.
    """
    function = _bfloat16 if is_bfloat16 else _float32
    signature = types.void(types.voidptr)
    try:
        compiled = numba.cfunc(signature, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep compiled code in
        compiled = numba.cfunc(signature, **_OPTIONS)(function)
    return int(compiled.address)

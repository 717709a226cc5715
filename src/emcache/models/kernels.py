"""Kernels of batch norm with the GELU after it, compiled by Numba.

PyTorch computes the two one after the other, each with passes over memory of its own, and most of
their time is the error function's. Here one pass does both, over activations that lie channels last
(pixel, channel), in float32 or bfloat16. They are gone through line by line: as many pixels as have
about 512 values, so that loops are long however few the channels are. The lines are taken in pieces
whose number is always the same, so results do not depend on the number of threads.

Phi, the normal distribution function, and the derivative of z Phi(z) are polynomials that
interpolate at Chebyshev's points; their errors in float32 are below 3e-7, beyond the edges 6e-7.
"""

# ruff: noqa: ARG001, ARG005 - Numba calls by name what describes a type

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from math import erfc, exp, pi, sqrt
from typing import Any, NamedTuple, TypeVar, cast, no_type_check

import numba
import numpy as np
from llvmlite import binding, ir
from numba import carray, types
from numba.extending import intrinsic, overload
from numpy.polynomial import chebyshev

PIECES = 64
"""In how many pieces the lines are taken."""


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
    channels: int
    values: int
    """How many there are in x."""
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
_KERNEL, _CHANNELS, _VALUES, _X, _GRADIENT, _OUT, _FACTORS, _SUMS, _PIECE = range(_LENGTH)
_LINE = 512
"""Values of a line, or somewhat fewer: it has whole pixels, and at least one."""
_LINES = 64
"""Lines whose sums are added up in float32, before they go into a sum in float64."""
_OPTIONS: dict[str, Any] = {
    # What lets a compiler reorder sums and fuse products; NaN and infinity stay what they are.
    "fastmath": {"contract", "reassoc", "arcp", "nsz", "afn"},
    "error_model": "numpy",
}


def _use_whole_registers() -> None:
    """Let LLVM use whole registers of AVX-512; for some processors it takes half of each.

    It holds for all that Numba compiles from now on in this process, and has no effect where Numba
    has compiled something before.
    """
    features = binding.get_host_cpu_features()
    if features.get("avx512f") and numba.config.CPU_FEATURES is None:
        numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"


_use_whole_registers()


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


_EDGE = 5.5
"""From here on the normal distribution function is 0 or 1, to 2e-8."""


def _phi(z: float) -> float:
    return 0.5 * erfc(-z / sqrt(2))


def _slope(z: float) -> float:
    """Derivative of z * Phi(z)."""
    return _phi(z) + z * exp(-z * z / 2) / sqrt(2 * pi)


def _polynomial(function: Callable[[float], float], degree: int) -> list[float]:
    """Coefficients for (function(z) - 1/2) / z, which is even, in t = 2 (z / edge)^2 - 1.

    The constant comes first.
    """
    t = chebyshev.chebpts1(degree + 1)
    values = [(function(z) - 0.5) / z for z in _EDGE * np.sqrt((t + 1) / 2)]
    through_all = chebyshev.chebfit(t, values, degree)
    return [float(c) for c in chebyshev.cheb2poly(through_all)]


def _evaluation(function: Callable[[float], float], degree: int) -> Any:
    """A function of t for the compiler, by Horner's scheme, even and odd powers apart.

    The degree must be odd.
    """
    coefficients = _polynomial(function, degree)
    fused = ["contract"]

    @no_type_check
    @intrinsic
    def evaluate(_, t):
        def build(_, builder, __, arguments):
            (t,) = arguments
            square = builder.fmul(t, t)
            terms = [ir.Constant(ir.FloatType(), float(np.float32(c))) for c in coefficients]
            even, odd = terms[-2], terms[-1]
            for first, second in zip(terms[-4::-2], terms[-3::-2], strict=True):
                even = builder.fadd(builder.fmul(even, square, flags=fused), first, flags=fused)
                odd = builder.fadd(builder.fmul(odd, square, flags=fused), second, flags=fused)
            return builder.fadd(builder.fmul(odd, t, flags=fused), even, flags=fused)

        return types.float32(types.float32), build

    return evaluate


_phi_part, _slope_part = _evaluation(_phi, 15), _evaluation(_slope, 17)


@_inlined
@no_type_check
def _bounded(z):
    """Return z between the edges, and t."""
    between = min(max(z, _f32(-_EDGE)), _f32(_EDGE))
    return between, between * between * _f32(2 / _EDGE**2) - _f32(1)


@_inlined
@no_type_check
def _move(part, total):
    """Add sums of some lines to those of all, and begin anew."""
    channels = len(total)
    for first in range(0, len(part), channels):
        for c in range(channels):
            total[c] += part[first + c]
            part[first + c] = 0


@_compiled
@no_type_check
def _moments(x, near, once, twice):
    for i in range(len(x)):
        away = _load(x[i]) - near[i]
        once[i] += away
        twice[i] += away * away


@_compiled
@no_type_check
def _activate(x, out, mean, scale, bias):
    for i in range(len(x)):
        z = (_load(x[i]) - mean[i]) * scale[i] + bias[i]
        between, t = _bounded(z)
        out[i] = _store(z * (_f32(0.5) + between * _phi_part(t)), out[i])


@_compiled
@no_type_check
def _differentiate(x, gradient, out, mean, scale, bias, once, twice):
    for i in range(len(x)):
        away = _load(x[i]) - mean[i]
        between, t = _bounded(away * scale[i] + bias[i])
        own = _load(gradient[i]) * (_f32(0.5) + between * _slope_part(t))
        once[i] += own
        twice[i] += own * away
        out[i] = _store(own, out[i])


@_compiled
@no_type_check
def _combine(x, out, mean, scale, slope, constant):
    for i in range(len(x)):
        along = slope[i] * (_load(x[i]) - mean[i])
        own = scale[i] * _load(out[i]) + along + constant[i]
        out[i] = _store(own, out[i])


@_compiled
@no_type_check
def _with_sums(kernel, x, gradient, out, factors, sums):
    line = factors.shape[1]
    once, twice = np.zeros(line, _f32), np.zeros(line, _f32)
    for first in range(0, len(x), line):
        own = slice(first, min(first + line, len(x)))
        if kernel == _MOMENTS:
            _moments(x[own], factors[0], once, twice)
        else:
            mean, scale, bias = factors[0], factors[1], factors[2]
            _differentiate(x[own], gradient[own], out[own], mean, scale, bias, once, twice)
        if own.stop % (_LINES * line) == 0 or own.stop == len(x):
            _move(once, sums[0])
            _move(twice, sums[1])


@_compiled
@no_type_check
def _without_sums(kernel, x, out, factors):
    line = factors.shape[1]
    for first in range(0, len(x), line):
        own = slice(first, min(first + line, len(x)))
        if kernel == _ACTIVATE:
            _activate(x[own], out[own], factors[0], factors[1], factors[2])
        else:
            _combine(x[own], out[own], factors[0], factors[1], factors[2], factors[3])


@_compiled
@no_type_check
def _work(job, numbers, dtype):
    kernel, channels, count = numbers[_KERNEL], numbers[_CHANNELS], numbers[_VALUES]
    line = max(1, _LINE // channels) * channels
    x = carray(_pointer(numbers[_X]), count, dtype)
    gradient = carray(_pointer(numbers[_GRADIENT]), count, dtype)
    out = carray(_pointer(numbers[_OUT]), count, dtype)
    given = carray(_pointer(numbers[_FACTORS]), (FACTORS, channels), _f32)
    factors = np.empty((FACTORS, line), _f32)
    for first in range(0, line, channels):
        factors[:, first : first + channels] = given
    sums = carray(_pointer(numbers[_SUMS]), (PIECES, 2, channels), np.float64)
    lines = (count + line - 1) // line
    while True:
        piece = _take(job)
        if piece >= PIECES:
            return
        own = slice(
            lines * piece // PIECES * line, min(lines * (piece + 1) // PIECES * line, count)
        )
        if kernel in (_MOMENTS, _DIFFERENTIATE):
            sums[piece] = 0
            if own.start < own.stop:
                _with_sums(kernel, x[own], gradient[own], out[own], factors, sums[piece])
        else:
            _without_sums(kernel, x[own], out[own], factors)


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

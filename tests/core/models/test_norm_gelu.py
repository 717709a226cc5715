"""Batch norm with the GELU after it, against PyTorch's two in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import emcache.models.norm_gelu
from emcache.models import kernels
from emcache.models.heads import DeconvHead
from emcache.models.norm_gelu import norm_gelu

EPS = 1e-5

pytestmark = pytest.mark.skipif(
    emcache.models.norm_gelu._threads() is None,
    reason="PyTorch has its threads from another library here",
)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


class Case:
    """Values, and everything that belongs to them."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, mean: float) -> None:
        generator = torch.Generator().manual_seed(0)
        channels = shape[1]
        level = torch.linspace(0.5, 2, channels)
        values = torch.randn(shape, generator=generator) * 2 + mean
        self.values = values.to(dtype, memory_format=torch.channels_last)
        self.gradient = torch.randn(shape, generator=generator).to(dtype)
        self.weight, self.bias = level, level - 1
        self.mean, self.var = level * 3, level

    def given(self, dtype: torch.dtype | None) -> list[Tensor]:
        """Values, weight and bias, and the running statistics."""
        tensors = [self.values, self.weight, self.bias, self.mean, self.var]
        own = [tensor.clone() if dtype is None else tensor.to(dtype) for tensor in tensors]
        return [*(tensor.requires_grad_() for tensor in own[:3]), *own[3:]]

    def exact(self, training: bool, dtype: torch.dtype | None = torch.float64) -> list[Tensor]:
        values, weight, bias, mean, var = self.given(dtype)
        normed = functional.batch_norm(values, mean, var, weight, bias, training, 0.3, EPS)
        out = functional.gelu(normed)
        gradients = torch.autograd.grad(out, [values, weight, bias], self.gradient.to(out.dtype))
        return [out, *gradients, mean, var]

    def ours(self) -> list[Tensor]:
        values, weight, bias, mean, var = self.given(None)
        out = norm_gelu(values, mean, var, weight, bias, True, 0.3, EPS)
        gradients = torch.autograd.grad(out, [values, weight, bias], self.gradient)
        return [out, *gradients, mean, var]


SHAPES = [(2, 64, 19, 19), (1, 3, 5, 7), (2, 17, 40, 33), (1, 512, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 50.0, -2000.0])
def test_training_in_float32(shape: tuple[int, int, int, int], mean: float, threads: int) -> None:
    case = Case(shape, torch.float32, mean)
    every = zip(case.ours(), case.exact(True, None), case.exact(True), strict=True)
    for got, pytorchs, exact in every:
        # Where there are two pixels, or the mean is large, float32 itself is far from exact.
        error = (got.double() - exact).norm()
        assert error < 2e-7 * exact.norm() + 1.5 * (pytorchs.double() - exact).norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_training_in_bfloat16(shape: tuple[int, int, int, int], threads: int) -> None:
    case = Case(shape, torch.bfloat16, 1.0)
    for got, exact in zip(case.ours(), case.exact(training=True), strict=True):
        # Values and their gradients are rounded to 8 bits, and all that is summed up is not.
        limit = 4e-3 if got.dtype == torch.bfloat16 else 2e-6
        assert (got.double() - exact).norm() < limit * exact.norm()


def test_rounding_to_bfloat16_is_pytorchs() -> None:
    values = torch.linspace(-8, 8, 4096).reshape(1, 16, 16, 16)
    values = values.to(torch.bfloat16, memory_format=torch.channels_last)
    zero, one = torch.zeros(16), torch.ones(16)
    with torch.no_grad():
        got = norm_gelu(values, zero, one, one, zero, False, 0.1, 0.0)
    exact = functional.gelu(values.double()).bfloat16()
    # A value beside the middle between two neighbours may go either way.
    assert (got == exact)[values > -2].float().mean() > 0.995
    torch.testing.assert_close(got, exact, rtol=2**-7, atol=1e-6)


def test_far_values_are_as_exact_as_near_ones() -> None:
    values = torch.linspace(-40, 40, 8192).reshape(1, 8, 32, 32)
    values = values.contiguous(memory_format=torch.channels_last)
    zero, one = torch.zeros(8), torch.ones(8)
    with torch.no_grad():
        got = norm_gelu(values, zero, one, one, zero, False, 0.1, 0.0)
    exact = functional.gelu(values.double())
    assert ((got.double() - exact).abs() / values.double().abs().clamp_min(1)).max() < 3e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inference(dtype: torch.dtype) -> None:
    case = Case((2, 24, 9, 11), dtype, 1.0)
    values, weight, bias, mean, var = case.given(None)
    with torch.inference_mode():
        got = norm_gelu(values, mean, var, weight, bias, False, 0.3, EPS)
    limit = 4e-3 if dtype == torch.bfloat16 else 2e-6
    exact = case.exact(training=False)[0]
    assert (got.double() - exact).norm() < limit * exact.norm()
    assert torch.equal(mean, case.mean)
    assert got.is_contiguous(memory_format=torch.channels_last)
    # With gradients it is PyTorch's, which has them.
    out = norm_gelu(values, mean, var, weight, bias, False, 0.3, EPS)
    (gradient,) = torch.autograd.grad(out, [values], case.gradient)
    error = gradient.double() - case.exact(training=False)[1]
    assert error.norm() < 1e-2 * gradient.double().norm()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    case = Case((2, 64, 38, 38), torch.bfloat16, 1.0)
    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(case.ours())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_layouts_and_places_that_it_does_not_know_get_pytorchs_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case((2, 8, 6, 5), torch.float32, 1.0)
    ours = case.ours()
    case.values = case.values.contiguous()
    first = case.ours()
    monkeypatch.setattr(emcache.models.norm_gelu, "_threads", lambda: None)
    case.values = case.values.contiguous(memory_format=torch.channels_last)
    for results in (first, case.ours()):
        for got, expected in zip(results, ours, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    pixel = torch.ones(1, 4, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_gelu(pixel, *torch.ones(4, 4), True, 0.1, EPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(dtype: torch.dtype, bad: float) -> None:
    case = Case((1, 16, 8, 8), dtype, 0.0)
    case.values[0, 3, 4, 4] = bad
    out, gradient = case.ours()[:2]
    assert out[:, 3].isnan().all()
    assert gradient[:, 3].isnan().all()
    others = [channel for channel in range(16) if channel != 3]
    assert out[:, others].isfinite().all()
    assert gradient[:, others].isfinite().all()


def test_only_the_values_are_kept_for_the_way_back() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    values, weight, bias, mean, var = Case((2, 64, 20, 20), torch.float32, 0.0).given(None)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        norm_gelu(values, mean, var, weight, bias, True, 0.3, EPS)
    assert [t.numel() for t in kept if t.numel() > 64] == [values.numel()]


def test_gradients_of_any_layout_and_weights_that_stay() -> None:
    case = Case((2, 8, 6, 5), torch.float32, 1.0)
    values, weight, bias, mean, var = case.given(None)
    weight.requires_grad_(False)
    out = norm_gelu(values, mean, var, weight, bias, True, 0.3, EPS)
    (plain,) = torch.autograd.grad(out.sum(), [values], retain_graph=True)
    (first,) = torch.autograd.grad(out, [values], torch.ones(2, 8, 6, 5))
    assert torch.equal(plain, first)
    assert plain.abs().max() > 0


def test_weights_of_a_head_keep_their_names() -> None:
    names = [name for name, _ in DeconvHead(8).named_parameters()]
    assert names[:5] == [
        "stem.0.weight",
        "stem.1.weight",
        "stem.1.bias",
        "blocks.0.0.weight",
        "blocks.0.1.weight",
    ]
    assert names[6:9] == ["blocks.0.3.weight", "blocks.0.4.weight", "blocks.0.4.bias"]


def test_without_a_folder_for_compiled_code_it_is_compiled_by_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, asked = numba.cfunc, []

    def without_folder(*given: object, cache: bool = False, **options: object) -> object:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*given, **options)

    monkeypatch.setattr(numba, "cfunc", without_folder)
    kernels.address.cache_clear()
    case = Case((2, 16, 9, 9), torch.float32, 1.0)
    for got, exact in zip(case.ours(), case.exact(training=True), strict=True):
        assert (got.double() - exact).norm() < 2e-6 * exact.norm()
    assert asked == [True, False]
    kernels.address.cache_clear()

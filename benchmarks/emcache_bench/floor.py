"""How near a training step is to what its products and its memory need on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from emcache.models.arithmetic import autocast, pick_precision
from emcache.models.device import kept_memory
from emcache_bench.head_worker import DIM, PATCH, Ours
from emcache_bench.ratio import Measurement, Target, of_rounds
from emcache_bench.setting import Setting
from emcache_bench.timing import Work, interleave

_EDGE, _QUICK_EDGE, _BATCH = 266, 126, 2
# Of an activation between two convolutions: forward, batch norm reads it for its moments, reads it
# again and GELU writes it; backward, the gradient's sums read it and the gradient, and the gradient
# itself reads both and is written. A copy reads once and writes once.
_COPIES = 4
_PRODUCT = 1024


def measure_floor(setting: Setting) -> Iterator[Measurement]:
    """The head's step at 266 px against its floor; at 126 px where it must be quick."""
    edge = _QUICK_EDGE if setting.quick else _EDGE
    with kept_memory():
        stages = _Stages(edge // PATCH, setting.device)
        times = interleave(stages.works(), setting.rounds, setting.device)
    device = setting.device.type
    step, convolutions, copies = (times[name] for name in ("step", "convolutions", "copies"))
    yield of_rounds(
        f"head-step-floor-{edge}",
        f"(convolutions alone + memory that batch norm and GELU must move) / step, {edge} px",
        [(a + b) / c for a, b, c in zip(convolutions, copies, step, strict=True)],
        Target(0.85, at_least=True),
        {"convolutions": convolutions, "memory": copies, "step": step},
        device=device,
    )
    rates = [stages.flop / a / (2 * _PRODUCT**3 / b) for a, b in _pairs(times)]
    yield of_rounds(
        f"convolution-rate-{edge}",
        f"operations a second of the step's convolutions / of a product of {_PRODUCT} squared",
        rates,
        None,
        {"convolutions": convolutions, "product": times["product"]},
        device=device,
    )


def _pairs(times: dict[str, list[float]]) -> Iterator[tuple[float, float]]:
    yield from zip(times["convolutions"], times["product"], strict=True)


class _Stages:
    """A step of the study's head, and its parts by themselves."""

    def __init__(self, grid: int, device: torch.device) -> None:
        self._device = device
        self._precision = pick_precision("auto", device)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(_BATCH, grid, grid, DIM, generator=generator).half()
        side = grid * PATCH
        masks = (torch.rand(_BATCH, side, side, generator=generator) < 0.2).to(torch.uint8)
        self._ours = Ours(tokens, masks, device)
        self._layers: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._between: list[Tensor] = []
        self.flop = 0.0
        hooks = [
            layer.register_forward_hook(self._note)
            for layer in self._ours.head.modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)
        ]
        self._ours.step()
        for hook in hooks:
            hook.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            self._between.append(torch.empty_like(output))
            return
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)  # noqa: S101 - what was hooked
        given = inputs[0].detach().clone()
        # Tokens from the cache ask for no gradient.
        given.requires_grad_(inputs[0].requires_grad)
        self._layers.append((layer, given, torch.ones_like(output)))
        pixels = output.numel() // output.shape[1]
        if isinstance(layer, nn.ConvTranspose2d):
            pixels = given.numel() // given.shape[1]
        passes = 3 if given.requires_grad else 2
        self.flop += passes * 2.0 * pixels * layer.weight.numel()

    def works(self) -> dict[str, Work]:
        """What is timed, by name."""
        dtype = self._layers[-1][2].dtype
        square = torch.ones(_PRODUCT, _PRODUCT, device=self._device, dtype=dtype)
        return {
            "step": self._ours.step,
            "convolutions": self._convolve,
            "copies": self._copy,
            "product": lambda: square @ square,
        }

    def _convolve(self) -> None:
        for layer, given, gradient in self._layers:
            with autocast(self._device, self._precision):
                output = layer(given)
            wanted = [p for p in (given, *layer.parameters()) if p.requires_grad]
            torch.autograd.grad(output, wanted, gradient)

    def _copy(self) -> None:
        for activation in self._between:
            target = torch.empty_like(activation)
            for _ in range(_COPIES):
                target.copy_(activation)

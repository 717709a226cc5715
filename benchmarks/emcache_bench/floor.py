"""How near the work is to what its products and its memory need on this machine.

Three pieces of work: a training step of the study's head, the frozen backbone of an extraction, and
a step of LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from emcache.freed import kept_memory
from emcache.models.arithmetic import Precision, autocast, pick_precision
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.models.heads import Segmenter, build_head
from emcache.models.layouts import pick_layout
from emcache.models.lora import attach_adapter
from emcache.training.batches import Batch
from emcache.training.protocol import Protocol
from emcache.training.trainer import Trainer
from emcache_bench.head_worker import DIM, PATCH, Ours
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.setting import BACKBONE, Setting
from emcache_bench.timing import Times, Work, interleave

_EDGE, _BATCH = 266, 2
_PRODUCT = 1024
_MOST_OF_IT = Target(0.85, at_least=True)

# How often an activation must at least be copied, reading it once and writing it once, with all
# that is elementwise around its layer done in one pass. Batch norm with the GELU after it: read for
# its moments, then read and written; backward the sums read it and the gradient, and the gradient
# itself reads both and is written. Layer norm with the sum before it: two reads and a write, a read
# and a write; backward two reads and a write, and the sum of two gradients. GELU: a read and a
# write; backward two reads and a write.
_FORWARD: dict[type[nn.Module], float] = {nn.LayerNorm: 2.5, nn.GELU: 1.0}
BOTH_WAYS: dict[type[nn.Module], float] = {
    nn.BatchNorm2d: 4.0,
    nn.LayerNorm: 5.5,
    nn.GELU: 2.5,
}
# A step of AdamW reads each parameter, its gradient and two moments, and writes three of them.
_OPTIMIZER = 3.5


def measure_floor(setting: Setting) -> Iterator[Measurement]:
    """Each piece of work at 266 px against its floor."""
    device = setting.device
    precision = pick_precision("auto", device)
    with kept_memory():
        for name, make in (("head-step", _head), ("backbone", _backbone), ("lora-step", _lora)):
            yield from _measure(name, Parts(make(device, precision), device, precision), setting)


@dataclass(frozen=True)
class Piece:
    """Work whose floor is asked for."""

    step: Work
    model: nn.Module
    """Whose layers the step runs."""
    copies: dict[type[nn.Module], float]
    """How often the output of a layer must at least be copied."""
    gradients: bool = True
    """Whether the step goes backward too."""


def _measure(name: str, parts: Parts, setting: Setting) -> Iterator[Measurement]:
    def shares(times: Times) -> list[float]:
        sides = (times[part] for part in ("products", "memory", "whole"))
        return [(a + b) / c for a, b, c in zip(*sides, strict=True)]

    times = interleave(
        parts.works(),
        setting.rounds(),
        setting.device,
        lambda times: is_settled([(shares(times), _MOST_OF_IT)]),
    )
    device = setting.device.type
    least = {part: min(seconds) for part, seconds in times.items()}
    yield of_rounds(
        f"{name}-floor-{_EDGE}",
        f"(products alone + memory that must be moved) / all of it, {_EDGE} px, batch {_BATCH}",
        shares(times),
        _MOST_OF_IT,
        {part: times[part] for part in ("products", "memory", "whole")},
        device=device,
        # Other work on the machine slows what has many small pieces most: a round says less of the
        # work itself than the least time of each.
        ratio=(least["products"] + least["memory"]) / least["whole"],
    )
    square = 2 * _PRODUCT**3
    yield of_rounds(
        f"{name}-rate-{_EDGE}",
        f"operations a second of its products / of one product of {_PRODUCT} squared",
        [
            parts.flop / own / (square / one)
            for own, one in zip(times["products"], times["square"], strict=True)
        ],
        None,
        {"products": times["products"], "square": times["square"]},
        device=device,
    )


def _head(device: torch.device, _: Precision) -> Piece:
    """A step of the study's head, as ``train-head`` makes it: in the precision of ``auto``."""
    ours = Ours(made_up_tokens(_EDGE // PATCH), made_up_masks(_EDGE, device), device)
    return Piece(ours.step, ours.head, BOTH_WAYS)


def _backbone(device: torch.device, precision: Precision) -> Piece:
    """The frozen backbone, as an extraction runs it."""
    backbone = random_backbone(find_backbone(BACKBONE), 0).to(device).eval().requires_grad_(False)
    images = torch.randn(_BATCH, 3, _EDGE, _EDGE, device=device)

    def forward() -> None:
        with torch.inference_mode(), autocast(device, precision):
            backbone(images)

    return Piece(forward, backbone, _FORWARD, gradients=False)


def _lora(device: torch.device, precision: Precision) -> Piece:
    """A step of adapters on all blocks, with the study's head."""
    backbone = random_backbone(find_backbone(BACKBONE), 0).to(device).eval().requires_grad_(False)
    attach_adapter(backbone, 16, 32.0, ["attn.qkv", "attn.proj"], 0, None)
    head = build_head("deconv", backbone.dim, 0, layout=pick_layout(device, precision))
    trainer = Trainer(Segmenter(backbone, head), Protocol(), device, precision)
    images = torch.randn(_BATCH, 3, _EDGE, _EDGE, device=device)
    batch = Batch(tuple(range(_BATCH)), images, made_up_masks(_EDGE, device))
    return Piece(lambda: trainer.train_epoch(iter([[batch]])), trainer.model, BOTH_WAYS)


def _values_like(tensor: Tensor) -> Tensor:
    """As many values of that type, in a row.

    They are written, since all memory that was never written reads from one page of zeros, which
    stays in the cache.
    """
    return torch.ones(tensor.numel(), dtype=tensor.dtype, device=tensor.device)


def made_up_tokens(grid: int) -> Tensor:
    """Of a batch of slices."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_BATCH, grid, grid, DIM, generator=generator).half()


def made_up_masks(edge: int, device: torch.device) -> Tensor:
    """Of a batch of slices."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(_BATCH, edge, edge, generator=generator) < 0.2).to(device, torch.uint8)


@dataclass(frozen=True)
class _Product:
    """One product of the step, to be made by itself."""

    run: Callable[..., Tensor]
    given: Sequence[Tensor]
    weights: Sequence[Tensor]
    gradient: Tensor | None
    """What comes back from the layer behind; None where nothing goes backward."""


class Parts:
    """A piece of work, and its products and its memory by themselves."""

    def __init__(self, piece: Piece, device: torch.device, precision: Precision) -> None:
        self._piece = piece
        self._device, self._precision = device, precision
        self._products: list[_Product] = []
        self._moved: list[tuple[Tensor, float]] = []
        self.flop = 0.0
        hooks = [layer.register_forward_hook(self._note) for layer in piece.model.modules()]
        with self._noting_attention():
            piece.step()
        for hook in hooks:
            hook.remove()
        if piece.gradients:
            for parameter in piece.model.parameters():
                if parameter.requires_grad:
                    self._moved.append((_values_like(parameter), _OPTIMIZER))

    def _note(self, layer: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert isinstance(output, Tensor)  # noqa: S101 - of these layers
            larger = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            channels = larger.shape[-1] if isinstance(layer, nn.Linear) else larger.shape[1]
            product = self._keep(layer, inputs[:1], list(layer.parameters()), output)
            passes = 1 + sum(tensor.requires_grad for tensor in (*product.given, layer.weight))
            pixels = larger.numel() // channels
            self.flop += (passes if self._piece.gradients else 1) * (
                2.0 * pixels * layer.weight.numel()
            )
        for kind, times in self._piece.copies.items():
            if isinstance(layer, kind):
                assert isinstance(output, Tensor)  # noqa: S101 - of these layers
                self._moved.append((_values_like(output), times))

    def _noting_attention(self) -> AbstractContextManager[object]:
        """Attention is a function and no layer, so it cannot be hooked."""
        functional = torch.nn.functional
        attend = functional.scaled_dot_product_attention

        def noted(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
            output: Tensor = attend(query, key, value, **options)
            product = self._keep(
                lambda q, k, v: attend(q, k, v, **options), (query, key, value), [], output
            )
            # Backward, the scores are computed once more, and each of two products has two sides.
            passes = 3.5 if product.gradient is not None else 1.0
            self.flop += passes * 4.0 * query.numel() * key.shape[-2]
            return output

        return mock.patch.object(functional, "scaled_dot_product_attention", noted)

    def _keep(
        self,
        run: Callable[..., Tensor],
        given: Iterable[Tensor],
        weights: Sequence[Tensor],
        output: Tensor,
    ) -> _Product:
        backward = self._piece.gradients and output.requires_grad
        own = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in given]
        gradient = torch.ones_like(output.detach()) if backward else None
        product = _Product(run, own, [w for w in weights if w.requires_grad], gradient)
        self._products.append(product)
        return product

    def works(self) -> dict[str, Work]:
        """What is timed, by name."""
        dtype = torch.bfloat16 if self._precision is Precision.BFLOAT16 else torch.float32
        square = torch.ones(_PRODUCT, _PRODUCT, device=self._device, dtype=dtype)
        return {
            "whole": self._piece.step,
            "products": self._multiply,
            "memory": self._move,
            "square": lambda: square @ square,
        }

    def _multiply(self) -> None:
        """In a step's order: forward through all layers, then back through all."""
        outputs: list[Tensor | None] = []
        mode = nullcontext() if self._piece.gradients else torch.inference_mode()
        for product in self._products:
            with mode, autocast(self._device, self._precision):
                output = product.run(*product.given)
            outputs.append(output if product.gradient is not None else None)
        for product, result in zip(self._products[::-1], outputs[::-1], strict=True):
            if result is not None:
                wanted = [t for t in (*product.given, *product.weights) if t.requires_grad]
                torch.autograd.grad(result, wanted, product.gradient)

    def _move(self) -> None:
        """In turns, as a step comes to an activation again only after all others."""
        most = max((times for _, times in self._moved), default=0.0)
        for turn in range(ceil(most)):
            for activation, times in self._moved:
                share = min(1.0, times - turn)
                if share > 0:
                    part = activation[: int(share * len(activation))]
                    torch.empty_like(part).copy_(part)

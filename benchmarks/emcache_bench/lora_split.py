"""A LoRA step on the last blocks, their input from the cache: against running all blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from emcache.freed import kept_memory
from emcache.models.arithmetic import autocast, pick_precision
from emcache.models.backbones.base import BackboneModule, random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.models.heads import Segmenter, build_head
from emcache.models.layer_names import raw_layer
from emcache.models.layouts import pick_layout
from emcache.models.lora import attach_adapter
from emcache.training.batches import Batch
from emcache.training.protocol import Protocol
from emcache.training.trainer import Trainer
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.setting import Setting
from emcache_bench.timing import Work, interleave, quotients

_EDGE, _QUICK_EDGE, _BATCH = 266, 126, 2
_BLOCKS = 3
_SLACK = 1.2


def measure_lora_split(setting: Setting) -> Iterator[Measurement]:
    """Adapters on the last 3 of 12 blocks, at 266 px, batch 2; at 126 px where it must be quick."""
    edge = _QUICK_EDGE if setting.quick else _EDGE
    with kept_memory():
        sides = _Sides(edge, setting.device)
        sound = sides.are_alike()
        share = _BLOCKS / sides.count
        target = Target(round(_SLACK * share, 3), at_least=False)
        times = interleave(
            sides.works(),
            setting.rounds(),
            setting.device,
            lambda times: is_settled([(quotients(times["last"], times["all"]), target)]),
        )
    note = "" if sound else "cached and computed tokens differ"
    device = setting.device.type
    yield of_rounds(
        "lora-split-backbone",
        f"backbone of a step: last {_BLOCKS} blocks from the cache / all {sides.count} adapted, "
        f"{edge} px",
        quotients(times["last"], times["all"]),
        target,
        {"last blocks": times["last"], "all blocks": times["all"]},
        device=device,
        note=note,
        sound=sound,
    )
    yield of_rounds(
        "lora-split-step",
        f"whole step: last {_BLOCKS} blocks on the fly / from the cache, {edge} px",
        quotients(times["step on the fly"], times["step"]),
        None,
        {"on the fly": times["step on the fly"], "from the cache": times["step"]},
        device=device,
        note=note,
        sound=sound,
    )


class _Sides:
    """The same slices through adapters on all blocks and on the last few."""

    def __init__(self, edge: int, device: torch.device) -> None:
        self._device = device
        self._precision = pick_precision("auto", device)
        self._size = (edge, edge)
        every, self._last = self._adapted(None), self._adapted(_BLOCKS)
        self._every = every
        self.count = len(list(every.blocks.children()))
        self._after = self.count - _BLOCKS
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randn(_BATCH, 3, edge, edge, generator=generator).to(device)
        with torch.no_grad(), autocast(device, self._precision):
            (raw,) = self._last.layers(self._images, [raw_layer(self._after)])
        assert raw.prefix is not None  # noqa: S101 - of a raw layer
        patches = raw.tokens.flatten(2).transpose(1, 2)
        self._sequence = torch.cat([raw.prefix, patches], dim=1).float()
        masks = torch.rand(_BATCH, edge, edge, generator=generator) < 0.2
        self._masks = masks.to(device, torch.uint8)

    def _adapted(self, last: int | None) -> BackboneModule:
        backbone = random_backbone(find_backbone("dinov2-small"), 0).to(self._device).eval()
        attach_adapter(backbone.requires_grad_(False), 16, 32.0, ["attn.qkv", "attn.proj"], 0, last)
        return backbone

    def are_alike(self) -> bool:
        """Whether the tokens are the same from the cache and from the slices."""
        with torch.no_grad(), autocast(self._device, self._precision):
            grid = (self._size[0] // self._last.patch, self._size[1] // self._last.patch)
            cached = self._last.go_on(self._sequence, self._after, grid).tokens
            computed = self._last(self._images).tokens
        return bool((cached - computed).abs().max() < 1e-3 * computed.abs().max())

    def works(self) -> dict[str, Work]:
        """What is timed, by name."""
        whole = Segmenter(self._every, build_head("linear", self._every.dim, 0))
        last = Segmenter(self._last, build_head("linear", self._last.dim, 0), after=self._after)
        return {
            "all": lambda: self._backward(whole, self._images),
            "last": lambda: self._backward(last, self._sequence),
            "step on the fly": self._step(0, self._images),
            "step": self._step(self._after, self._sequence),
        }

    def _backward(self, model: Segmenter, inputs: Tensor) -> None:
        with autocast(self._device, self._precision):
            tokens = model.tokens(inputs, self._size)
        tokens.sum().backward()  # type: ignore[no-untyped-call]

    def _step(self, after: int, inputs: Tensor) -> Work:
        layout = pick_layout(self._device, self._precision)
        head = build_head("deconv", self._last.dim, 0, layout=layout)
        model = Segmenter(self._last, head, after=after)
        trainer = Trainer(model, Protocol(), self._device, self._precision)
        batch = Batch(tuple(range(_BATCH)), inputs, self._masks)
        return lambda: trainer.train_epoch(iter([[batch]]))

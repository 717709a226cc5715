"""One way of training the head, in a process of its own: ``python -m emcache_bench.head_worker``.

For every request it makes one step and answers with its seconds, its loss and the length
of its gradient.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from emcache.freed import kept_memory
from emcache.models.arithmetic import Precision, pick_precision
from emcache.models.heads import DeconvHead, build_head
from emcache.models.layouts import pick_layout
from emcache.training.batches import Batch
from emcache.training.protocol import Protocol
from emcache.training.trainer import Trainer
from emcache_bench.timing import seconds_of
from emcache_bench.workers import answer_requests

DIM = 384
"""Channels of a token."""
PATCH = 14
_BATCH = 2


class Ours:
    """A step as ``train-head`` makes it: the device's own layout, and bfloat16 where it has it."""

    def __init__(
        self,
        tokens: Tensor,
        masks: Tensor,
        device: torch.device,
        precision: Precision | None = None,
        layout: torch.memory_format | None = None,
    ) -> None:
        precision = precision or pick_precision("auto", device)
        layout = layout or pick_layout(device, precision)
        self.head = build_head("deconv", DIM, 0, layout=layout)
        self._trainer = Trainer(self.head, Protocol(), device, precision)
        self._trainer.model.train()
        inputs = tokens.to(device).float().permute(0, 3, 1, 2)
        self._batch = Batch(tuple(range(_BATCH)), inputs, masks.to(device))

    def step(self) -> Tensor:
        """The loss before the step."""
        return self._trainer.step([self._batch])


class Reference:
    """A step as the study's code makes it: float32, channels first, PyTorch's defaults."""

    def __init__(self, tokens: Tensor, masks: Tensor, device: torch.device) -> None:
        head = build_head("deconv", DIM, 0)
        assert isinstance(head, DeconvHead)  # noqa: S101 - what was asked for
        self.head = head.to(device).train()
        protocol = Protocol()
        self._optimizer = torch.optim.AdamW(
            head.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay
        )
        self._loss = DiceLoss(softmax=True, to_onehot_y=True, include_background=True)
        self._tokens = tokens.to(device).float().permute(0, 3, 1, 2).contiguous()
        self._masks = masks.to(device)

    def step(self) -> Tensor:
        """The loss before the step."""
        self._optimizer.zero_grad()
        logits = torch.nn.functional.interpolate(
            self.head.logits(self._tokens),
            size=self._masks.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        loss: Tensor = self._loss(logits, self._masks[:, None])
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()


def main() -> None:
    """Answer requests until there are no more."""
    way, grid, device = sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3])
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(_BATCH, grid, grid, DIM, generator=generator).half()
    side = grid * PATCH
    masks = (torch.rand(_BATCH, side, side, generator=generator) < 0.2).to(torch.uint8)
    kept = way != "reference"
    with kept_memory() if kept else nullcontext():
        kind = Ours if way == "ours" else Reference
        stepper = kind(tokens, masks, device)

        def work() -> dict[str, Any]:
            losses: list[Tensor] = []
            seconds = seconds_of(lambda: losses.append(stepper.step()), device)
            return {"seconds": seconds, "loss": float(losses[0]), "gradient": _norm(stepper.head)}

        answer_requests(work)


def _norm(head: nn.Module) -> float:
    """Length of the gradient that the last step went along."""
    return float(
        torch.nn.utils.get_total_norm(p.grad for p in head.parameters() if p.grad is not None)
    )


if __name__ == "__main__":
    main()

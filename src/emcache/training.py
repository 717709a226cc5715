"""Training a head on examples, by a protocol.

The order of everything random is fixed by the seed: the head's first weights, then the order of the
slices in each epoch. The same seed on the same machine gives the same head, bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float, Int64, UInt8
from monai.losses import DiceLoss
from torch import Tensor

from emcache.counts import Counts
from emcache.devices import Precision, autocast
from emcache.errors import DatasetError, TrainingError
from emcache.examples import Batch, Examples
from emcache.heads import Head
from emcache.progress import Reporter
from emcache.protocol import Protocol
from emcache.shards import Grid


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the training batches, while the head was changing."""
    val_loss: float
    """Mean over the validation batches, after the epoch."""
    val_iou_fg: float
    """Foreground IoU of the validation slices, on their pixel totals."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained head: the weights of the epoch with the lowest validation loss."""

    state: Mapping[str, Tensor]
    epochs: tuple[Epoch, ...]
    best_epoch: int
    stopped_by: str
    """``patience`` or ``max_epochs``."""
    seconds: float

    @property
    def best_val_loss(self) -> float:
        """Lowest validation loss."""
        return self.epochs[self.best_epoch - 1].val_loss


def split_validation(positions: Sequence[int], protocol: Protocol) -> tuple[list[int], list[int]]:
    """Training and validation positions: the last ``round(fraction * n)`` of a seeded permutation.

    Raises:
        DatasetError: Fewer than two positions.
    """
    count = len(positions)
    if count < 2:
        raise DatasetError(
            f"found {count} training slices; expected at least two, one to train and one to "
            f"validate: label more slices."
        )
    n_val = max(1, round(count * protocol.val_fraction))
    generator = torch.Generator().manual_seed(protocol.val_seed)
    order = torch.randperm(count, generator=generator).tolist()
    chosen = [positions[place] for place in order]
    return chosen[: count - n_val], chosen[count - n_val :]


def batch_order(
    positions: Sequence[int], grids: Mapping[int, Grid], batch: int
) -> Iterator[list[int]]:
    """Group positions into batches of one grid shape each, in order; the last may be smaller.

    A batch is complete when its grid has gathered enough slices, so that slices of several sizes
    need no padding.
    """
    waiting: dict[Grid, list[int]] = {}
    for position in positions:
        group = waiting.setdefault(grids[position], [])
        group.append(position)
        if len(group) == batch:
            yield waiting.pop(grids[position])
    yield from waiting.values()


class Trainer:
    """A head, its optimizer and its loss on one device."""

    def __init__(
        self, head: Head, protocol: Protocol, device: torch.device, precision: Precision
    ) -> None:
        self.head = head.to(device)
        self._protocol = protocol
        self._device = device
        self._precision = precision
        self._loss = DiceLoss(softmax=True, to_onehot_y=True, include_background=True)
        self._optimizer = torch.optim.AdamW(
            head.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay
        )

    def step(self, batch: Batch) -> Float[Tensor, ""]:
        """One optimizer step; returns the loss before it, on the device."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self._logits(batch), batch.masks)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._protocol.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), self._protocol.gradient_clip)
        self._optimizer.step()
        return loss.detach()

    def train_epoch(self, batches: Iterator[Batch]) -> list[float]:
        """Step through the batches; returns the loss of each."""
        self.head.train()
        # Losses stay on the device until the end: reading each would stall a GPU at every step.
        return [float(loss) for loss in [self.step(batch) for batch in batches]]

    def loss(
        self,
        logits: Float[Tensor, "batch classes height width"],
        masks: UInt8[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        """MONAI's Dice loss in float32."""
        loss: Tensor = self._loss(logits, masks[:, None].long())
        return loss

    def predict(
        self, batches: Iterator[Batch]
    ) -> Iterator[
        tuple[float, Int64[Tensor, "batch height width"], UInt8[Tensor, "batch height width"]]
    ]:
        """For each batch its loss, the predicted labels and the true ones."""
        self.head.eval()
        with torch.inference_mode():
            for batch in batches:
                logits = self._logits(batch)
                yield float(self.loss(logits, batch.masks)), logits.argmax(dim=1), batch.masks

    def _logits(self, batch: Batch) -> Float[Tensor, "batch classes height width"]:
        height, width = batch.masks.shape[-2:]
        with autocast(self._device, self._precision):
            logits: Tensor = self.head(batch.tokens, (height, width))
        return logits


def fit(
    trainer: Trainer,
    examples: Examples,
    train: Sequence[int],
    val: Sequence[int],
    protocol: Protocol,
    seed: int,
    reporter: Reporter,
) -> Fit:
    """Train until the validation loss has not fallen for ``patience`` epochs.

    Args:
        trainer: The head to train; it is left with the weights of the last epoch.
        examples: Where tokens and masks come from.
        train: Positions to train on.
        val: Positions to validate on.
        protocol: How.
        seed: Of the order of slices.
        reporter: Hears of every epoch.

    Raises:
        TrainingError: A loss that is not finite.
    """
    grids = {position: examples.grid(position) for position in (*train, *val)}
    generator = torch.Generator().manual_seed(seed)
    val_order = list(batch_order(val, grids, protocol.batch))
    epochs: list[Epoch] = []
    best_state: Mapping[str, Tensor] = {}
    best = 0
    began = time.perf_counter()
    with reporter.task(f"Training, seed {seed}", protocol.max_epochs, "epochs") as task:
        while len(epochs) < protocol.max_epochs and len(epochs) - best < protocol.patience:
            started = time.perf_counter()
            shuffled = [train[i] for i in torch.randperm(len(train), generator=generator).tolist()]
            order = list(batch_order(shuffled, grids, protocol.batch))
            losses = trainer.train_epoch(examples.batches(order))
            val_loss, val_iou = _validate(trainer, examples.batches(val_order))
            seconds = time.perf_counter() - started
            number = len(epochs) + 1
            if not (isfinite(sum(losses)) and isfinite(val_loss)):
                raise TrainingError(
                    f"the loss of epoch {number} is not finite; expected a number: choose a lower "
                    f"--learning-rate, or --precision float32.",
                    subject=number,
                )
            epochs.append(Epoch(number, sum(losses) / len(losses), val_loss, val_iou, seconds))
            if not best or val_loss < epochs[best - 1].val_loss:
                best = number
                best_state = copy.deepcopy(trainer.head.state_dict())
            task.advance(
                1, f"train {epochs[-1].train_loss:.4f} val {val_loss:.4f} best epoch {best}"
            )
    stopped_by = "max_epochs" if len(epochs) - best < protocol.patience else "patience"
    return Fit(best_state, tuple(epochs), best, stopped_by, time.perf_counter() - began)


def _validate(trainer: Trainer, batches: Iterator[Batch]) -> tuple[float, float]:
    losses, counts = [], []
    for loss, predicted, true in trainer.predict(batches):
        losses.append(loss)
        counts += [Counts.of(p, t) for p, t in zip(predicted, true, strict=True)]
    return sum(losses) / len(losses), Counts.total(counts).iou

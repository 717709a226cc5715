"""Training a model on examples, by a protocol.

The order of everything random is fixed by the seed: the model's first weights, then the order of
the slices in each epoch. The same seed on the same machine gives the same model, bit for bit on a
CPU; so does a training that was killed and went on from a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from emcache.errors import TrainingError
from emcache.models.arithmetic import Precision, autocast
from emcache.models.heads import Head, Segmenter
from emcache.models.norms import domain_norms, gathering
from emcache.progress import Reporter
from emcache.training.batches import Batch, Examples
from emcache.training.checkpoints import Keeper, Progress, prefixed, without_prefix
from emcache.training.counts import STANDSTILL_EPOCHS, Counts, advice, stands_still
from emcache.training.dice import dice_loss
from emcache.training.parameters import parameter_groups, trained_state
from emcache.training.penalties import Penalty, hidden_layer
from emcache.training.protocol import Protocol
from emcache.training.sampling import Sampling, chunks, epoch_order

if TYPE_CHECKING:
    # Its module imports MONAI's transforms, which take seconds.
    from emcache.training.augmentation import Augmentation


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the training steps, while the model was changing."""
    val_loss: float
    """Mean over the validation steps, after the epoch."""
    val_iou_fg: float
    """Foreground IoU of the validation slices, on their pixel totals."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What training came to: the weights of the epoch with the lowest validation loss."""

    state: Mapping[str, Tensor]
    """Of what was trained; frozen weights are not part of it."""
    epochs: tuple[Epoch, ...]
    """None of a head that was fitted in one go."""
    best_epoch: int
    stopped_by: str
    """``patience`` or ``max_epochs``; else ``fitted`` or ``nothing to learn``: no epochs."""
    seconds: float

    @property
    def best_val_loss(self) -> float | None:
        """Lowest validation loss; None where nothing was validated."""
        return self.epochs[self.best_epoch - 1].val_loss if self.epochs else None


class TrainingOrder(NamedTuple):
    """Positions of the slices that a training uses."""

    train: Sequence[Sequence[int]]
    """To train on, for each source."""
    val: Sequence[int]
    """To validate on."""
    sampling: Sampling = Sampling.NATURAL
    """How steps draw from the sources."""


class Prediction(NamedTuple):
    """What a model makes of one step."""

    loss: float
    """Mean over the step's slices."""
    slices: list[tuple[int, Int64[Tensor, "height width"], UInt8[Tensor, "height width"]]]
    """Position, predicted labels and true labels of each slice."""


class Trainer:
    """A model, its optimizer and its loss on one device.

    The model takes a batch's inputs and the size of its masks, and gives logits of that size; those
    of its parameters that ask for a gradient are trained.
    """

    def __init__(
        self,
        model: nn.Module,
        protocol: Protocol,
        device: torch.device,
        precision: Precision,
        *,
        ignores: bool = False,
        penalty: Penalty | None = None,
        backbone_rate: float | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.model = model.to(device)
        # Looked for once, and not in every step.
        self._norms = domain_norms(model)
        self.penalty = None if penalty is None else penalty.to(device)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        if self.penalty is not None:
            self._trained += list(self.penalty.parameters())
        self.protocol = protocol
        self.augmentation = augmentation
        self._device = device
        self._precision = precision
        self._ignores = ignores
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, self._trained, backbone_rate),
            lr=protocol.learning_rate,
            weight_decay=protocol.weight_decay,
            # One pass over the parameters in place of a dozen; other devices may not have it.
            fused=device.type in ("cpu", "cuda"),
        )

    def step(self, batches: Sequence[Batch]) -> Float[Tensor, ""]:
        """One optimizer step on batches of one or more grid shapes.

        The loss is the mean over all their slices, as if they were one batch; the gradient adds up
        batch by batch, and that of a penalty with it.

        Returns:
            The loss before the step, on the device, without a penalty.
        """
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        with self._hidden() as hidden:
            for batch, share in zip(batches, _shares(batches), strict=True):
                loss = share * self.loss(self._logits(batch), batch.masks)
                # A penalty goes back through the same activations.
                loss.backward(retain_graph=hidden is not None)  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
        if self.penalty is not None and hidden is not None:
            positions = [batch.positions for batch in batches]
            penalty = self.penalty(list(zip(positions, hidden, strict=True)))
            if penalty.requires_grad:  # nothing in a step that draws from one dataset alone
                penalty.backward()
        if self.protocol.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self.protocol.gradient_clip)
        self._optimizer.step()
        return torch.stack(losses).sum()

    @contextmanager
    def _hidden(self) -> Iterator[list[Tensor] | None]:
        """Hidden tokens of every forward pass within; None where no penalty asks for them."""
        if self.penalty is None:
            yield None
            return
        kept: list[Tensor] = []
        head = self.model.head if isinstance(self.model, Segmenter) else self.model
        assert isinstance(head, Head)  # noqa: S101 - a model is a head, or has one
        hook = hidden_layer(head).register_forward_hook(lambda *given: kept.append(given[2]))
        try:
            yield kept
        finally:
            hook.remove()

    def optimizer_state(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each trained parameter, by ``number/name``."""
        return {
            f"{number}/{name}": value
            for number, parameter in enumerate(self._trained)
            for name, value in self._optimizer.state[parameter].items()
        }

    def restore_optimizer(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what :meth:`optimizer_state` gave."""
        memory: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            number, _, what = name.partition("/")
            parameter = self._trained[int(number)]
            if value.shape == parameter.shape:
                # The fused step walks parameters and moments side by side: both in one layout.
                value = torch.empty_like(parameter).copy_(value)
            memory.setdefault(int(number), {})[what] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": memory, "param_groups": groups})

    def train_epoch(self, steps: Iterator[Sequence[Batch]]) -> list[float]:
        """Go through the steps; returns the loss of each."""
        self.model.train()
        # Losses stay on the device until the end: reading each would stall a GPU at every step.
        return [float(loss) for loss in [self.step(batches) for batches in steps]]

    def loss(
        self,
        logits: Float[Tensor, "batch classes height width"],
        masks: UInt8[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        """The Dice loss in float32, over the pixels that are not ignored."""
        return dice_loss(logits, masks, ignores=self._ignores)

    def predict(self, steps: Iterator[Sequence[Batch]]) -> Iterator[Prediction]:
        """For each step its loss, and for each slice the predicted labels and the true ones."""
        self.model.eval()
        with torch.inference_mode():
            for batches in steps:
                loss = 0.0
                slices: list[tuple[int, Tensor, Tensor]] = []
                for batch, share in zip(batches, _shares(batches), strict=True):
                    logits = self._logits(batch)
                    loss += share * float(self.loss(logits, batch.masks))
                    slices += zip(batch.positions, logits.argmax(dim=1), batch.masks, strict=True)
                yield Prediction(loss, slices)

    def backbone_tokens(
        self, steps: Iterator[Sequence[Batch]]
    ) -> list[Float32[np.ndarray, "row col channel"]]:
        """What the backbone of a model that has one makes of each slice, adapter and all."""
        assert isinstance(self.model, Segmenter)  # noqa: S101 - heads alone have no backbone
        tokens = []
        with torch.inference_mode(), autocast(self._device, self._precision):
            for batches in steps:
                for batch in batches:
                    height, width = batch.masks.shape[-2:]
                    grid = self.model.tokens(batch.inputs, (height, width)).permute(0, 2, 3, 1)
                    tokens += list(grid.cpu().numpy())
        return tokens

    def adapt_norms(self, domain: int, steps: Iterator[Sequence[Batch]]) -> None:
        """Take the batch norms' statistics of a domain from these steps; masks are not used."""
        with gathering(self.model, domain):
            for batches in steps:
                for batch in batches:
                    self._logits(batch)

    def _logits(self, batch: Batch) -> Float[Tensor, "batch classes height width"]:
        height, width = batch.masks.shape[-2:]
        for norm in self._norms:
            norm.domain = batch.domain
        with autocast(self._device, self._precision):
            logits: Tensor = (
                self.model(batch.inputs, (height, width))
                if batch.images is None
                else self.model(batch.inputs, (height, width), batch.images)
            )
        return logits


def fit(
    trainer: Trainer,
    examples: Examples,
    order: TrainingOrder,
    seed: int,
    reporter: Reporter,
    keeper: Keeper,
) -> Fit:
    """Train until the validation loss has not fallen for ``patience`` epochs.

    Args:
        trainer: The head to train; it is left with the weights of the last epoch.
        examples: Where tokens and masks come from.
        order: Which slices train, and which validate.
        seed: Of the order of slices.
        reporter: Receives progress: every epoch.
        keeper: Gives what an earlier process kept of this training, and keeps what comes.

    Raises:
        TrainingError: A loss that is not finite.
    """
    protocol = trainer.protocol
    generator = torch.Generator().manual_seed(seed)
    val_order = chunks(order.val, protocol.batch)
    epochs: list[Epoch] = []
    best_state: Mapping[str, Tensor] = {}
    best = 0
    began = time.perf_counter()
    if (kept := keeper.load()) is not None:
        epochs, best, best_state = _resume(trainer, generator, kept)
        began -= kept.facts["seconds"]
        reporter.say(f"Training, seed {seed}: going on after epoch {len(epochs)}.")
    with reporter.task(f"Training, seed {seed}", protocol.max_epochs, "epochs") as task:
        if epochs:
            task.advance(len(epochs))
        while len(epochs) < protocol.max_epochs and len(epochs) - best < protocol.patience:
            started = time.perf_counter()
            steps = epoch_order(order.train, order.sampling, protocol.batch, generator)
            batches: Iterator[Sequence[Batch]] = examples.steps(steps)
            if trainer.augmentation is not None:
                batches = trainer.augmentation.batches(batches, generator)
            losses = trainer.train_epoch(batches)
            val_loss, val_iou = validate(trainer, examples.steps(val_order))
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
                best_state = trained_state(trainer.model)
            seconds = time.perf_counter() - began
            keeper.after_epoch(
                partial(_progress, trainer, generator, epochs, best, best_state, seconds)
            )
            # Once: a training that goes on after a kill has said so before.
            if number == STANDSTILL_EPOCHS and stands_still(_losses(epochs)):
                reporter.say(f"Training, seed {seed}: {advice(_losses(epochs), protocol)}")
            task.advance(
                1, f"train {epochs[-1].train_loss:.4f} val {val_loss:.4f} best epoch {best}"
            )
    stopped_by = "max_epochs" if len(epochs) - best < protocol.patience else "patience"
    return Fit(best_state, tuple(epochs), best, stopped_by, time.perf_counter() - began)


def _losses(epochs: Sequence[Epoch]) -> list[tuple[float, float]]:
    """Training and validation loss of each epoch."""
    return [(epoch.train_loss, epoch.val_loss) for epoch in epochs]


def _progress(
    trainer: Trainer,
    generator: torch.Generator,
    epochs: Sequence[Epoch],
    best: int,
    best_state: Mapping[str, Tensor],
    seconds: float,
) -> Progress:
    """Everything that the epochs to come depend on."""
    tensors = {
        **prefixed("model", trained_state(trainer.model)),
        **({} if trainer.penalty is None else prefixed("penalty", trainer.penalty.state_dict())),
        **prefixed("optimizer", trainer.optimizer_state()),
        "generator": generator.get_state(),
    }
    if best != len(epochs):
        # The best epoch is an earlier one, so its weights are not those of the model.
        tensors |= prefixed("best", best_state)
    facts = {"epoch": len(epochs), "best": best, "seconds": seconds}
    return Progress(tensors, {**facts, "epochs": [asdict(epoch) for epoch in epochs]})


def _resume(
    trainer: Trainer, generator: torch.Generator, kept: Progress
) -> tuple[list[Epoch], int, Mapping[str, Tensor]]:
    """Put a trainer where it stood; the epochs so far, the best of them, and its weights."""
    trainer.model.load_state_dict(without_prefix("model", kept.tensors), strict=False)
    if trainer.penalty is not None:
        trainer.penalty.load_state_dict(without_prefix("penalty", kept.tensors))
    trainer.restore_optimizer(without_prefix("optimizer", kept.tensors))
    generator.set_state(kept.tensors["generator"])
    epochs = [Epoch(**epoch) for epoch in kept.facts["epochs"]]
    best = kept.facts["best"]
    if best == len(epochs):
        return epochs, best, trained_state(trainer.model)
    device = next(trainer.model.parameters()).device
    best_state = without_prefix("best", kept.tensors)
    return epochs, best, {name: tensor.to(device) for name, tensor in best_state.items()}


def validate(trainer: Trainer, steps: Iterator[Sequence[Batch]]) -> tuple[float, float]:
    """Mean loss of some steps, and foreground IoU on the pixel totals of their slices."""
    losses, counts = [], []
    for loss, slices in trainer.predict(steps):
        losses.append(loss)
        counts += [Counts.of(predicted, true) for _, predicted, true in slices]
    return sum(losses) / len(losses), Counts.total(counts).iou


def _shares(batches: Sequence[Batch]) -> list[float]:
    """Each batch's share of the slices of a step."""
    total = sum(len(batch.positions) for batch in batches)
    return [len(batch.positions) / total for batch in batches]

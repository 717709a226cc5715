"""Telling a training whose loss does not move from one that is slow.

A head that came to give one answer everywhere has hardly a gradient: its loss stays where it is,
epoch after epoch, and early stopping then ends the training without a word.

The bounds were chosen on tokens of a pretrained ViT-S/14 of the VNC slices. From the second epoch
to the fifth, the validation loss of trainings that were stuck moved by 0.04 % at most and their
training loss by 0.1 %. Of the slowest that were not (one convolution, at a learning rate of 5e-5)
both moved by 0.5 %, and of the study's head at its own learning rate of 5e-5 by 15 to 23 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from emcache.training.protocol import Protocol

STANDSTILL_EPOCHS = 5
"""Epochs after which it is known whether the loss moves. The first one does not count: the head
may come to its one answer within it."""

_MOST_VALIDATION = 0.002
# Steps hold other slices in each epoch, and the last one fewer, so this loss moves on its own.
_MOST_TRAINING = 0.02


def stands_still(losses: Sequence[tuple[float, float]]) -> bool:
    """Whether neither loss moved from the second epoch to the last.

    Args:
        losses: Training and validation loss of each epoch so far, of two at least.
    """
    training, validation = zip(*losses[1:], strict=True)
    return _spread(training) <= _MOST_TRAINING and _spread(validation) <= _MOST_VALIDATION


def advice(losses: Sequence[tuple[float, float]], protocol: Protocol) -> str:
    """What to say of a loss that does not move: the figures, and what to try."""
    training, validation = losses[-1]
    rate = protocol.learning_rate
    other = "linear" if protocol.head == "deconv" else "deconv"
    return (
        f"the loss has not moved from epoch 2 to epoch {len(losses)} (training {training:.4f}, "
        f"validation {validation:.4f}), so nothing was learned there; try a smaller or a larger "
        f"learning rate (--learning-rate {rate / 10:g} or {rate * 10:g}; now {rate:g}) or --head "
        f"{other}, and look at emcache dataset audit."
    )


def _spread(losses: Sequence[float]) -> float:
    """Largest less smallest, as a share of the largest."""
    return (max(losses) - min(losses)) / max(losses) if max(losses) > 0 else 0.0

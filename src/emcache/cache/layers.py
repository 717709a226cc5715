"""Which blocks of a backbone tokens are taken from: ``last``, ``last4`` or ``3,6,9,12``.

Each layer of some slices is a feature set of its own, so that one can be read without the others;
those that are asked for together are made in one pass of the backbone.
"""

from __future__ import annotations

from emcache.cache.recipe import LAST, read_layers
from emcache.errors import UsageError
from emcache.models.backbones.base import count_blocks
from emcache.models.backbones.registry import BackboneSpec


def find_layers(text: str, spec: BackboneSpec) -> tuple[str, ...]:
    """The layers that are meant, from the first to the last, as recipes name them.

    Args:
        text: ``last``, ``last4``, or numbers of blocks from 1, joined by commas or ``+``.
        spec: Of the backbone, whose last block is called ``last`` whatever its number.

    Raises:
        UsageError: No such text, or blocks that the backbone does not have.
    """
    if text == LAST:
        return (LAST,)
    try:
        chosen = read_layers(text)
    except ValueError as error:
        raise UsageError(
            f"layers cannot be {text!r:.100}; expected last, last4, or numbers of blocks as "
            f"3,6,9,12.",
            subject=text,
        ) from error
    depth = count_blocks(spec)
    if chosen.startswith(LAST):
        count = int(chosen.removeprefix(LAST))
        numbers = list(range(depth - count + 1, depth + 1))
    else:
        numbers = [int(part) for part in chosen.split("+")]
    if numbers[0] < 1 or max(numbers) > depth or sorted(set(numbers)) != numbers:
        raise UsageError(
            f"layers cannot be {text!r:.100}; expected blocks of {spec.name}, which has {depth}, "
            f"each once and in order.",
            subject=text,
        )
    return tuple(LAST if number == depth else str(number) for number in numbers)

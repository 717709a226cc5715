"""Lists of seeds as people write them."""

from __future__ import annotations

from emcache.errors import UsageError

# What every reader of a record can hold, signed or not.
_LARGEST_SEED = 2**31 - 1
_MOST_SEEDS = 1000
_MOST_DIGITS = len(str(_LARGEST_SEED))


def parse_seeds(text: str) -> list[int]:
    """Read ``0-4`` or ``0,2,7`` or a mixture.

    Raises:
        UsageError: Not such a list, or a seed given twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(
                f"the list of seeds {text!r:.80} cannot be read; expected 0-4 or 0,2,7."
            )
        # Python reads no number of thousands of digits.
        too_long = max(len(first), len(last)) > _MOST_DIGITS
        begin, end = (0, 0) if too_long else (int(first), int(last or first))
        if too_long or end > _LARGEST_SEED or end - begin >= _MOST_SEEDS:
            raise UsageError(
                f"the list of seeds {text!r:.80} goes too far; expected seeds up to "
                f"{_LARGEST_SEED}, at most {_MOST_SEEDS} of them."
            )
        seeds += range(begin, end + 1)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice or not seeds:
        found = f"seed {twice[0]} twice" if twice else "no seed"
        raise UsageError(
            f"the list of seeds {text!r:.80} names {found}; expected each seed once.", subject=text
        )
    return seeds

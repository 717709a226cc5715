"""Lists of numbers as they are typed: seeds, and how many slices."""

from __future__ import annotations

from emcache.errors import UsageError

_LARGEST = 2**31 - 1


def parse_counts(text: str) -> list[int | None]:
    """Read ``1,2,4,all`` as numbers, with None for all.

    Raises:
        UsageError: Not such a list, or a number given twice.
    """
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if part != "all" and not _is_count(part)]
    if wrong or len(set(parts)) < len(parts):
        found = repr(wrong[0])[:80] if wrong else "one twice"
        raise UsageError(
            f"the list of numbers {text!r:.80} names {found}; expected whole numbers of at least "
            f"1, or all, each once, as 1,2,4,all.",
            subject=text,
        )
    return [None if part == "all" else int(part) for part in parts]


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS and 1 <= int(text) <= _LARGEST


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

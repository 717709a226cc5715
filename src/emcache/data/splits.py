"""Which slices train and which test.

A split rule is text, kept with the dataset:

``random:FRACTION:SEED``
    The slices in natural order, shuffled by Python's ``random.Random(SEED)``; the last
    ``round(FRACTION * n)`` are ``test``, the others ``train``. ``random:0.15:42`` on 20 slices is
    the published VNC split (17 + 3).
``block:FRACTION:GAP``
    The last ``round(FRACTION * n)`` slices in natural order are ``test``, the ``GAP`` slices before
    them ``gap`` (in no training and no score), the others ``train``: no test slice lies beside a
    training slice.
``NAME=GLOB``
    Slices whose name matches the pattern are split ``NAME``; give one rule for each split.

Or it is a table of lists, each slice in exactly one: ``{train = ["0", "1"], test = ["2"]}``;
``NAME=@FILE`` on the command line reads such a list, a slice a line.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from emcache.data.plane import natural_sorted
from emcache.errors import UsageError

DEFAULT_SPLIT = "random:0.15:42"
"""The published VNC split's rule."""

_FORMS = (
    "random:FRACTION:SEED or block:FRACTION:GAP with a fraction between 0 and 1, NAME=GLOB "
    "or, on the command line, NAME=@FILE"
)


SplitRules = Sequence[str] | Mapping[str, Sequence[str]]
"""Rules as text, or the names of each split's slices."""


def assign_splits(slice_ids: Sequence[str], rules: SplitRules) -> dict[str, str]:
    """The split of every slice.

    Raises:
        UsageError: A rule that cannot be read, a slice in no split or in two, or a random rule
            that would leave a split empty; a list that names a slice that is not there.
    """
    if isinstance(rules, Mapping):
        return _listed_split(slice_ids, rules)
    if len(rules) == 1 and rules[0].startswith("random:"):
        return _random_split(slice_ids, rules[0])
    if len(rules) == 1 and rules[0].startswith("block:"):
        return _block_split(slice_ids, rules[0])
    patterns = [_parse_pattern(rule) for rule in rules]
    splits = {}
    for slice_id in slice_ids:
        names = [name for name, pattern in patterns if fnmatchcase(slice_id, pattern)]
        if len(names) != 1:
            raise UsageError(
                f"slice {slice_id} matches {len(names)} of the split rules "
                f"({', '.join(rules):.400}); expected exactly one: change the patterns.",
                subject=slice_id,
            )
        splits[slice_id] = names[0]
    return splits


def _random_split(slice_ids: Sequence[str], rule: str) -> dict[str, str]:
    try:
        _, fraction_text, seed_text = rule.split(":")
        fraction, seed = float(fraction_text), int(seed_text)
    except ValueError:
        raise _unreadable(rule) from None
    if not 0 < fraction < 1:
        raise _unreadable(rule)
    order = natural_sorted(slice_ids)
    n_test = round(fraction * len(order))
    if not 0 < n_test < len(order):
        raise UsageError(
            f"split {rule!r:.200} puts {n_test} of {len(order)} slices into test; expected at "
            f"least one in test and one in train: change the fraction.",
            subject=rule,
        )
    # A published split, not a secret: the standard generator is what defines it.
    random.Random(seed).shuffle(order)  # noqa: S311
    n_train = len(order) - n_test
    return {name: "train" if place < n_train else "test" for place, name in enumerate(order)}


def _block_split(slice_ids: Sequence[str], rule: str) -> dict[str, str]:
    try:
        _, fraction_text, gap_text = rule.split(":")
        fraction, gap = float(fraction_text), int(gap_text)
    except ValueError:
        raise _unreadable(rule) from None
    if not 0 < fraction < 1 or gap < 0:
        raise _unreadable(rule)
    order = natural_sorted(slice_ids)
    n_test = round(fraction * len(order))
    n_train = len(order) - n_test - gap
    if not n_test or n_train < 1:
        raise UsageError(
            f"split {rule!r:.200} leaves {max(n_train, 0)} of {len(order)} slices to train on and "
            f"{n_test} to test; expected at least one of each: change the fraction or the gap.",
            subject=rule,
        )
    names = ["train"] * n_train + ["gap"] * gap + ["test"] * n_test
    return dict(zip(order, names, strict=True))


def _listed_split(slice_ids: Sequence[str], lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    splits: dict[str, str] = {}
    known = set(slice_ids)
    for split, names in lists.items():
        if not split.isidentifier():
            raise _unreadable(split)
        for name in names:
            if name not in known:
                raise UsageError(
                    f"split {split} lists slice {name!r:.200}, which is not there; expected names "
                    f"as {slice_ids[0]}: fix the list.",
                    subject=name,
                )
            if name in splits:
                raise UsageError(
                    f"slice {name} is in the lists of {splits[name]} and {split}; expected one "
                    f"split for each slice: fix the lists.",
                    subject=name,
                )
            splits[name] = split
    if len(splits) < len(known):
        left = next(name for name in slice_ids if name not in splits)
        raise UsageError(
            f"slice {left} is in no split's list ({len(known) - len(splits)} slices are in none); "
            f"expected each in one: add them, perhaps to a split called unused.",
            subject=left,
        )
    return splits


def read_split_lists(rules: Sequence[str]) -> SplitRules:
    """Rules as they are, or, where they are ``NAME=@FILE``, the lists in those files.

    Raises:
        UsageError: A file that cannot be read, or lists beside other rules.
    """
    parted = [rule.partition("=@") for rule in rules]
    if not any(at for _, at, _ in parted):
        return rules
    lists: dict[str, list[str]] = {}
    for name, at, file in parted:
        if not at or name in lists:
            raise UsageError(
                f"split rules {', '.join(rules):.400} do not go together; expected NAME=@FILE once "
                f"for each split.",
                subject=tuple(rules),
            )
        try:
            if Path(file).exists() and not Path(file).is_file():
                # A pipe or a device may never end.
                raise IsADirectoryError("it is not a file")
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"list {file} of split {name} cannot be read ({error}); expected a text file with "
                f"a slice's name in each line.",
                subject=file,
            ) from None
        lists[name] = [line.strip() for line in lines if line.strip()]
    return lists


def _parse_pattern(rule: str) -> tuple[str, str]:
    name, separator, pattern = rule.partition("=")
    if not separator or not name.isidentifier() or not pattern:
        raise _unreadable(rule)
    return name, pattern


def _unreadable(rule: str) -> UsageError:
    return UsageError(f"split rule {rule!r:.200} cannot be read; expected {_FORMS}.", subject=rule)

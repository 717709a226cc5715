"""Which class each value of a mask stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from emcache.errors import ImageError, UsageError

BACKGROUND = "background"
"""The class that every rule has, label 0."""
FOREGROUND = "foreground"
"""All classes but the background."""
IGNORE = "ignore"
"""Name of the values that neither the loss nor a score sees."""
IGNORED = 255
"""Label of ignored pixels."""
DEFAULT_THRESHOLD = 128
"""A mask value of at least this is foreground, where no classes are named."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_MOST = 200
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How a dataset's masks become labels: by a threshold, or by values of named classes."""

    threshold: int | None = DEFAULT_THRESHOLD
    """A mask value of at least this is foreground; None where classes are named."""
    values: Mapping[str, tuple[int, ...]] | None = None
    """Mask values of each named class, the background and perhaps ``ignore`` among them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Classes by their labels, 0 first: the background."""
        if self.values is None:
            return BACKGROUND, FOREGROUND
        others = [name for name in self.values if name not in (BACKGROUND, IGNORE)]
        return BACKGROUND, *others

    @property
    def scored(self) -> tuple[str, ...]:
        """Classes that a score is kept of beside the foreground as a whole."""
        return tuple(name for name in self.names[1:] if name != FOREGROUND)

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that nothing sees."""
        return self.values is not None and IGNORE in self.values

    @property
    def words(self) -> str:
        """The rule in a sentence, for people."""
        if self.values is None:
            return f"foreground is >= {self.threshold}"
        return ", ".join(f"{name} {', '.join(map(str, v))}" for name, v in self.values.items())

    def identity(self) -> dict[str, Any]:
        """Canonical JSON value: everything that decides a label."""
        if self.values is None:
            return {FOREGROUND: {"at_least": self.threshold}}
        order = [*self.names, *([IGNORE] if self.ignores else [])]
        return {"values": [[name, sorted(self.values[name])] for name in order]}

    def labels(self, mask: Integer[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
        """Labels of a mask's values: 0 background, 1 and up the classes, :data:`IGNORED`."""
        labels: UInt8[np.ndarray, "row col"]
        if self.values is None:
            labels = (mask >= self.threshold).astype(np.uint8)
            return labels
        known = {
            value: IGNORED if name == IGNORE else self.names.index(name)
            for name, values in self.values.items()
            for value in values
        }
        if mask.dtype == np.uint8:
            table = np.full(256, IGNORED, np.uint8)
            for value, label in known.items():
                if 0 <= value <= 255:
                    table[value] = label
            labels = table[mask]
            return labels
        labels = np.full(mask.shape, IGNORED, np.uint8)
        for value, label in known.items():
            labels[mask == value] = label
        return labels

    def key(self) -> dict[str, Any]:
        """As :meth:`identity`, in the words that keys of evaluations and audits have."""
        if self.values is None:
            return {"threshold": self.threshold}
        return {"classes": self.identity()}

    def foreground(self, mask: Integer[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
        """Where a mask's values stand for a class other than the background."""
        seen: Bool[np.ndarray, "row col"]
        if self.values is None:
            seen = mask >= self.threshold
        else:
            labels = self.labels(mask)
            seen = (labels > 0) & (labels != IGNORED)
        return seen

    def shown(self, labels: Integer[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
        """Labels as a picture that can be seen, and read again by the same rule.

        Without named classes the foreground is 255. With them each class is its first value where
        all values fit into 8 bits, else its label.
        """
        table = np.arange(256, dtype=np.uint8)
        if self.values is None:
            table[1:IGNORED] = 255
        elif self._shows_values:
            for label, name in enumerate(self.names):
                table[label] = self.values[name][0]
            if self.ignores:
                table[IGNORED] = self.values[IGNORE][0]
        shown: UInt8[np.ndarray, "row col"] = table[labels.astype(np.uint8)]
        return shown

    def labels_shown(self, picture: UInt8[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
        """The labels of which :meth:`shown` made a picture."""
        return self.labels(picture) if self.values is None or self._shows_values else picture

    @property
    def _shows_values(self) -> bool:
        """Whether named classes are shown by their values: all of these fit into 8 bits."""
        assert self.values is not None  # noqa: S101 - callers ask where classes are named
        return all(0 <= value <= 255 for values in self.values.values() for value in values)

    def foreground_pixels(self, counts: Mapping[int, int]) -> int:
        """Pixels of all classes but the background, from the number of pixels of each value."""
        if self.values is None:
            assert self.threshold is not None  # noqa: S101 - one of the two is there
            return sum(n for value, n in counts.items() if value >= self.threshold)
        seen = {v for name in self.names[1:] for v in self.values[name]}
        return sum(n for value, n in counts.items() if value in seen)

    def doubtful_pixels(self, counts: Mapping[int, int]) -> int:
        """Pixels between the classes: strictly between 0 and 255, where a threshold decides.

        There are none with a threshold of 1: every value above 0 was declared foreground.
        """
        if self.values is not None or self.threshold == 1:
            return 0
        if any(value > 255 or value < 0 for value in counts):
            return 0
        return sum(n for value, n in counts.items() if 0 < value < 255)

    def check(self, counts: Mapping[int, int], mask: object, *, by_default: bool) -> None:
        """Refuse a mask whose values the rule says nothing of.

        Args:
            counts: Number of pixels of each value.
            mask: What to call it.
            by_default: Whether the rule is the default, and not the user's choice.

        Raises:
            ImageError: With the value and its count.
        """
        if self.values is not None:
            known = {value for values in self.values.values() for value in values}
            for value, count in sorted(counts.items()):
                if value not in known:
                    raise ImageError(
                        f"mask {mask} has {count} pixel{'s' if count != 1 else ''} of value "
                        f"{value}, which belongs to no class ({self.words}); add the value to a "
                        f"class, or to {IGNORE}, by --classes.",
                        subject=mask,
                    )
        elif by_default and (ids := [value for value in counts if not 0 <= value <= 255]):
            raise ImageError(
                f"mask {mask} has labels such as {ids[-1]}, which is not a grey value; say what is "
                f"foreground: --instances for every label above 0, or --classes.",
                subject=mask,
            )


def parse_classes(rules: Sequence[str]) -> dict[str, list[int]]:
    """Read ``NAME=VALUE,VALUE`` rules, as ``--classes`` takes them.

    Raises:
        UsageError: A rule that cannot be read, or a class that is named twice.
    """
    classes: dict[str, list[int]] = {}
    for rule in rules:
        name, _, text = rule.partition("=")
        try:
            values = [int(value) for value in text.split(",")]
        except ValueError:
            raise UsageError(
                f"class {rule!r:.200} cannot be read; expected NAME=VALUE or NAME=VALUE,VALUE with "
                f"whole numbers, as mitochondria=191.",
                subject=rule,
            ) from None
        if name in classes:
            raise UsageError(f"class {name!r:.200} is named twice; name it once.", subject=rule)
        classes[name] = values
    return classes


def class_rule(threshold: int | None, classes: Mapping[str, Any] | None) -> ClassRule:
    """The rule that a dataset's options state.

    Raises:
        UsageError: Both are given, a class cannot be named so, or a value has two classes.
    """
    if classes is None:
        return ClassRule(DEFAULT_THRESHOLD if threshold is None else threshold)
    if threshold is not None:
        raise UsageError(
            "classes and mask_threshold both say what is foreground; leave one of them out.",
            subject=classes,
        )
    for name in classes:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r:.200} cannot name a class; expected up to 40 small letters, digits, _ "
                f"and -, a letter first.",
                subject=name,
            )
    owner: dict[int, str] = {}
    for name, values in classes.items():
        for value in values:
            if not -_LARGEST <= value < _LARGEST:
                raise UsageError(
                    f"a value of class {name} has more than 64 bits; expected a label as masks "
                    f"hold it.",
                    subject=name,
                )
            if value in owner:
                raise UsageError(
                    f"mask value {value} belongs to {owner[value]} and to {name}; expected one "
                    f"class for each value.",
                    subject=value,
                )
            owner[value] = name
    rule = ClassRule(None, {name: tuple(values) for name, values in classes.items()})
    if BACKGROUND not in classes or not 2 <= len(rule.names) <= _MOST:
        raise UsageError(
            f"classes {', '.join(classes) or 'none'} do not make a segmentation; expected "
            f"{BACKGROUND}=VALUE and at least one other (at most {_MOST}).",
            subject=classes,
        )
    if FOREGROUND in rule.names and len(rule.names) > 2:
        raise UsageError(
            f"a class called {FOREGROUND} stands for all classes but the background; call it "
            f"otherwise.",
            subject=FOREGROUND,
        )
    return rule

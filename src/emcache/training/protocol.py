"""Training protocols: frozen objects with a name.

The label of a protocol names every field that differs from the named one, as
``paper[max_epochs=3]``, and stands in every table beside the score: runs of different protocols are
never averaged together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from emcache.errors import UsageError

LINEAR_LEARNING_RATE = 1e-2
"""What suits a linear head on frozen tokens; the measurements stand in ``docs/commands.md``."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a head is trained; the defaults are the study's (arXiv 2602.08505)."""

    name: str = "paper"
    """The named protocol this one is, or starts from."""
    head: Literal["deconv", "linear"] = "deconv"
    """The study's upsampling head, or batch norm and one 1x1 convolution."""
    loss: str = "dice"
    """MONAI's Dice loss: softmax, one-hot, background included."""
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    weight_decay: float = 1e-4
    batch: int = 2
    """Slices in a step."""
    max_epochs: int = 1000
    patience: int = 20
    """Epochs without a lower validation loss after which training stops."""
    val_fraction: float = 0.1
    """Share of the training slices held out, rounded, at least one."""
    val_seed: int = 42
    """Seed of that choice; fixed, so that runs differ in the training seed alone."""
    val_split: Literal["random", "block"] = "random"
    """Slices drawn at random, or a run of neighbours: in a stack, a random validation slice lies
    between two training slices that look almost the same."""
    augmentation: str = "none"
    gradient_clip: float | None = None
    """Largest norm of the gradient, or None."""
    pixel_size_nm: float | None = None
    """Pitch that every dataset is brought to, or None where the longest edge sets the size."""
    lora_rank: int = 16
    """Rank of the adapters, in the LoRA regime."""
    lora_alpha: float = 32.0
    """Their updates are scaled by alpha / rank."""
    lora_targets: str = "attn.qkv+attn.proj"
    """Layers of every block that carry an adapter, joined by ``+``."""

    def __post_init__(self) -> None:
        bounds = {
            "learning_rate": 0 < self.learning_rate < 1e6,
            "weight_decay": self.weight_decay >= 0,
            "batch": self.batch >= 1,
            "max_epochs": self.max_epochs >= 1,
            "patience": self.patience >= 1,
            "val_fraction": 0 < self.val_fraction < 1,
            "gradient_clip": self.gradient_clip is None or self.gradient_clip > 0,
            "lora_rank": self.lora_rank >= 1,
            "lora_alpha": 0 < self.lora_alpha < 1e6,
            "loss": self.loss == "dice",
            "optimizer": self.optimizer == "adamw",
            "augmentation": self.augmentation == "none",
            "val_seed": 0 <= self.val_seed < 2**31,
            "lora_targets": len(set(self.lora_targets.split("+")))
            == len(self.lora_targets.split("+")),
            "head": self.head in ("deconv", "linear"),
            "val_split": self.val_split in ("random", "block"),
        }
        for field, holds in bounds.items():
            if not holds:
                raise UsageError(
                    f"the protocol's {field} cannot be {getattr(self, field)!r:.80}; choose a "
                    f"positive number (val_fraction below 1; head deconv or linear; val_split "
                    f"random or block; loss dice; optimizer adamw; augmentation none; each LoRA "
                    f"target once).",
                    subject=field,
                )

    @property
    def label(self) -> str:
        """``paper``, or ``paper[max_epochs=3]`` with every changed field."""
        values, named = self.as_dict(), PROTOCOLS[self.name].as_dict()
        changed = [f"{name}={value}" for name, value in values.items() if value != named[name]]
        return self.name if not changed else f"{self.name}[{', '.join(changed)}]"

    def with_changes(self, changes: Mapping[str, Any]) -> Protocol:
        """A protocol with some fields changed; None leaves a field as it is."""
        given = {field: value for field, value in changes.items() if value is not None}
        _check_choices(given)
        return replace(self, **given)

    def as_dict(self) -> dict[str, Any]:
        """Every field, as records name its value."""
        return {**asdict(self), "head": _RECORDED_HEADS[self.head]}


# Heads as records, labels and fingerprints call them. A head called "linear" there is the bare
# convolution of earlier versions; its runs must share no row with those of today's.
_RECORDED_HEADS: Mapping[str, Literal["deconv", "bn-linear"]] = {
    "deconv": "deconv",
    "linear": "bn-linear",
}

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "head": ("deconv", "linear"),
    "val_split": ("random", "block"),
}


def _check_choices(values: Mapping[str, Any]) -> None:
    for name, known in _CHOICES.items():
        if values.get(name, known[0]) not in known:
            raise UsageError(
                f"the protocol's {name} cannot be {values[name]!r:.80}; expected "
                f"{' or '.join(known)}.",
                subject=name,
            )


def _is_held(value: object) -> bool:
    return not isinstance(value, int) or abs(value) < 1 << 63


def read_protocol(values: Mapping[str, Any]) -> Protocol:
    """A protocol from what a record keeps of it; fields that this version lacks are left out.

    Raises:
        UsageError: A field of another type, or one that cannot be.
    """
    given: dict[str, Any] = {}
    for name, value in values.items():
        allowed = _TYPES.get(name, ())
        # JSON knows integers that no float holds.
        fits = isinstance(value, allowed) and not isinstance(value, bool) and _is_held(value)
        if allowed and not fits:
            raise UsageError(
                f"the protocol's {name} cannot be {value!r:.80}; expected one like "
                f"{getattr(PROTOCOLS['paper'], name)!r}.",
                subject=name,
            )
        if allowed:
            # A whole number in JSON may be a float that was written so.
            given[name] = float(value) if float in allowed and value is not None else value
    if "head" in given:
        given["head"] = _head_of(given["head"])
    _check_choices(given)
    find_protocol(given.get("name", "paper"))
    return Protocol(**given)


def _head_of(recorded: str) -> str:
    for head, name in _RECORDED_HEADS.items():
        if name == recorded:
            return head
    raise UsageError(
        f"the protocol's head cannot be {recorded!r:.80}; expected "
        f"{' or '.join(_RECORDED_HEADS.values())} (linear was a convolution without batch norm, "
        f"which this version does not have).",
        subject="head",
    )


PROTOCOLS: Mapping[str, Protocol] = {"paper": Protocol()}
"""Every protocol by its name."""


_OPTIONAL_NUMBERS = ("gradient_clip", "pixel_size_nm")
_TYPES: Mapping[str, tuple[type, ...]] = {
    field.name: (int, float, type(None))
    if field.name in _OPTIONAL_NUMBERS
    else ((int, float) if isinstance(field.default, float) else (type(field.default),))
    for field in fields(Protocol)
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(
            f"there is no protocol {name!r:.80}; known: {', '.join(PROTOCOLS)}.", subject=name
        )
    return PROTOCOLS[name]


def parse_fields(texts: Iterable[str]) -> dict[str, Any]:
    """Read fields of a protocol as they are typed: ``weight_decay=1e-3``.

    Args:
        texts: ``FIELD=VALUE`` each; ``none`` is the value of a limit that is not set.

    Returns:
        Values of the fields' own types.

    Raises:
        UsageError: An unknown field, a value of another type, or a field given twice.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        known = [field for field in _TYPES if field != "name"]
        if not equals or name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(
                f"{text!r:.200} sets no field of the protocol; expected FIELD=VALUE; {hint}known: "
                f"{', '.join(known)}.",
                subject=text,
            )
        if name in given:
            raise UsageError(f"{name} is set twice; expected it once.", subject=name)
        given[name] = _read_value(name, value)
    return given


def _read_value(name: str, text: str) -> Any:
    allowed = _TYPES[name]
    if type(None) in allowed and text.lower() == "none":
        return None
    try:
        if float in allowed:
            return float(text)
        return int(text) if int in allowed else text
    except ValueError:
        usual = getattr(PROTOCOLS["paper"], name)
        example = 1.0 if usual is None else usual
        raise UsageError(
            f"{name} cannot be {text!r:.80}; expected a value like {example}.",
            subject=name,
        ) from None


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

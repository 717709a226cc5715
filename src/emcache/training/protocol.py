"""Training protocols: frozen objects with a name.

The label of a protocol names every field that differs from the named one, as
``paper[max_epochs=3]``, and stands in every table beside the score: runs of different protocols are
never averaged together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, create_model

from emcache.cache.alignment import METHODS, Method
from emcache.cache.recipe import LAST, read_layers, read_shift
from emcache.data.greys import read_grey_rule
from emcache.errors import UsageError, suggest
from emcache.validation import Content, Misfit, check

LINEAR_LEARNING_RATE = 1e-2
"""What suits a linear head on frozen tokens; the measurements stand in ``docs/commands.md``."""

_Trained = Literal["deconv", "deconv-skip", "linear"]
_Fitted = Literal["prototype", "knn", "forest", "forest-filters", "filters", "boosting", "logistic"]
_OnSlices = Literal["unet", "clipseg"]
Head = _Trained | _Fitted | _OnSlices
_ALL_HEADS: Sequence[str] = (*get_args(_Trained), *get_args(_Fitted), *get_args(_OnSlices))
_HEADS = f"one of {', '.join(_ALL_HEADS)}"
_LARGEST = 2**31 - 1
_Count = Annotated[int, Ge(1), Le(_LARGEST), Field(description="a whole number of at least 1")]
_Rate = Annotated[float, Gt(0), Lt(1e6), Field(description="a number above 0 and below 1e6")]
_Blocks = Annotated[
    int | None,
    Field(ge=1, le=_LARGEST, description="a whole number of at least 1, or none for all"),
]
_Optional = Annotated[
    int | None, Field(ge=1, le=_LARGEST, description="a whole number of at least 1, or none")
]
_Limit = Annotated[
    float | None, Field(gt=0, description="a positive number, or none where there is no limit")
]


def _different(targets: str) -> str:
    names = targets.split("+")
    if len(set(names)) < len(names):
        raise ValueError("one is named twice")
    return targets


def _shifted(tokens: str) -> str:
    read_shift(tokens)
    return tokens


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a head is trained; the defaults are the study's (arXiv 2602.08505).

    Raises:
        UsageError: A field of another type, or outside its bounds.
    """

    name: str = "paper"
    """The named protocol this one is, or starts from."""
    head: Annotated[Head, Field(description=_HEADS)] = "deconv"
    """The study's upsampling head, the same with a shallow branch on the slice itself, or batch
    norm and one 1x1 convolution; one that is fitted to a few labelled points
    (:mod:`emcache.models.fitted`); or, on the slices themselves, a U-Net or CLIPSeg."""
    loss: Annotated[Literal["dice"], Field(description="dice")] = "dice"
    """MONAI's Dice loss: softmax, one-hot, background included."""
    optimizer: Annotated[Literal["adamw"], Field(description="adamw")] = "adamw"
    learning_rate: _Rate = 5e-5
    weight_decay: Annotated[float, Ge(0), Field(description="a number of at least 0")] = 1e-4
    batch: _Count = 2
    """Slices in a step."""
    max_epochs: _Count = 1000
    patience: _Count = 20
    """Epochs without a lower validation loss after which training stops."""
    val_fraction: Annotated[float, Gt(0), Lt(1), Field(description="a number between 0 and 1")] = (
        0.1
    )
    """Share of the training slices held out, rounded, at least one."""
    val_seed: Annotated[
        int, Ge(0), Le(_LARGEST), Field(description=f"a whole number from 0 to {_LARGEST}")
    ] = 42
    """Seed of that choice; fixed, so that runs differ in the training seed alone."""
    val_split: Annotated[Literal["random", "block"], Field(description="random or block")] = (
        "random"
    )
    """Slices drawn at random, or a run of neighbours: in a stack, a random validation slice lies
    between two training slices that look almost the same."""
    augmentation: Annotated[
        Literal["none", "crops", "full"], Field(description="none, crops or full")
    ] = "none"
    """Of slices that a network is trained on: random crops, or crops that are also flipped, rotated
    and changed in grey (:mod:`emcache.training.augmentation`)."""
    gradient_clip: _Limit = None
    """Largest norm of the gradient, or None."""
    pixel_size_nm: _Limit = None
    """Pitch that every dataset is brought to, or None where the longest edge sets the size."""
    lora_rank: _Count = 16
    """Rank of the adapters, in the LoRA regime."""
    lora_alpha: _Rate = 32.0
    """Their updates are scaled by alpha / rank."""
    lora_targets: Annotated[
        str,
        AfterValidator(_different),
        Field(description="names of layers joined by +, each once"),
    ] = "attn.qkv+attn.proj"
    """Layers of every block that carry an adapter, joined by ``+``."""

    # From here on fields that came later: see as_dict.
    lora_last_blocks: _Blocks = None
    """How many of the last blocks carry adapters, or None for all of them."""
    backbone_learning_rate: _Rate = 1e-5
    """Of the backbone's own weights, where all of them are trained; adapters have the head's."""

    normalise: Annotated[
        str,
        AfterValidator(read_grey_rule),
        Field(description="none, percentile, clahe or histogram:DATASET"),
    ] = "none"
    """What is done to the greys of every slice first (:mod:`emcache.data.greys`)."""
    tokens: Annotated[
        str,
        AfterValidator(_shifted),
        Field(description="patch, or shift:N with N from 2 to 19"),
    ] = "patch"
    """One token for each patch, or ``shift:2`` with two along each edge of a patch, from four
    passes that are shifted by parts of it."""
    layers: Annotated[
        str,
        AfterValidator(read_layers),
        Field(description="last, last4, or numbers of blocks as 3,6,9,12"),
    ] = LAST
    """Blocks of the backbone whose tokens the head reads, one after the other along the channels:
    ``last``, the last few as ``last4``, or their numbers from 1 (:mod:`emcache.cache.layers`)."""
    align: Annotated[Method, Field(description=f"one of {', '.join(METHODS)}")] = "none"
    """How the tokens of each dataset are aligned (:mod:`emcache.cache.alignment`); ``coral`` and
    ``quantile`` lead to the dataset that is named first."""
    align_on: Annotated[Literal["train", "test"], Field(description="train or test")] = "train"
    """Whose unlabelled tokens say how: those of the training slices, or of the test slices, which
    makes the score a transductive one."""
    align_shrinkage: Annotated[float, Ge(0), Le(1), Field(description="a number from 0 to 1")] = 0.0
    """Share of a covariance that the mean of its diagonal takes the place of."""

    penalty: Annotated[
        Literal["none", "mmd", "gradient-reversal"],
        Field(description="none, mmd or gradient-reversal"),
    ] = "none"
    """What makes the head's hidden tokens alike in all datasets of a training
    (:mod:`emcache.training.penalties`)."""
    penalty_weight: _Rate = 0.1
    """By which the penalty is multiplied before it is added to the loss."""

    train_slices: _Optional = None
    """How many training slices of each dataset are learned from, those of the validation included;
    None for all. Subsets of one seed are nested."""
    train_subset: Annotated[Literal["random", "block"], Field(description="random or block")] = (
        "random"
    )
    """Slices drawn at random, or neighbours."""

    clicks: _Optional = None
    """Points of each class that are drawn from masks, for a head that is fitted."""
    scribbles: Annotated[
        float | None, Field(gt=0, le=1, description="a share from 0 to 1, or none")
    ] = None
    """Share of the pixels that are drawn in strokes instead."""
    annotations: str = "none"
    """Name and hash of the user's own points instead."""
    from_slices: _Count = 1
    """Training slices that points are drawn in."""
    neighbours: _Count = 5
    """Of ``knn``."""
    trees: _Count = 100
    """Of ``forest`` and ``boosting``."""
    threshold: Annotated[float, Gt(0), Lt(1), Field(description="a number between 0 and 1")] = 0.5
    """Score above which a fitted head, or CLIPSeg, calls a pixel foreground."""

    crop: Annotated[
        int, Ge(32), Le(_LARGEST), Field(description="a whole number of at least 32")
    ] = 256
    """Edge in pixels of the crops that a U-Net is trained on, and of the windows that it predicts
    in; floored to a multiple of 16."""
    tta: Annotated[bool, Field(description="true or false")] = False
    """Whether a U-Net's logits are the mean over the eight flips and quarter turns of a slice."""
    prompt: Annotated[str, Field(min_length=1, description="words")] = "none"
    """What CLIPSeg looks for."""

    tile: _Optional = None
    """Edge of the tiles that slices are cut into, in pixels as stored; None for whole slices."""
    overlap: Annotated[
        int | None,
        Field(ge=0, le=_LARGEST, description="a whole number of at least 0, or none"),
    ] = None
    """Pixels that they share with the next; None for an eighth of the edge."""

    def __post_init__(self) -> None:
        # A whole number may stand where a float is meant; fingerprints tell 1 from 1.0.
        for name, value in _checked(asdict(self)).items():
            object.__setattr__(self, name, value)

    @property
    def label(self) -> str:
        """``paper``, or ``paper[max_epochs=3]`` with every changed field."""
        values, named = self.as_dict(), PROTOCOLS[self.name].as_dict()
        changed = [
            f"{name}={value}"
            for name, value in values.items()
            if value != named.get(name, _MISSING)
        ]
        if self.align != "none" and self.align_on == "test":
            changed.append("transductive")
        return self.name if not changed else f"{self.name}[{', '.join(changed)}]"

    def with_changes(self, changes: Mapping[str, Any]) -> Protocol:
        """A protocol with some fields changed; None leaves a field as it is.

        Raises:
            UsageError: There is no such field, or it cannot be so.
        """
        for name in changes:
            check_field(name)
        given = {name: value for name, value in changes.items() if value is not None}
        return Protocol(**_checked({**asdict(self), **given}))

    def as_dict(self) -> dict[str, Any]:
        """Every field, as records name its value.

        Fields that came later are left out where they change nothing, so that fingerprints of
        earlier versions hold.
        """
        values = {**asdict(self), "head": _RECORDED_HEADS[self.head]}
        return {
            name: value for name, value in values.items() if value != _LATER.get(name, _MISSING)
        }


_TYPES: Mapping[str, Any] = {
    field.name: get_type_hints(Protocol, include_extras=True)[field.name]
    for field in fields(Protocol)
}
_MISSING = object()
_LATER: Mapping[str, object] = {
    field.name: field.default
    for field in fields(Protocol)[list(_TYPES).index("lora_last_blocks") :]
}
_DEFINED: Any = {field.name: (_TYPES[field.name], field.default) for field in fields(Protocol)}
_MODEL: type[Content] = create_model("_ProtocolFields", __base__=Content, **_DEFINED)

# Heads as records, labels and fingerprints call them. A head called "linear" there is the bare
# convolution of earlier versions; its runs must share no row with those of today's.
_RECORDED_HEADS: Mapping[str, str] = {name: name for name in _ALL_HEADS} | {"linear": "bn-linear"}


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    found = check(_MODEL, dict(values))
    if isinstance(found, Misfit):
        raise UsageError(
            f"the protocol's {found.key} cannot be {found.value!r:.80}; expected "
            f"{found.expected or 'a text'}.",
            subject=found.key,
        )
    return found.model_dump()


def read_protocol(values: Mapping[str, Any]) -> Protocol:
    """A protocol from what a record keeps of it; fields that this version lacks are left out.

    Raises:
        UsageError: A field of another type, or one that cannot be.
    """
    given = {name: value for name, value in values.items() if name in _TYPES}
    if "head" in given:
        given["head"] = _head_of(given["head"])
    given = {**given, "name": find_protocol(given.get("name", "paper")).name}
    return Protocol(**_checked(given))


def _head_of(recorded: object) -> str:
    for head, name in _RECORDED_HEADS.items():
        if name == recorded:
            return head
    raise UsageError(
        f"the protocol's head cannot be {recorded!r:.80}; expected "
        f"{' or '.join(_RECORDED_HEADS.values())} (linear was a convolution without batch norm, "
        f"which this version does not have).",
        subject="head",
    )


PROTOCOLS: Mapping[str, Protocol] = {
    "paper": Protocol(),
    "few-label": Protocol(name="few-label", head="knn", clicks=5),
    "unet": Protocol(
        name="unet", head="unet", learning_rate=1e-3, patience=40, augmentation="full"
    ),
    "zero-shot": Protocol(name="zero-shot", head="clipseg"),
}
"""Every protocol by its name: the study's, one for heads that are fitted, one for U-Nets, and one
for text prompts."""


def find_protocol(name: object) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: There is none.
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise UsageError(
            f"there is no protocol {name!r:.80}; known: {', '.join(PROTOCOLS)}.", subject=name
        )
    return PROTOCOLS[name]


def check_field(name: str) -> None:
    """Refuse what is not a field of a protocol that can be changed.

    Raises:
        UsageError: A field that it resembles is named, and all.
    """
    known = [field for field in _TYPES if field != "name"]
    if name not in known:
        raise UsageError(
            f"the protocol has no field {name!r:.100} to set; {suggest(name, known)}known: "
            f"{', '.join(known)}.",
            subject=name,
        )


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
        if not equals:
            raise UsageError(
                f"{text!r:.200} sets no field of the protocol; expected FIELD=VALUE, as "
                f"weight_decay=1e-3.",
                subject=text,
            )
        check_field(name)
        if name in given:
            raise UsageError(f"{name} is set twice; expected it once.", subject=name)
        given[name] = _read_value(name, value)
    return given


def _base(annotated: Any) -> Any:
    """The type within an ``Annotated``."""
    return get_args(annotated)[0] if get_origin(annotated) is Annotated else annotated


def _read_value(name: str, text: str) -> Any:
    if type(None) in get_args(_base(_TYPES[name])) and text.lower() == "none":
        return None
    try:
        return TypeAdapter(_TYPES[name]).validate_strings(text)
    except ValidationError:
        expected = _MODEL.model_fields[name].description
        raise UsageError(
            f"{name} cannot be {text!r:.80}; expected {expected}.", subject=name
        ) from None

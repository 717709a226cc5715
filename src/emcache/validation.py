"""Values from files and command lines, checked against pydantic models.

The ``description`` of a field says what is expected of it, for errors of one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from emcache.errors import suggest

Model = TypeVar("Model", bound=BaseModel)


class Table(BaseModel):
    """A table of a file that somebody writes: keys that are not known are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Content(BaseModel):
    """What a file that emcache wrote must hold; it may hold more."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Misfit:
    """The first thing in some values that does not fit."""

    kind: Literal["unknown", "missing", "value"]
    path: tuple[str, ...]
    """Keys that lead to it, from outside to inside."""
    value: object
    """What was found there."""
    expected: str
    """The description of the field."""
    known: tuple[str, ...]
    """The keys that could stand there."""

    @property
    def key(self) -> str:
        """All the keys, with dots between them."""
        return ".".join(self.path)

    @property
    def known_keys(self) -> str:
        """For a key that is not known: the closest of those that are, and all of them."""
        return f"{suggest(self.path[-1], self.known)}known: {', '.join(self.known) or 'none'}"


def check(model: type[Model], values: object) -> Model | Misfit:
    """The values as an object of a model, or what does not fit.

    Unknown keys come first, then missing ones, then values: a mistyped key is also a missing one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    misfits = [_misfit(model, values, each["loc"], each["type"]) for each in found]
    return min(misfits, key=lambda misfit: ("unknown", "missing", "value").index(misfit.kind))


def _misfit(
    model: type[BaseModel] | None, values: Any, place: tuple[int | str, ...], error: str
) -> Misfit:
    path: list[str] = []
    expected, named = "", False
    known: tuple[str, ...] = ()
    for part in place:
        if isinstance(part, int) and isinstance(values, list):
            values = values[part] if part < len(values) else None
        elif named and isinstance(values, Mapping):
            # A table of tables, whose keys are names of the user's.
            path.append(str(part))
            values, named = values.get(part), False
        elif model is not None and isinstance(values, Mapping):
            path.append(str(part))
            known = tuple(model.model_fields)
            field = model.model_fields.get(str(part))
            values = values.get(part)
            if field is None:
                break
            expected, model = field.description or "", _model_in(field.annotation)
            named = get_origin(field.annotation) is dict
        else:
            # Which kind of a union it was held against.
            break
    kinds: Mapping[str, Literal["unknown", "missing"]] = {
        "extra_forbidden": "unknown",
        "missing": "missing",
    }
    return Misfit(kinds.get(error, "value"), tuple(path), values, expected, known)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)

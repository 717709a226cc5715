"""Values checked against a model: what is said of the first that does not fit."""

from __future__ import annotations

import pytest
from pydantic import Field

from emcache.validation import Misfit, Table, check


class Inner(Table):
    size: int = Field(description="a number")


class Outer(Table):
    name: str = Field(description="a text")
    inner: list[Inner] = Field([], description="tables")
    named: dict[str, Inner] = Field({}, description="tables by name")
    either: str | list[int] = Field("x", description="a text or numbers")


@pytest.mark.parametrize(
    ("values", "kind", "key", "value", "expected"),
    [
        ({"nmae": "x"}, "unknown", "nmae", "x", ""),
        ({}, "missing", "name", None, "a text"),
        ({"name": 3}, "value", "name", 3, "a text"),
        (
            {"name": "x", "inner": [{"size": 1}, {"size": "2"}]},
            "value",
            "inner.size",
            "2",
            "a number",
        ),
        ({"name": "x", "inner": [{}]}, "missing", "inner.size", None, "a number"),
        ({"name": "x", "inner": 3}, "value", "inner", 3, "tables"),
        ({"name": "x", "named": {"a": {"size": 1.5}}}, "value", "named.a.size", 1.5, "a number"),
        ({"name": "x", "either": [1, "2"]}, "value", "either", [1, "2"], "a text or numbers"),
        ({"name": True, "nmae": 1}, "unknown", "nmae", 1, ""),
    ],
)
def test_the_first_misfit(
    values: dict[str, object], kind: str, key: str, value: object, expected: str
) -> None:
    found = check(Outer, values)
    assert isinstance(found, Misfit)
    assert (found.kind, found.key, found.value, found.expected) == (kind, key, value, expected)


def test_what_fits_is_an_object() -> None:
    assert check(Outer, {"name": "x"}) == Outer(name="x")
    assert isinstance(check(Outer, "no table"), Misfit)


def test_known_keys_begin_with_the_closest() -> None:
    found = check(Outer, {"nmae": "x"})
    assert isinstance(found, Misfit)
    assert found.known_keys == "did you mean name? known: name, inner, named, either"

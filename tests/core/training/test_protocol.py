"""Fields of a protocol as they are typed."""

import dataclasses

import pytest

from emcache.errors import UsageError
from emcache.training.protocol import Protocol, find_protocol, parse_fields
from emcache.training.regimes import find_regime


def test_every_field_can_be_set() -> None:
    other = {
        "head": "linear",
        "loss": "dice",
        "optimizer": "adamw",
        "augmentation": "none",
        "val_split": "block",
        "gradient_clip": "1",
        "pixel_size_nm": "8",
        "lora_targets": "attn.qkv",
        "val_fraction": "0.2",
        "align": "coral",
        "align_on": "test",
        "align_shrinkage": "0.5",
        "normalise": "clahe",
        "penalty": "mmd",
        "tokens": "shift:2",
        "scribbles": "0.1",
        "train_subset": "block",
        "threshold": "0.3",
        "crop": "64",
        "prompt": "mitochondria",
        "tta": "True",
    }
    for field in dataclasses.fields(Protocol):
        if field.name == "name":
            continue
        given = parse_fields([f"{field.name}={other.get(field.name, '3')}"])
        changed = find_protocol("paper").with_changes(given)
        value = getattr(changed, field.name)
        assert str(value).removesuffix(".0") == other.get(field.name, "3")
        # Fingerprints tell 3 from 3.0.
        if isinstance(field.default, int | float):
            assert type(value) is type(field.default)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["wieght_decay=1"], "did you mean weight_decay"),
        (["weight_decay"], "expected FIELD=VALUE"),
        (["name=other"], "has no field 'name'"),
        (["batch=two"], "batch cannot be 'two'; expected a whole number of at least 1"),
        (["batch=2.5"], "batch cannot be '2.5'"),
        (["gradient_clip=x"], "gradient_clip cannot be 'x'; expected a positive number, or none"),
        (["batch=2", "batch=3"], "batch is set twice"),
    ],
)
def test_what_no_field_can_be(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_fields(texts)


def test_a_limit_can_be_taken_away() -> None:
    assert parse_fields(["gradient_clip=none"]) == {"gradient_clip": None}


@pytest.mark.parametrize(
    ("regime", "fields", "name"),
    [
        ("frozen", {"clicks": 9}, "clicks"),
        ("frozen", {"crop": 64}, "crop"),
        ("lora", {"threshold": 0.4}, "threshold"),
        ("few-label", {"augmentation": "full"}, "augmentation"),
        ("supervised", {"prompt": "cell"}, "prompt"),
        ("supervised", {"neighbours": 3}, "neighbours"),
        ("zero-shot", {"tta": True}, "tta"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(regime: str, fields: dict, name: str) -> None:
    known = find_regime(regime)
    plain = find_protocol(known.protocol)
    known.check_fields(plain)
    with pytest.raises(UsageError, match=f"{name} is .* which nothing in this regime reads"):
        known.check_fields(plain.with_changes(fields))

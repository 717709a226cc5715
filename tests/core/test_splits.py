import random

import pytest

from emcache.errors import UsageError
from emcache.splits import DEFAULT_SPLIT, assign_splits


def test_default_is_the_published_vnc_split() -> None:
    ids = [f"{i:02d}" for i in range(20)]
    shuffled = list(ids)
    random.Random(42).shuffle(shuffled)
    splits = assign_splits(list(reversed(ids)), [DEFAULT_SPLIT])
    assert {i for i in ids if splits[i] == "train"} == set(shuffled[:17])
    assert {i for i in ids if splits[i] == "test"} == set(shuffled[17:])


def test_patterns() -> None:
    splits = assign_splits(["a/1", "a/2", "b/1"], ["train=a/*", "test=b/*"])
    assert splits == {"a/1": "train", "a/2": "train", "b/1": "test"}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (["train=a*", "test=*1"], "slice a1 matches 2"),
        (["train=x*"], "slice a1 matches 0"),
        (["random:0.01:42"], "puts 0 of 3 slices into test"),
        (["random:0.9:42"], "puts 3 of 3 slices into test"),
        (["random:1.0:42"], "cannot be read"),
        (["random:nan:42"], "cannot be read"),
        (["random:half:42"], "cannot be read"),
        (["train"], "cannot be read"),
    ],
)
def test_rules_that_cannot_be(rules: list[str], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        assign_splits(["a1", "a2", "b3"], rules)

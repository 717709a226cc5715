import random
from pathlib import Path

import pytest

from emcache.data.splits import DEFAULT_SPLIT, assign_splits, read_split_lists
from emcache.errors import UsageError


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


def test_a_block_with_a_gap() -> None:
    ids = [str(place) for place in range(20)]
    split = assign_splits(ids[::-1], ["block:0.15:2"])
    assert [split[name] for name in ids] == ["train"] * 15 + ["gap"] * 2 + ["test"] * 3
    assert list(assign_splits(ids, ["block:0.5:0"]).values()).count("gap") == 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("block:0.5", "cannot be read"),
        ("block:1.5:1", "cannot be read"),
        ("block:0.5:-1", "cannot be read"),
        ("block:0.5:10", "leaves 0 of 20 slices to train on and 10 to test"),
        ("block:0.01:0", "20 to train on and 0 to test|leaves 20 of 20"),
    ],
)
def test_blocks_that_cannot_be(rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        assign_splits([str(place) for place in range(20)], [rule])


def test_lists() -> None:
    lists = {"train": ["a", "c"], "test": ["b"]}
    assert assign_splits(["a", "b", "c"], lists) == {"a": "train", "b": "test", "c": "train"}
    for wrong, reason in (
        ({"train": ["a", "b"], "test": ["b", "c"]}, "slice b is in the lists of train and test"),
        ({"train": ["a", "d"], "test": ["b", "c"]}, "lists slice 'd', which is not there"),
        ({"train": ["a"], "test": ["b"]}, "slice c is in no split's list"),
        ({"my train": ["a", "b", "c"]}, "split rule 'my train' cannot be read"),
    ):
        with pytest.raises(UsageError, match=reason):
            assign_splits(["a", "b", "c"], wrong)


def test_lists_in_files(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n b \n\n")
    (tmp_path / "test.txt").write_text("c\n")
    rules = [f"{name}=@{tmp_path}/{name}.txt" for name in ("train", "test")]
    assert read_split_lists(rules) == {"train": ["a", "b"], "test": ["c"]}
    assert read_split_lists(["train=a*"]) == ["train=a*"]
    with pytest.raises(UsageError, match="do not go together"):
        read_split_lists([rules[0], "test=c"])
    with pytest.raises(UsageError, match=r"list .*gone\.txt of split train cannot be read"):
        read_split_lists(["train=@gone.txt"])

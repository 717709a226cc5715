"""Wrong pairings on purpose."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.auditing.run import AuditState, accept_audits, audit_dataset, audit_key
from emcache.data.dataset import Dataset, load_dataset
from emcache.data.pairing import Scramble
from emcache.data.register import add_dataset
from emcache.errors import AuditError, DatasetError, UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace


@pytest.fixture
def lucchi_names(tmp_path: Path) -> Path:
    """Twelve slices a split, called as those of Lucchi++; each mask is grey by its own number."""
    root = tmp_path / "lucchi"
    write_domain(tmp_path / "made-up", STYLES["sharp"], slices=24, size=64, seed=3)
    images = sorted((tmp_path / "made-up/images").iterdir())
    masks = sorted((tmp_path / "made-up/masks").iterdir())
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        split, number = ("Train", "Test")[place // 12], place % 12
        for folder in (f"{split}_In", f"{split}_Out"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / f"{split}_In/mask{number:04d}.png").write_bytes(image.read_bytes())
        (root / f"{split}_Out/{number}.png").write_bytes(mask.read_bytes())
    return root


def add(workspace: Workspace, root: Path, scramble: str | None, name: str = "wrong") -> Dataset:
    add_dataset(workspace, name, "lucchi++", root, {"scramble": scramble}, Quiet())
    return load_dataset(workspace, name)


def numbers(dataset: Dataset, split: str) -> list[tuple[int, int]]:
    """Of each image and its mask, by their file names."""
    return [
        (int(re.findall(r"\d+", s.image.path.stem)[0]), int(s.mask.path.stem))
        for s in dataset.slices
        if s.split == split and s.mask is not None
    ]


RIGHT = [(n, n) for n in range(12)]
# The order of 0, 1, 10, 11, 2 ... that a sort of text gives, written out by hand.
WRONG = list(zip(range(12), [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9], strict=True))


@pytest.mark.parametrize(
    ("scramble", "train", "test"),
    [
        (None, RIGHT, RIGHT),
        ("string", WRONG, WRONG),
        ("string:train", WRONG, RIGHT),
        ("string:test", RIGHT, WRONG),
    ],
)
def test_masks_stand_in_string_order_where_that_was_asked_for(
    workspace: Workspace, lucchi_names: Path, scramble: str | None, train: object, test: object
) -> None:
    dataset = add(workspace, lucchi_names, scramble)
    assert numbers(dataset, "train") == train
    assert numbers(dataset, "test") == test
    assert ("string order on purpose" in dataset.pairing) == (scramble is not None)


def test_the_audit_refuses_it_unless_that_is_accepted(
    workspace: Workspace, lucchi_names: Path
) -> None:
    right = add(workspace, lucchi_names, None, "right")
    wrong = add(workspace, lucchi_names, "string:test")
    with pytest.raises(AuditError, match=r"By the dataset's own table, masks are paired in string"):
        accept_audits(workspace, [_without_other_failures(wrong)], False, Quiet())
    assert accept_audits(workspace, [wrong], True, Quiet())[0] is True
    audit, record = audit_dataset(workspace, right, Quiet())
    assert "scramble" not in [check.name for check in audit.checks]
    assert not any("on purpose" in sentence for sentence in AuditState(record).failed)


def _without_other_failures(dataset: Dataset) -> Dataset:
    """No masks to compare: then nothing but the table can fail."""
    return replace(dataset, slices=tuple(replace(s, foreground_pixels=0) for s in dataset.slices))


def test_the_same_pairs_that_nobody_scrambled_have_an_audit_of_their_own(
    workspace: Workspace, lucchi_names: Path
) -> None:
    wrong = add(workspace, lucchi_names, "string")
    assert audit_key(wrong) != audit_key(replace(wrong, scramble=None))


@pytest.mark.parametrize("text", ["strin", "string:", "", "natural", ":train"])
def test_what_is_no_scramble(workspace: Workspace, lucchi_names: Path, text: str) -> None:
    with pytest.raises(UsageError, match="scramble cannot be"):
        add(workspace, lucchi_names, text)
    assert not workspace.dataset_names()


def test_an_order_that_changes_nothing_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "few"
    for place in range(4):
        for split in ("Train", "Test"):
            for folder, name in ((f"{split}_In", f"mask{place:04d}"), (f"{split}_Out", f"{place}")):
                (root / folder).mkdir(parents=True, exist_ok=True)
                pixels = np.full((32, 32), 10 * place + len(split), np.uint8)
                pixels[place : place + 9, :9] = 255 if folder.endswith("Out") else 90
                Image.fromarray(pixels).save(root / folder / f"{name}.png")
    with pytest.raises(DatasetError, match="pair rightly in string order, too"):
        add(workspace, root, "string")
    with pytest.raises(
        DatasetError, match=r"no labelled slice in split 'tset'.*known: train, test"
    ):
        add(workspace, root, "string:tset")


def test_real_slices(workspace: Workspace, lucchi_root: Path) -> None:
    dataset = add(workspace, lucchi_root, "string:train")
    assert [image == mask for image, mask in numbers(dataset, "test")] == [True] * 72
    wrong = sum(image != mask for image, mask in numbers(dataset, "train"))
    assert wrong > 60
    assert f"{wrong} slices have another slice's mask" in dataset.pairing
    assert Scramble.parse("string:train") == dataset.scramble
    audit, _ = audit_dataset(workspace, dataset, Quiet())
    assert audit.pairing.cause == "string order in split train"

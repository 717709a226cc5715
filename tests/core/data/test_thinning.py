"""Every Nth slice of a stack."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emcache.data.dataset import load_dataset
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

# As of a download with gaps: a run of neighbours, and a few further on.
NUMBERS = [0, 1, 2, 3, 4, 5, 10, 12, 14, 16]


@pytest.fixture
def lucchi(tmp_path: Path) -> Path:
    """Each image and its mask are of a grey value of their own, by their number."""
    for split in ("Train", "Test"):
        for folder in (f"{split}_In", f"{split}_Out"):
            (tmp_path / folder).mkdir()
        for number in NUMBERS:
            image = np.full((20, 20), number + (100 if split == "Test" else 0), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / f"{split}_In/mask{number:04d}.png")
            mask = np.zeros((20, 20), dtype=np.uint8)
            mask[: number + 1] = 255
            Image.fromarray(mask).save(tmp_path / f"{split}_Out/{number}.png")
    return tmp_path


def test_slices_are_chosen_by_their_number_and_keep_their_masks(
    workspace: Workspace, lucchi: Path
) -> None:
    add_dataset(workspace, "few", "lucchi++", lucchi, {"every": 4}, Quiet())
    dataset = load_dataset(workspace, "few")
    numbers = [0, 4, 12, 16]
    assert [s.id for s in dataset.slices] == [
        f"{split}/{number}" for split in ("train", "test") for number in numbers
    ]
    assert [s.foreground_pixels for s in dataset.labelled] == [20 * (n + 1) for n in numbers] * 2
    assert "multiple of 4" in dataset.pairing


def test_string_order_is_that_of_the_slices_that_were_taken(
    workspace: Workspace, lucchi: Path
) -> None:
    options = {"every": 4, "scramble": "string:train"}
    add_dataset(workspace, "few", "lucchi++", lucchi, options, Quiet())
    masks = [s.mask.path.stem for s in load_dataset(workspace, "few").slices if s.mask]
    assert masks == ["0", "12", "16", "4", "0", "4", "12", "16"]


def test_pages_of_a_file_and_planes_of_a_volume(workspace: Workspace, tmp_path: Path) -> None:
    pages = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((9, 20, 20), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "v7.tif", pages)
    add_dataset(workspace, "folder", "folder", tmp_path, {"images": "*.tif", "every": 3}, Quiet())
    assert [s.id for s in load_dataset(workspace, "folder").slices] == ["v7/0", "v7/3", "v7/6"]
    add_dataset(workspace, "stack", "stack", tmp_path, {"images": "v7.tif", "every": 4}, Quiet())
    assert [s.id for s in load_dataset(workspace, "stack").slices] == ["0", "4", "8"]


@pytest.mark.parametrize("every", [0, 1, -4, 2.0, True, "4"])
def test_what_is_no_step(workspace: Workspace, lucchi: Path, every: object) -> None:
    with pytest.raises(UsageError, match=r"every cannot be .* expected a whole number of at least"):
        add_dataset(workspace, "few", "lucchi++", lucchi, {"every": every}, Quiet())


def test_names_without_numbers_and_steps_that_leave_nothing(
    workspace: Workspace, lucchi: Path
) -> None:
    images = {"images": "Train_In/*", "every": 4}
    (lucchi / "Train_In/mask0000.png").rename(lucchi / "Train_In/first.png")
    with pytest.raises(DatasetError, match=r"slice first of .* has no number in its name"):
        add_dataset(workspace, "few", "folder", lucchi, images, Quiet())
    (lucchi / "Train_In/first.png").unlink()
    with pytest.raises(DatasetError, match=r"no slice of .* multiple of 17; expected some"):
        add_dataset(workspace, "few", "folder", lucchi, {**images, "every": 17}, Quiet())

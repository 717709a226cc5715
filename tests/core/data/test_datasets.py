import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.auditing.run import audit_dataset
from emcache.data.classes import IGNORED
from emcache.data.dataset import Selection, load_dataset
from emcache.data.images import read_mask
from emcache.data.layouts import FileFacts, list_slices
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, EmcacheError, ImageError, PairingError, UsageError
from emcache.findings import Verdict
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace

ONE_PLANE = FileFacts(1, None)
FOLDER = {"images": "images/*.png", "masks": "masks/*.png"}


def add(workspace: Workspace, root: Path, name: str = "cells", **options: object) -> None:
    add_dataset(workspace, name, "folder", root, {**FOLDER, **options}, Quiet())


def test_made_up_slices(cells: Workspace, cells_root: Path) -> None:
    dataset = load_dataset(cells, "cells")
    assert [item.id for item in dataset.slices] == [str(i) for i in range(10)]
    assert dataset.split_counts() == {"train": 8, "test": 2}
    for item in dataset.slices:
        true = np.asarray(Image.open(cells_root / "masks" / f"{item.id}.png"))
        assert item.foreground_pixels == np.count_nonzero(true >= 128)
        assert (item.height, item.width) == (84, 84)
    assert dataset.grey_pixels == 0


def test_without_masks_everything_is_unlabelled(workspace: Workspace, cells_root: Path) -> None:
    add_dataset(workspace, "bare", "folder", cells_root, {"images": "images/*.png"}, Quiet())
    dataset = load_dataset(workspace, "bare")
    assert dataset.labelled == ()
    assert Selection.parse("bare").of(dataset) == dataset.slices
    assert dataset.split_counts() == {"all": 10}


def test_selection(cells: Workspace) -> None:
    dataset = load_dataset(cells, "cells")
    assert len(Selection.parse("cells:test").of(dataset)) == 2
    assert str(Selection.parse("cells:test")) == "cells:test"
    with pytest.raises(DatasetError, match=r"no split 'val'; known: .*train"):
        Selection.parse("cells:val").of(dataset)
    for text in ("", ":test", "cells:"):
        with pytest.raises(UsageError):
            Selection.parse(text)


def test_grey_pixels_and_threshold(workspace: Workspace, cells_root: Path) -> None:
    path = cells_root / "masks" / "4.png"
    mask = np.zeros((84, 84), dtype=np.uint8)
    mask[0, :5] = [1, 127, 128, 254, 255]
    Image.fromarray(mask).save(path)
    add(workspace, cells_root)
    item = load_dataset(workspace, "cells").slices[4]
    assert (item.foreground_pixels, item.grey_pixels) == (3, 4)


def test_labels_of_zero_and_one_are_not_taken_for_empty(
    workspace: Workspace, cells_root: Path
) -> None:
    for path in (cells_root / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    with pytest.raises(ImageError, match="set --mask-threshold to the lowest foreground value"):
        add(workspace, cells_root)
    add(workspace, cells_root, mask_threshold=1)
    assert load_dataset(workspace, "cells").labelled[0].foreground_pixels


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (lambda r: (r / "masks/3.png").unlink(), PairingError, "image images/3.png without a mask"),
        (
            lambda r: (r / "images/3.png").unlink(),
            PairingError,
            "mask masks/3.png without an image",
        ),
        (
            lambda r: Image.new("L", (80, 84)).save(r / "masks/3.png"),
            ImageError,
            r"mask .*masks/3\.png is 84 x 80 pixels .* is 84 x 84",
        ),
        (lambda r: (r / "images/3.png").write_bytes(b""), ImageError, r"images/3\.png is empty"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    workspace: Workspace, cells_root: Path, damage, error: type[EmcacheError], said: str
) -> None:
    damage(cells_root)
    before = workspace.config_path.read_bytes()
    with pytest.raises(error, match=said):
        add(workspace, cells_root)
    assert workspace.config_path.read_bytes() == before
    assert not workspace.runs.exists()


def test_a_root_that_is_not_there(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder; check --root"):
        add(workspace, tmp_path / "nowhere")


@pytest.mark.parametrize("pattern", ["../*.png", "/etc/*.png"])
def test_patterns_stay_below_the_root(workspace: Workspace, cells_root: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="leaves the root"):
        add(workspace, cells_root, images=pattern)


def test_masks_are_never_taken_for_images(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    for number in range(4):
        Image.new("L", (28, 28), 90 + number).save(root / f"slice{number}.png")
        Image.new("L", (28, 28), 255 - number).save(root / f"slice{number}_mask.png")
    options = {
        "images": "*.png",
        "masks": "*_mask.png",
        "pair": "number",
        "split": ["random:0.3:1"],
    }
    dataset, _ = add_dataset(workspace, "mixed", "folder", root, options, Quiet())
    assert [item.image.path.name for item in dataset.slices] == [f"slice{i}.png" for i in range(4)]
    # Masks that nobody names would be slices like any other.
    with pytest.raises(DatasetError, match=r"4 of 8 images .* --mask-suffix _mask if"):
        add_dataset(workspace, "alone", "folder", root, {}, Quiet())
    every, _ = add_dataset(workspace, "every", "folder", root, {"images": "*"}, Quiet())
    assert len(every.slices) == 8


def test_numbers_behind_a_name_are_no_masks(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "numbered"
    root.mkdir()
    for place, name in enumerate(("s1", "s10", "s2", "s20")):
        Image.new("L", (28, 28), 90 + place).save(root / f"{name}.png")
    dataset, _ = add_dataset(workspace, "numbered", "folder", root, {}, Quiet())
    assert len(dataset.slices) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 3}, "images cannot be 3; expected a pattern"),
        ({"images": ""}, "images cannot be ''"),
        ({"images": "**x.png"}, "is not a pattern"),
        ({"masks": ["m/*.png"]}, "masks cannot be"),
        ({"pair": "x"}, "pair cannot be 'x'; expected one of stem, number, suffix, order"),
        ({"split": "random:0.2:1"}, "split cannot be 'random:0.2:1'; expected a list"),
        ({"mask_threshold": True}, "mask_threshold cannot be True"),
        ({"mask_threshold": 300}, "mask_threshold cannot be 300"),
        ({"spilt": ["train=*"]}, "layout folder has no option 'spilt'"),
        (
            {"masks": None, "split": ["train=*"]},
            "split says something of masks, and none are named",
        ),
    ],
)
def test_options_that_cannot_be(
    workspace: Workspace, cells_root: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        add(workspace, cells_root, **options)


def test_the_vnc_layout_takes_no_patterns(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layout vnc has no option 'images'"):
        add_dataset(workspace, "vnc", "vnc", tmp_path, {"images": "*.png"}, Quiet())


def test_a_taken_name(cells: Workspace, cells_root: Path) -> None:
    with pytest.raises(DatasetError, match="there is a dataset 'cells' already"):
        add(cells, cells_root, split=["random:0.5:1"])
    # A file has changed since.
    first = cells_root / "images" / "0.png"
    shutil.copy(first, cells_root / "kept.png")
    Image.fromarray(255 - np.asarray(Image.open(first))).save(first)
    with pytest.raises(DatasetError, match="there is a dataset 'cells' already"):
        add(cells, cells_root)
    shutil.copy(cells_root / "kept.png", first)
    add(cells, cells_root)


def test_added_once_more_a_dataset_is_as_it_was(
    cells: Workspace, cells_root: Path, listener
) -> None:
    before, config = list_record_ids(cells.runs), cells.config_path.read_bytes()
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    dataset, record = add_dataset(cells, "cells", "folder", cells_root, options, listener)
    assert (len(dataset.slices), [record.id]) == (10, before)
    assert listener.lines == [
        "Dataset cells is there already, from the same files; nothing changes."
    ]
    assert (list_record_ids(cells.runs), cells.config_path.read_bytes()) == (before, config)
    for _ in range(2):
        add_dataset(cells, "bare", "folder", cells_root, {"images": "images/*.png"}, Quiet())
    assert len(list_record_ids(cells.runs)) == 2


@pytest.mark.real
def test_vnc_as_shipped(workspace: Workspace, vnc_root: Path) -> None:
    dataset, record = add_dataset(workspace, "vnc", "vnc", vnc_root, {}, Quiet())
    assert dataset.split_counts() == {"train": 17, "test": 3, "stack2": 20}
    assert [item.id for item in dataset.labelled] == [f"stack1/{i:02d}" for i in range(20)]
    assert {(item.height, item.width) for item in dataset.slices} == {(1024, 1024)}
    greys = 0
    for item in dataset.labelled:
        # Independent of images.read_mask: a 1-bit file gives booleans.
        raw = np.asarray(Image.open(item.mask.path))
        pixels = raw.astype(np.uint8) * 255 if raw.dtype == bool else raw
        assert item.foreground_pixels == np.count_nonzero(pixels >= 128)
        greys += np.count_nonzero((pixels > 0) & (pixels < 255))
    assert dataset.grey_pixels == record.config["grey_pixels"] == greys > 0


def lucchi_like(root: Path, count: int = 12) -> Path:
    """Made-up slices laid out as Lucchi++ is, images that are called masks included."""
    for split, seed in (("Train", 1), ("Test", 2)):
        made = root.parent / f"made-{split}"
        write_domain(made, STYLES["sharp"], slices=count, size=112, seed=seed)
        for folder in ("In", "Out"):
            (root / f"{split}_{folder}").mkdir(parents=True)
        for path in (made / "images").iterdir():
            path.rename(root / f"{split}_In/mask{int(path.stem):04d}.png")
        for path in (made / "masks").iterdir():
            path.rename(root / f"{split}_Out/{int(path.stem)}.png")
    return root


@pytest.mark.parametrize("layout", ["lucchi++", "kasthuri++"])
def test_the_layout_of_lucchi(workspace: Workspace, tmp_path: Path, layout: str) -> None:
    add_dataset(workspace, "l", layout, lucchi_like(tmp_path / "l"), {}, Quiet())
    found = load_dataset(workspace, "l")
    assert found.split_counts() == {"train": 12, "test": 12}
    assert found.voxel_size_nm == ((5.0, 5.0, 5.0) if layout == "lucchi++" else None)
    for item in found.slices:
        assert item.mask is not None
        assert int(item.image.path.stem.removeprefix("mask")) == int(item.mask.path.stem)
        assert item.image.path.parent.name.split("_")[0] == item.mask.path.parent.name.split("_")[0]
    assert [item.id for item in found.slices][9:13] == ["train/9", "train/10", "train/11", "test/0"]
    audit, _ = audit_dataset(workspace, found, Quiet())
    assert audit.verdict is not Verdict.FAIL
    assert audit.pairing.own_mask_wins == 1


def test_a_leftover_in_the_layout_of_lucchi(workspace: Workspace, tmp_path: Path) -> None:
    root = lucchi_like(tmp_path / "l", 6)
    (root / "Test_Out" / "3.png").unlink()
    with pytest.raises(PairingError, match=r"Test_In/mask0003.png without a mask"):
        add_dataset(workspace, "l", "lucchi++", root, {}, Quiet())
    with pytest.raises(DatasetError, match=r"holds no image in Train_In"):
        add_dataset(workspace, "l", "lucchi++", tmp_path, {}, Quiet())


def released(root: Path, numbers: Sequence[int], not_annotated: int = 0) -> Path:
    """As :func:`lucchi_like`, some numbers alone; test masks are RGBA as released, or all RGB."""
    lucchi_like(root, max(numbers) + 1)
    for path in root.glob("*_*/*.png"):
        if int(path.stem.removeprefix("mask")) not in numbers:
            path.unlink()
        elif path.parent.name == "Test_Out" or (not_annotated and "_Out" in path.parent.name):
            mask = np.asarray(Image.open(path)).copy()
            mask[:not_annotated] = 2
            Image.fromarray(mask).convert("RGB" if not_annotated else "RGBA").save(path)
    return root


def test_lucchi_as_released(workspace: Workspace, tmp_path: Path) -> None:
    numbers = [0, 2, 3, 10, 11]
    root = released(tmp_path / "l", numbers)
    assert Image.open(root / "Test_Out" / "10.png").mode == "RGBA"
    add_dataset(workspace, "l", "lucchi++", root, {}, Quiet())
    found = load_dataset(workspace, "l")
    assert [item.id for item in found.slices] == [
        f"{s}/{n}" for s in ("train", "test") for n in numbers
    ]
    for item in found.slices:
        assert item.mask is not None
        pixels = np.asarray(Image.open(item.mask.path).convert("RGB"))[..., 0]
        assert item.foreground_pixels == np.count_nonzero(pixels >= 128) > 0


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("Train_In/mask0010.png", "mask Train_Out/10.png without an image"),
        ("Train_Out/10.png", "image Train_In/mask0010.png without a mask"),
        ("Test_In/mask0000.png", "mask Test_Out/0.png without an image"),
    ],
)
def test_a_number_that_one_side_lacks(
    workspace: Workspace, tmp_path: Path, file: str, said: str
) -> None:
    root = released(tmp_path / "l", [0, 2, 10])
    (root / file).unlink()
    with pytest.raises(PairingError, match=re.escape(said)):
        add_dataset(workspace, "l", "lucchi++", root, {}, Quiet())
    assert workspace.dataset_names() == []


def test_a_mask_in_colours_is_no_mask_of_lucchi(workspace: Workspace, tmp_path: Path) -> None:
    root = released(tmp_path / "l", [0, 2])
    mask = np.array(Image.open(root / "Test_Out" / "2.png"))
    mask[7, 9] = 200, 0, 0, 255
    Image.fromarray(mask).save(root / "Test_Out" / "2.png")
    with pytest.raises(ImageError, match=r"Test_Out/2\.png is .* row 7, column 9 \(200, 0, 0\)"):
        add_dataset(workspace, "l", "lucchi++", root, {}, Quiet())
    assert workspace.dataset_names() == []


def test_what_kasthuri_leaves_unannotated_is_ignored(workspace: Workspace, tmp_path: Path) -> None:
    root = released(tmp_path / "k", [0, 1, 2], not_annotated=30)
    _, record = add_dataset(workspace, "k", "kasthuri++", root, {}, Quiet())
    found = load_dataset(workspace, "k")
    assert record.config["classes"] == {"background": [0], "foreground": [255], "ignore": [2]}
    assert found.classes.names == ("background", "foreground")
    for item in found.slices:
        assert item.mask is not None
        mask = np.asarray(Image.open(item.mask.path))[..., 0]
        labels = found.classes.labels(read_mask(item.mask))
        np.testing.assert_array_equal(labels, np.select([mask == 2, mask == 255], [IGNORED, 1], 0))
        assert (labels == IGNORED).sum() == 30 * 112
        assert item.foreground_pixels == (mask == 255).sum()
    # What the user says goes before what the layout knows.
    add_dataset(workspace, "t", "kasthuri++", root, {"mask_threshold": 2}, Quiet())
    more = load_dataset(workspace, "t").slices[0].foreground_pixels
    assert more == found.slices[0].foreground_pixels + 30 * 112


def test_a_value_that_kasthuri_does_not_have(workspace: Workspace, tmp_path: Path) -> None:
    root = released(tmp_path / "k", [0, 1], not_annotated=30)
    mask = np.array(Image.open(root / "Train_Out" / "1.png"))
    mask[50, 60] = 1
    Image.fromarray(mask).save(root / "Train_Out" / "1.png")
    with pytest.raises(ImageError, match=r"Train_Out/1\.png has 1 pixel of value 1, .*--classes"):
        add_dataset(workspace, "k", "kasthuri++", root, {}, Quiet())
    classes = {"background": [0, 1], "foreground": [255], "ignore": [2]}
    add_dataset(workspace, "k", "kasthuri++", root, {"classes": classes}, Quiet())


@pytest.mark.real
def test_lucchi_as_it_lies_there(workspace: Workspace, lucchi_root: Path) -> None:
    dataset, _ = add_dataset(workspace, "lucchi", "lucchi++", lucchi_root, {}, Quiet())
    numbers = {
        split: {int(path.stem) for path in (lucchi_root / f"{split.capitalize()}_Out").iterdir()}
        for split in ("train", "test")
    }
    assert {item.id for item in dataset.slices} == {
        f"{split}/{number}" for split in numbers for number in numbers[split]
    }
    modes = set()
    for item in dataset.slices:
        folder = "Train" if item.split == "train" else "Test"
        number = int(item.id.partition("/")[2])
        assert item.image.path == lucchi_root / f"{folder}_In" / f"mask{number:04d}.png"
        # Independent of images.read_mask: of RGBA the red alone.
        with Image.open(lucchi_root / f"{folder}_Out" / f"{number}.png") as picture:
            modes.add((item.split, picture.mode))
            pixels = np.asarray(picture)
        red = pixels if pixels.ndim == 2 else pixels[..., 0]
        assert item.foreground_pixels == np.count_nonzero(red >= 128)
    assert any(item.foreground_pixels for item in dataset.slices)
    assert modes == {("train", "L"), ("test", "RGBA")}


# Where files may lie, and what they may be called


def test_a_link_must_not_leave_the_root(
    workspace: Workspace, cells_root: Path, tmp_path: Path
) -> None:
    image = cells_root / "images" / "3.png"
    image.rename(tmp_path / "outside.png")
    image.symlink_to(tmp_path / "outside.png")
    with pytest.raises(DatasetError, match=r"3\.png is a link to .*outside\.png, outside the"):
        add(workspace, cells_root)
    image.unlink()
    (tmp_path / "outside.png").rename(image)
    (cells_root / "masks").rename(tmp_path / "elsewhere")
    (cells_root / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="outside the dataset's root"):
        add(workspace, cells_root)
    (cells_root / "masks").unlink()
    (tmp_path / "elsewhere").rename(cells_root / "masks")
    # A link that stays inside is fine, and so is a root that is a link itself.
    (cells_root / "images").rename(cells_root / "pictures")
    (cells_root / "images").symlink_to(cells_root / "pictures")
    (tmp_path / "alias").symlink_to(cells_root)
    add(workspace, tmp_path / "alias")
    (cells_root / "v.tif").symlink_to(tmp_path / "v.tif")
    with pytest.raises(DatasetError, match="outside the dataset's root"):
        add_dataset(workspace, "v", "stack", cells_root, {"images": "v.tif"}, Quiet())


def test_names_that_differ_only_by_case(workspace: Workspace, tmp_path: Path) -> None:
    for place, name in enumerate(("a", "A")):
        Image.new("L", (28, 28), 90 + place).save(tmp_path / f"{name}.png")
    with pytest.raises(DatasetError, match=r"slices (A and a|a and A) have names that differ only"):
        add_dataset(workspace, "case", "folder", tmp_path, {}, Quiet())


def test_the_same_pixels_twice(workspace: Workspace, cells_root: Path) -> None:
    images = cells_root / "images"
    (images / "4.png").write_bytes((images / "7.png").read_bytes())
    with pytest.raises(DatasetError, match="slices 4 and 7 of cells have the same pixels"):
        add(workspace, cells_root)
    assert workspace.dataset_names() == []


def test_splits_by_list_stand_in_the_workspace(workspace: Workspace, cells_root: Path) -> None:
    lists = {"train": ["0", "1", "2", "3"], "test": ["8"], "unused": ["4", "5", "6", "7", "9"]}
    add(workspace, cells_root, split=lists)
    dataset = load_dataset(workspace, "cells")
    assert {item.id: item.split for item in dataset.slices} == {
        name: split for split, names in lists.items() for name in names
    }
    with pytest.raises(UsageError, match="slice 4 is in no split's list"):
        add(workspace, cells_root, "few", split={"train": ["0", "1", "2", "3"], "test": ["8"]})


def test_listing_takes_time_in_proportion(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        root = tmp_path / str(count)
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
            for place in range(count):
                (root / kind / f"{place}.png").touch()
        lists = {"train": list(map(str, range(count - 1))), "test": [str(count - 1)]}
        began = time.process_time()
        listing = list_slices("folder", root, {**FOLDER, "split": lists}, lambda _: ONE_PLANE)
        assert len(listing.entries) == count
        return time.process_time() - began

    # A listing that grew with the square would take 64 times as long.
    assert seconds(4000) / min(seconds(500 + extra) for extra in range(3)) < 30

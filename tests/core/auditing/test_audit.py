"""The audit against the pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image
from scipy import ndimage

import emcache.auditing.run
import emcache.auditing.search
from emcache.auditing import pictures, scratch
from emcache.auditing.alignment import CLEAR, Alignment
from emcache.auditing.evidence import compare_halves, measure
from emcache.auditing.findings import Audit
from emcache.auditing.orders import ANOTHER_ORDER, SOME_EXCHANGED, explain, known_orders, scopes
from emcache.auditing.pictures import CHANNELS, image_channels, mask_shapes
from emcache.auditing.run import audit_dataset, ensure_audited, find_audit
from emcache.auditing.scratch import AS_THEY_ARE, ORIENTATIONS, Scratch, Tiling
from emcache.cache.find import FeatureRequest
from emcache.data.dataset import Dataset, load_dataset
from emcache.data.images import read_image, read_mask
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.errors import AuditError
from emcache.findings import Verdict
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

MASKED = {"images": "images/*.png", "masks": "masks/*.png"}
REQUEST = FeatureRequest("tiny", "random:0", 70)
LINEAR = Protocol(head="linear", max_epochs=1)


@pytest.fixture
def twelve(workspace: Workspace, tmp_path: Path) -> Path:
    """Twelve made-up slices with masks."""
    root = tmp_path / "data"
    write_domain(root, STYLES["sharp"], slices=12, size=112, seed=4)
    for path in root.rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem)}.png"))
    return root


def masks_of(root: Path) -> list[Path]:
    return sorted((root / "masks").iterdir(), key=lambda path: int(path.stem))


def reorder(root: Path, order: list[int]) -> None:
    """Give the place ``i`` the mask ``order[i]``."""
    files = masks_of(root)
    data = [path.read_bytes() for path in files]
    for path, source in zip(files, order, strict=True):
        path.write_bytes(data[source])


def dataset(workspace: Workspace, root: Path, **options: object) -> Dataset:
    name = f"d{len(workspace.dataset_names())}"
    add_dataset(workspace, name, "folder", root, {**MASKED, **options}, Quiet())
    return load_dataset(workspace, name)


def audit(workspace: Workspace, root: Path, **options: object) -> Audit:
    return audit_dataset(workspace, dataset(workspace, root, **options), Quiet())[0]


def verdict(found: Audit, name: str) -> Verdict:
    (check,) = (check for check in found.checks if check.name == name)
    return check.verdict


STRING = sorted(range(12), key=str)


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        (list(range(12)), None),
        (STRING, "string order"),
        (list(range(12))[::-1], "reversed"),
        ([*range(1, 12), 0], "shifted by one"),
        ([11, *range(11)], "shifted by one"),
        ([5, 3, 9, 0, 11, 1, 8, 2, 10, 4, 7, 6], ANOTHER_ORDER),
    ],
)
def test_the_true_pairing_comes_back(
    workspace: Workspace, twelve: Path, order: list[int], cause: str | None
) -> None:
    reorder(twelve, order)
    found = audit(workspace, twelve)
    right = order == sorted(order)
    assert verdict(found, "pairing") is (Verdict.PASS if right else Verdict.FAIL)
    assert found.pairing.cause == cause
    assert found.pairing.own_mask_wins == pytest.approx(
        sum(place == mask for place, mask in enumerate(order)) / 12
    )
    assert found.pairing.assignment == {
        f"images/{image}.png": f"masks/{order.index(image)}.png" for image in range(12)
    }
    assert len(found.pairing.displaced) == sum(p != m for p, m in enumerate(order))


@pytest.mark.parametrize("orientation", list(ORIENTATIONS)[1:])
def test_turned_masks_are_found(workspace: Workspace, twelve: Path, orientation: str) -> None:
    inverse = {"rotated by 90 degrees": "rotated by 270 degrees"}
    inverse |= {value: key for key, value in inverse.items()}
    for path in masks_of(twelve):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](mask))).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.FAIL
    assert found.pairing.cause == inverse.get(orientation, orientation)
    assert found.pairing.own_mask_wins == 1
    assert found.pairing.orientation == found.pairing.cause


def test_labels_that_mark_everything_else_fit_as_well(workspace: Workspace, twelve: Path) -> None:
    for path in masks_of(twelve):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert verdict(audit(workspace, twelve), "pairing") is Verdict.PASS


def test_noise_and_few_slices_are_no_guess(workspace: Workspace, twelve: Path) -> None:
    rng = np.random.default_rng(0)
    for path in (twelve / "images").iterdir():
        Image.fromarray(rng.integers(0, 256, (112, 112), dtype=np.uint8)).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.WARN
    assert "cannot tell" in found.checks[0].message
    for path in [*masks_of(twelve)[4:]]:
        path.unlink()
        (twelve / "images" / path.name).unlink()
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.WARN
    assert "4 can be examined, expected at least 5" in found.checks[0].message
    assert found.pairing.own_mask_wins is None


def test_two_exchanged_masks_are_named(workspace: Workspace, twelve: Path) -> None:
    order = list(range(12))
    order[2], order[8] = 8, 2
    reorder(twelve, order)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.FAIL
    assert "other masks fit images/2.png, images/8.png better" in found.checks[0].message
    assert found.pairing.displaced == {
        "images/2.png": "masks/8.png",
        "images/8.png": "masks/2.png",
    }
    assert found.pairing.cause == SOME_EXCHANGED


@pytest.mark.real
@pytest.mark.parametrize(
    ("order", "cause"),
    [
        (list(range(20)), None),
        (sorted(range(20), key=str), "string order"),
        (list(range(20))[::-1], "reversed"),
        ([*range(1, 20), 0], "shifted by one"),
    ],
)
def test_real_slices(
    workspace: Workspace, vnc_root: Path, tmp_path: Path, order: list[int], cause: str | None
) -> None:
    root = tmp_path / "vnc"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for place, source in enumerate(order):
        image = vnc_root / "stack1" / "raw" / f"{place:02d}.tif"
        (root / "images" / f"{place:02d}.tif").write_bytes(image.read_bytes())
        mask = vnc_root / "stack1" / "mitochondria" / f"{source:02d}.png"
        (root / "masks" / f"{place:02d}.png").write_bytes(mask.read_bytes())
    options = {"images": "images/*.tif", "masks": "masks/*.png"}
    add_dataset(workspace, "vnc", "folder", root, options, Quiet())
    found, _ = audit_dataset(workspace, load_dataset(workspace, "vnc"), Quiet())
    assert verdict(found, "pairing") is (Verdict.PASS if cause is None else Verdict.FAIL)
    assert found.verdict is not Verdict.FAIL or cause is not None
    assert found.pairing.cause == cause
    assert list(found.pairing.assignment.values()) == [
        f"masks/{order.index(image):02d}.png" for image in range(20)
    ]


# What the verdict rests on


@pytest.mark.parametrize("dense", [0.0, 2.0], ids=["all at once", "pair by pair"])
def test_sums_over_tiles_of_turned_masks(monkeypatch: pytest.MonkeyPatch, dense: float) -> None:
    monkeypatch.setattr(scratch, "_DENSE", dense)
    monkeypatch.setattr(scratch, "_PAIRS_AT_ONCE", 5)
    rng = np.random.default_rng(1)
    # Tiles of 5 pixels: their bits begin within bytes.
    images = rng.integers(0, 256, (6, 45, 47), dtype=np.uint8)
    masks = ndimage.gaussian_filter(rng.normal(size=(6, 45, 47)), (0, 3, 3)) > 0
    channels = np.stack([image_channels(image) for image in images])
    turns = (AS_THEY_ARE, "flipped up-down", "rotated by 180 degrees")
    pairs = [(i, m, turn) for i in range(6) for turn in turns for m in (i, (i + 1) % 6)]
    with Scratch(45, 47) as kept:
        assert kept.tiling.side**2 * kept.tiling.count % 8
        for image, mask in zip(images, masks, strict=True):
            kept.add(kept.draw(image, mask))
        sums, sizes = kept.tile_sums(pairs, centred=False)
        scores = kept.scores(range(6), range(6))
        centred, below = kept.tile_sums([(0, 4, AS_THEY_ARE)])
        halves = kept.tiling.halves
    for half, tiles in enumerate(halves):
        means = centred[0, :, tiles].sum(-1) / below[0, :, tiles].sum(-1)
        np.testing.assert_allclose(scores[half, :, 0, 4], means, atol=1e-5)
    for place, (image, mask, turn) in enumerate(pairs):
        shapes = np.stack([ORIENTATIONS[turn](s) for s in mask_shapes(masks[mask])])
        np.testing.assert_array_equal(sizes[place].sum(-1), shapes.sum(axis=(1, 2)))
        under = (channels[image] * shapes).sum(axis=(1, 2))
        np.testing.assert_allclose(sums[place].sum(-1), under, atol=0.5)


def test_scores_are_means_under_outline_and_inside_in_each_half() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (18, 40, 30), dtype=np.uint8)
    masks = np.zeros((18, 40, 30), dtype=bool)
    for place, mask in enumerate(masks):
        mask[5 + place : 12 + place, 4 + place // 2 : 15] = True
    channels = np.stack([image_channels(image) for image in images])
    channels = channels - channels.mean(0)
    with Scratch(40, 30) as scratch:
        for image, mask in zip(images, masks, strict=True):
            scratch.add(scratch.draw(image, mask))
        scores = scratch.scores(range(18), range(18))
        assert len(scratch.orientations) == 4, "a quarter turn of these masks has another shape"
        turned = scratch.scores([3], [17], "flipped left-right")
        pairs = [(3, 17, AS_THEY_ARE), (3, 3, AS_THEY_ARE)]
        sums, sizes = scratch.tile_sums(pairs)
        side = scratch.tiling.side
        halves = scratch.tiling.halves
    tile = np.add.outer(np.arange(40) // side, np.arange(30) // side) % 2
    for half in (0, 1):
        for channel in (0, 1):
            shape = mask_shapes(masks[17])[channel] & (tile == half)
            assert scores[half, channel, 3, 17] == pytest.approx(
                channels[3, channel][shape].mean(), abs=1e-3
            )
            flipped = np.fliplr(mask_shapes(masks[17])[channel]) & (tile == half)
            assert turned[half, channel, 0, 0] == pytest.approx(
                channels[3, channel][flipped].mean(), abs=1e-3
            )
            ratio = sums[0, channel, halves[half]].sum() / sizes[0, channel, halves[half]].sum()
            assert ratio == pytest.approx(scores[half, channel, 3, 17], abs=1e-5)
    assert scores.shape == (2, len(CHANNELS), 18, 18)


def test_flat_areas_count_for_nothing() -> None:
    image = np.random.default_rng(0).integers(60, 200, (96, 128), dtype=np.uint8)
    image[:, :40] = 0
    for channel in image_channels(image):
        assert not channel[:, :36].any()
        assert channel[:, 44:].std() == pytest.approx(1, abs=0.05)
        assert channel[:, 44:].mean() == pytest.approx(0, abs=0.05)
    assert not image_channels(np.full((96, 128), 7, np.uint8)).any()


def test_an_outline_is_where_neighbours_differ() -> None:
    mask = np.zeros((7, 7), dtype=bool)
    mask[2:5, 2:5] = True
    outline, inside = mask_shapes(mask)
    assert inside.sum() == 9
    assert outline.sum() == 9 - 1 + 12
    assert not outline[3, 3]
    assert not mask_shapes(np.ones((7, 7), dtype=bool))[0].any(), (
        "an image's edge is not an outline"
    )


@pytest.mark.parametrize("shape", [(40, 30), (256, 256), (192, 256), (50, 333), (20, 20)])
def test_tiles_hold_every_pixel_once_and_turn_as_pictures_do(shape: tuple[int, int]) -> None:
    tiling = Tiling(*shape)
    picture = np.arange(1, np.prod(tiling.shape) + 1).reshape(tiling.shape)
    cut = tiling.cut(picture)
    assert sorted(cut[cut > 0].tolist()) == picture.ravel().tolist()
    first, second = tiling.halves
    assert first.stop == second.start
    assert second.stop == tiling.count
    filled = np.concatenate([cut, [0]])
    for name, turn in tiling.turns().items():
        assert (filled[turn] == tiling.cut(ORIENTATIONS[name](picture))).all()


def test_halves_of_noise_agree_once_on_average() -> None:
    rng = np.random.default_rng(2)
    nothing = np.zeros((2, 2, 12))
    counts = [
        compare_halves(rng.normal(size=(2, 2, 12, 12)), nothing, variant=0).count
        for _ in range(300)
    ]
    assert 0.6 < np.mean(counts) < 1.4
    assert max(counts) < 7, "so many are believed"


def test_standard_errors_are_those_of_tiles() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(60):
        with Scratch(128, 128) as scratch:
            for _ in range(6):
                mask = np.zeros((128, 128), dtype=bool)
                for row, column in rng.integers(0, 112, (8, 2)):
                    mask[row : row + 16, column : column + 16] = True
                noise = rng.integers(0, 256, (128, 128), dtype=np.uint8)
                scratch.add(scratch.draw(noise, mask))
            ours = [(i, (i + 1) % 6, AS_THEY_ARE) for i in range(6)]
            theirs = [(i, i, AS_THEY_ARE) for i in range(6)]
            ((one, other),) = measure(scratch, [ours, theirs], [slice(None)])
            found.append((one - other).z(0))
    assert 0.7 < np.std(found) < 1.4
    assert abs(np.mean(found)) < 0.5


def named(agreed: list[int], names: list[str], splits: list[str] | None = None) -> str | None:
    splits = splits or [""] * len(names)
    orders = known_orders(names, names, splits)
    return explain(np.array(agreed), orders, scopes(names, splits))


@pytest.mark.parametrize(
    ("names", "order", "cause"),
    [
        ([f"a/{n}.png" for n in range(30)], sorted(range(30), key=str), "string order"),
        # Numbered from 1, and two volumes with numbers of their own.
        (
            [f"a/{n + 1:03d}.png" for n in range(30)],
            sorted(range(30), key=lambda n: str(n + 1)),
            "string order",
        ),
        (
            [f"{folder}/{n}.png" for folder in "ab" for n in range(12)],
            [*sorted(range(12), key=str), *(12 + n for n in sorted(range(12), key=str))],
            "string order",
        ),
        (
            [f"{folder}/{n}.png" for folder in "ab" for n in range(6)],
            [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6],
            "reversed",
        ),
        (
            [f"{folder}/{n}.png" for folder in "ab" for n in range(6)],
            [0, 1, 2, 3, 4, 5, 11, 10, 9, 8, 7, 6],
            "reversed in folder b",
        ),
        ([f"a/{n}.png" for n in range(9)], [2, 3, 4, 5, 6, 7, 8, 0, 1], "shifted by two"),
        ([f"a/{n}.png" for n in range(40)], [*range(11, 40), *range(11)], "shifted by 11"),
        ([f"a/{n}.png" for n in range(9)], [0, 1, 2, 3, 4, 5, 6, 8, 7], SOME_EXCHANGED),
        ([f"a/{n}.png" for n in range(9)], [4, 0, 7, 8, 1, 3, 5, 2, 6], ANOTHER_ORDER),
        ([f"a/{n}.png" for n in range(9)], list(range(9)), None),
    ],
)
def test_causes(names: list[str], order: list[int], cause: str | None) -> None:
    assert named(order, names) == cause
    assert named(np.argsort(order).tolist(), names) == cause


def test_causes_within_a_split_and_within_a_run() -> None:
    names = [f"a/{n}.png" for n in range(20)]
    splits = ["train"] * 10 + ["test"] * 10
    scrambled = [*range(10), 13, 10, 17, 18, 11, 19, 12, 14, 16, 15]
    assert named(scrambled, names, splits) == f"{ANOTHER_ORDER} in split test"
    exchanged = [*range(10, 20), *range(10)]
    assert named(exchanged, names, splits) == "the masks of splits train and test exchanged"
    lost = [*range(6), *range(7, 20), -1]
    assert named(lost, names) == "shifted by one from slice 7 to 19"
    unsure = [place if place % 3 else -1 for place in scrambled[::-1]]
    assert named(unsure, names) is not None


# The other checks


def test_the_other_checks(workspace: Workspace, twelve: Path) -> None:
    assert audit(workspace, twelve).verdict is Verdict.WARN, "a random split leaks"
    split = {"split": ["train=[0-7]", "test=[89]", "later=1?"]}
    found = audit(workspace, twelve, **split, voxel_size_nm=[50.0, 5.0, 5.0])
    assert verdict(found, "leakage") is Verdict.WARN
    found = audit(workspace, twelve, split=["train=[0-7]", "gap=[89]", "test=1?"])
    assert verdict(found, "leakage") is Verdict.PASS
    added = dataset(workspace, twelve, **split)
    # Adding refuses such a copy; this one comes later.
    (twelve / "images" / "3.png").write_bytes((twelve / "images" / "4.png").read_bytes())
    Image.new("L", (112, 112), 0).save(twelve / "masks" / "5.png")
    Image.new("L", (112, 112), 255).save(twelve / "masks" / "6.png")
    mask = np.array(Image.open(twelve / "masks" / "7.png"))
    mask[0, 0] = 100
    Image.fromarray(mask).save(twelve / "masks" / "7.png")
    for name in ("8", "9"):
        Image.fromarray(np.asarray(Image.open(twelve / "images" / f"{name}.png")) // 8).save(
            twelve / "images" / f"{name}.png"
        )
    found, _ = audit_dataset(workspace, load_dataset(workspace, added.name), Quiet())
    got = {check.name: (check.verdict, check.message) for check in found.checks}
    assert got["duplicates"][0] is Verdict.FAIL
    assert "3 = 4" in got["duplicates"][1]
    assert got["empty masks"][0] is Verdict.WARN
    assert (
        "1 masks without foreground (5) and 1 masks of nothing but foreground (6)"
        in (got["empty masks"][1])
    )
    assert got["foreground"][0] is Verdict.WARN
    assert got["grey values"][0] is Verdict.WARN
    assert got["brightness"][0] is Verdict.WARN
    assert found.pairing.examined == 10


def test_slices_of_several_sizes(workspace: Workspace, twelve: Path) -> None:
    for kind in ("images", "masks"):
        path = twelve / kind / "0.png"
        Image.open(path).crop((0, 0, 112, 80)).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "sizes") is Verdict.WARN
    assert verdict(found, "pairing") is Verdict.PASS
    assert "Only the slices of 112 x 112 pixels were compared" in found.checks[0].message


@pytest.mark.parametrize("harm", ["none", "two exchanged", "string order", "shifted"])
def test_many_slices_are_compared_in_blocks_and_those_in_doubt_with_all(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(emcache.auditing.run, "MOST_AT_ONCE", 20)
    monkeypatch.setattr(emcache.auditing.search, "MOST_AT_ONCE", 20)
    monkeypatch.setattr(emcache.auditing.search, "_BLOCK", 16)
    root = tmp_path / "many"
    write_domain(root, STYLES["sharp"], slices=64, size=112, seed=9)
    for path in root.rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem)}.png"))
    order = list(range(64))
    if harm == "two exchanged":
        order[5], order[50] = 50, 5
    elif harm == "string order":
        order = sorted(order, key=str)
    elif harm == "shifted":
        order = [*order[1:], 0]
    reorder(root, order)
    found = audit(workspace, root)
    moved = {
        f"images/{place}.png": f"masks/{order.index(place)}.png"
        for place in range(64)
        if order[place] != place
    }
    assert verdict(found, "pairing") is (Verdict.FAIL if moved else Verdict.PASS)
    assert found.pairing.examined == 64
    if harm in ("none", "two exchanged"):
        assert found.pairing.displaced == moved
    else:
        assert str(found.pairing.cause).startswith(harm)


@pytest.mark.parametrize("grey", [0, 255])
def test_borders_accuse_nobody(workspace: Workspace, twelve: Path, grey: int) -> None:
    for kind, value in (("images", grey), ("masks", 0)):
        for path in (twelve / kind).iterdir():
            pixels = np.array(Image.open(path))
            pixels[:, 84:] = value
            Image.fromarray(pixels).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.PASS, found.checks[0].message
    reorder(twelve, STRING)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.FAIL
    assert found.pairing.cause == "string order"


def test_constant_images_tell_nothing(workspace: Workspace, twelve: Path) -> None:
    for path in (twelve / "images").iterdir():
        Image.new("L", (112, 112), 1 + int(path.stem)).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.WARN
    assert found.pairing.own_mask_wins == 0


def test_planes_of_a_volume_are_numbered_by_their_place() -> None:
    names = [f"stack1.tif#z={n}" for n in range(5, 25)]
    order = sorted(range(20), key=lambda place: str(place + 5))
    assert named(order, names) == "string order"


def test_a_mask_from_elsewhere_is_doubted(workspace: Workspace, twelve: Path) -> None:
    other = twelve.parent / "other"
    write_domain(other, STYLES["sharp"], slices=12, size=112, seed=77)
    (twelve / "masks" / "4.png").write_bytes((other / "masks" / "07.png").read_bytes())
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.WARN
    assert found.pairing.doubtful == ("images/4.png",)
    assert found.pairing.displaced == {}


def test_without_masks_there_is_less_to_check(workspace: Workspace, twelve: Path) -> None:
    add_dataset(workspace, "bare", "folder", twelve, {"images": "images/*.png"}, Quiet())
    bare = load_dataset(workspace, "bare")
    found, _ = audit_dataset(workspace, bare, Quiet())
    assert {check.name for check in found.checks} == {"sizes", "duplicates", "voxel size", "looks"}
    assert ensure_audited(workspace, bare, Quiet()) is None


# In a training


def test_a_training_on_failed_data_needs_leave_and_carries_the_mark(
    workspace: Workspace, twelve: Path, listener
) -> None:
    reorder(twelve, STRING)
    name = dataset(workspace, twelve).name
    with pytest.raises(
        AuditError, match=r"audit of d0 failed: pairing: .*string order.*--accept-a"
    ):
        run_training(
            workspace,
            TrainingRequest(datasets=[name], features=REQUEST, seeds=[0], protocol=LINEAR),
            listener,
        )
    assert any("Audit of d0, pairing: fail" in line for line in listener.lines)
    assert not list(workspace.cache.glob("d0-*")), "nothing was extracted for it"
    options = {"seeds": [0], "protocol": LINEAR, "accept_audit": True}
    (run,) = run_training(
        workspace, TrainingRequest(datasets=[name], features=REQUEST, **options), Quiet()
    )
    assert run.config["audit_accepted"] is True
    reorder(twelve, [STRING.index(place) for place in range(12)])
    (run,) = run_training(
        workspace,
        TrainingRequest(datasets=[name], features=REQUEST, seeds=[0], protocol=LINEAR),
        Quiet(),
    )
    assert run.config["audit_accepted"] is False


def test_an_audit_is_made_once_for_each_state_of_the_data(
    workspace: Workspace, twelve: Path
) -> None:
    found = dataset(workspace, twelve)
    assert find_audit(workspace, found) is None
    first = ensure_audited(workspace, found, Quiet())
    again = ensure_audited(workspace, load_dataset(workspace, found.name), Quiet())
    assert first is not None
    assert again is not None
    assert first.record.id == again.record.id
    reorder(twelve, STRING)
    other = ensure_audited(workspace, load_dataset(workspace, found.name), Quiet())
    assert other is not None
    assert other.record.id != first.record.id
    assert sum("-audit-" in name for name in list_record_ids(workspace.runs)) == 2


def test_the_record_keeps_scores_and_the_worst_slices(workspace: Workspace, twelve: Path) -> None:
    _, record = audit_dataset(workspace, dataset(workspace, twelve), Quiet())
    scores = pl.read_parquet(record.file("audit_scores.parquet"))
    assert scores.height == 144
    assert scores.filter("declared").height == scores.filter("assigned").height == 12
    own = scores.filter("declared")["score"]
    assert own.mean() > scores.filter(~pl.col("declared"))["score"].mean()  # type: ignore[operator]
    pictures = list((record.folder / "worst").iterdir())
    assert len(pictures) == 4
    assert Image.open(pictures[0]).size == (112, 112)


def test_datasets_that_are_trained_together_are_compared(
    workspace: Workspace, twelve: Path, listener
) -> None:
    one = dataset(workspace, twelve, voxel_size_nm=[50.0, 5.0, 5.0]).name
    other = dataset(workspace, twelve, voxel_size_nm=[50.0, 4.6, 4.6]).name
    run_training(
        workspace,
        TrainingRequest(datasets=[one, other], features=REQUEST, seeds=[0], protocol=LINEAR),
        listener,
    )
    assert any("12 slices of d0 and d1 have the same pixels" in line for line in listener.lines)
    assert any("measure 5 x 5 and 4.6 x 4.6 nm; --pixel-size" in line for line in listener.lines)
    listener.lines.clear()
    run_training(
        workspace,
        TrainingRequest(datasets=[one], features=REQUEST, seeds=[0], protocol=LINEAR),
        listener,
    )
    assert not any("--pixel-size" in line for line in listener.lines)


def rewrite_masks(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in masks_of(root):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def test_inverted_masks_are_pointed_out(workspace: Workspace, twelve: Path) -> None:
    assert verdict(audit(workspace, twelve), "foreground") is Verdict.PASS
    rewrite_masks(twelve, lambda mask: 255 - mask)
    (found,) = [check for check in audit(workspace, twelve).checks if check.name == "foreground"]
    assert found.verdict is Verdict.FAIL
    assert "masks are inverted" in found.message


def test_instance_labels_below_the_threshold_fail(workspace: Workspace, twelve: Path) -> None:
    # Each slice has the next instance: 11, 22 ... 132, of which the last alone is foreground.
    number = iter(range(11, 143, 11))
    rewrite_masks(twelve, lambda mask: (next(number) * (mask >= 128)).astype(np.uint8))
    (found,) = [check for check in audit(workspace, twelve).checks if check.name == "grey values"]
    assert found.verdict is Verdict.FAIL
    assert "--instances" in found.message
    assert verdict(audit(workspace, twelve, mask_threshold=1), "grey values") is not Verdict.FAIL


def said(found: Audit, name: str) -> str:
    (check,) = (check for check in found.checks if check.name == name)
    return check.message


@pytest.mark.parametrize(
    ("change", "found", "words"),
    [
        (lambda mask: mask, Verdict.PASS, "fit best where they are"),
        (lambda mask: np.roll(mask, 2, 0), Verdict.WARN, "moved by 2 pixels up"),
        (lambda mask: np.roll(mask, (4, -3), (0, 1)), Verdict.FAIL, "4 pixels up and 3 pixels ri"),
        (lambda mask: np.kron(mask, np.ones((2, 2), np.uint8))[:112, :112], Verdict.FAIL, "scaled"),
        (lambda mask: cut(mask, 10), Verdict.FAIL, "scaled by 0.82"),
    ],
)
def test_masks_that_lie_elsewhere(
    workspace: Workspace,
    twelve: Path,
    change: Callable[[np.ndarray], np.ndarray],
    found: Verdict,
    words: str,
) -> None:
    rewrite_masks(twelve, change)
    result = audit(workspace, twelve)
    assert words in said(result, "alignment")
    assert verdict(result, "alignment") is found


def cut(mask: np.ndarray, border: int) -> np.ndarray:
    """Without its border, scaled to the size that it had."""
    inner = Image.fromarray(mask[border:-border, border:-border])
    return np.asarray(inner.resize(mask.shape[::-1], Image.Resampling.NEAREST))


@pytest.mark.parametrize(("wider", "side"), [(3, "outside"), (-3, "inside")])
def test_outlines_that_are_drawn_too_wide_are_not_moved_masks(
    workspace: Workspace, twelve: Path, wider: int, side: str
) -> None:
    grown = ndimage.grey_dilation if wider > 0 else ndimage.grey_erosion
    around = np.hypot(*np.mgrid[-3:4, -3:4]) <= abs(wider)
    rewrite_masks(twelve, lambda mask: grown(mask, footprint=around))
    result = audit(workspace, twelve)
    assert verdict(result, "alignment") is Verdict.WARN
    assert f"3 pixels {side} of what they go around" in said(result, "alignment")


def test_noise_does_not_say_where_masks_lie(workspace: Workspace, twelve: Path) -> None:
    random = np.random.default_rng(3)
    for path in (twelve / "images").iterdir():
        Image.fromarray(random.integers(0, 256, (112, 112)).astype(np.uint8)).save(path)
    result = audit(workspace, twelve)
    assert verdict(result, "alignment") is Verdict.WARN
    assert "Cannot tell" in said(result, "alignment")


@pytest.mark.real
@pytest.mark.parametrize(("down", "right"), [(0, 0), (8, -4), (-40, 24)])
def test_where_real_masks_lie(vnc_root: Path, down: int, right: int) -> None:
    alignment = Alignment(1024, 1024)
    for place in range(0, 20, 4):
        image = read_image(Plane(vnc_root / f"stack1/raw/{place:02d}.tif"))
        mask = read_mask(Plane(vnc_root / f"stack1/mitochondria/{place:02d}.png")) >= 128
        alignment.add(image, np.roll(mask, (down, right), (0, 1)))
    placement = alignment.place()
    assert placement is not None
    assert placement.move == pytest.approx((-down, -right), abs=1)
    assert placement.scale == pytest.approx((1, 1), abs=0.005)
    assert placement.clear > 2 * CLEAR
    assert (placement.kept > 0.95) == (down == 0)


@pytest.mark.real
@pytest.mark.parametrize(("first", "border"), [(6, 32), (17, 8)])
def test_a_border_that_was_cut_off_real_masks(lucchi_root: Path, first: int, border: int) -> None:
    """Twelve slices each where the search for the best place once ended in a wrong hollow."""
    alignment = Alignment(768, 1024)
    for number in range(first, first + 12):
        image = read_image(Plane(lucchi_root / f"Train_In/mask{number:04d}.png"))
        mask = read_mask(Plane(lucchi_root / f"Train_Out/{number}.png")) >= 128
        inner = Image.fromarray(mask[border:-border, border:-border])
        alignment.add(image, np.asarray(inner.resize((1024, 768), Image.Resampling.NEAREST)))
    placement = alignment.place()
    assert placement is not None
    assert placement.kept < 0.6
    rows, columns = (1 - 2 * border / side for side in (768, 1024))
    assert placement.scale == pytest.approx((rows, columns), abs=0.01)


def test_images_and_masks_that_were_taken_for_each_other(
    workspace: Workspace, twelve: Path
) -> None:
    assert verdict(audit(workspace, twelve), "looks") is Verdict.PASS
    swapped = audit(workspace, twelve, images="masks/*.png", masks="images/*.png")
    assert verdict(swapped, "looks") is Verdict.FAIL
    assert "exchange --images and --masks" in said(swapped, "looks")
    (twelve / "images").rename(twelve / "other")
    (twelve / "masks").rename(twelve / "images")
    bare = audit(workspace, twelve, images="images/*.png", masks="other/*.png")
    assert verdict(bare, "looks") is Verdict.FAIL


def test_grey_pictures_in_place_of_masks(workspace: Workspace, twelve: Path) -> None:
    for path in masks_of(twelve):
        image = np.asarray(Image.open(twelve / "images" / path.name))
        Image.fromarray(255 - image).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "looks") is Verdict.FAIL
    assert "grey pictures, not labels" in said(found, "looks")


def test_instance_labels_of_which_some_reach_the_threshold(
    workspace: Workspace, twelve: Path
) -> None:
    rewrite_masks(twelve, numbered)
    found = audit(workspace, twelve)
    assert verdict(found, "grey values") is Verdict.FAIL
    assert "add the dataset with --instances" in said(found, "grey values")
    assert verdict(audit(workspace, twelve, mask_threshold=1), "grey values") is not Verdict.FAIL


def numbered(mask: np.ndarray) -> np.ndarray:
    """Instance labels, half of them below 128."""
    labels, count = ndimage.label(mask >= 128)
    return np.linspace(0, 250, count + 1).astype(np.uint8)[labels]


def test_smoothed_masks_are_no_instance_labels(workspace: Workspace, twelve: Path) -> None:
    rewrite_masks(twelve, lambda mask: ndimage.gaussian_filter(mask, 1.5))
    assert verdict(audit(workspace, twelve), "grey values") is Verdict.WARN


def test_masks_with_hardly_any_foreground_are_named(workspace: Workspace, twelve: Path) -> None:
    path = masks_of(twelve)[4]
    mask = np.asarray(Image.open(path)).copy()
    rows, columns = np.nonzero(mask)
    mask[:] = 0
    mask[rows[0], columns[0]] = 255
    Image.fromarray(mask).save(path)
    found = audit(workspace, twelve)
    assert verdict(found, "empty masks") is Verdict.WARN
    assert "1 masks with hardly any foreground (4)" in said(found, "empty masks")


@pytest.mark.parametrize("shape", [(2, 2), (5, 9), (64, 48)])
def test_extremes_of_neighbours_are_scipys(shape: tuple[int, int]) -> None:
    small = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    for ours, scipys in (
        (np.maximum, ndimage.maximum_filter),
        (np.minimum, ndimage.minimum_filter),
    ):
        np.testing.assert_array_equal(pictures._of_neighbours(ours, small), scipys(small, 3))

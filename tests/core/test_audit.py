"""The audit against the pixels."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import emcache.audit.affinity
import emcache.audit.run
from emcache.audit.affinity import AS_THEY_ARE, CHANNELS, ORIENTATIONS, Scratch
from emcache.audit.causes import likely_cause
from emcache.audit.evidence import best_assignment, p_value, strength
from emcache.audit.findings import Audit, Verdict
from emcache.audit.run import audit_dataset, ensure_audited, find_audit
from emcache.datasets import Dataset, load_dataset
from emcache.errors import AuditError
from emcache.feature_choice import FeatureRequest
from emcache.progress import Quiet
from emcache.protocol import Protocol
from emcache.records import list_record_ids
from emcache.registration import add_dataset
from emcache.synthetic import STYLES, write_domain
from emcache.train_head import train_head
from emcache.training_setting import TrainingOptions
from emcache.workspace import Workspace

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
        ([5, 3, 9, 0, 11, 1, 8, 2, 10, 4, 7, 6], None),
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
    assert (found.pairing.p_value or 0) < 0.001 or not right


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
    assert found.pairing.p_value is None


def test_two_exchanged_masks_are_named(workspace: Workspace, twelve: Path) -> None:
    order = list(range(12))
    order[2], order[8] = 8, 2
    reorder(twelve, order)
    found = audit(workspace, twelve)
    assert verdict(found, "pairing") is Verdict.WARN
    assert "another mask fits images/2.png, images/8.png better" in found.checks[0].message


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


def test_scores_are_means_under_outline_and_inside() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (18, 40, 30), dtype=np.uint8)
    masks = np.zeros((18, 40, 30), dtype=bool)
    for place, mask in enumerate(masks):
        mask[5 + place : 12 + place, 4 + place // 2 : 15] = True
    with Scratch(40, 30) as scratch:
        for image, mask in zip(images, masks, strict=True):
            scratch.add(image, mask)
        scores = scratch.affinity(AS_THEY_ARE)
        assert len(scratch.orientations) == 4, "a quarter turn of these masks has another shape"
    inside = emcache.audit.affinity.image_channels(images[3])[2][masks[17]].mean()
    assert scores[2, 3, 17] == pytest.approx(inside, abs=1e-5)
    assert scores.shape == (len(CHANNELS), 18, 18)


def test_p_values_are_uniform_where_nothing_is_true() -> None:
    rng = np.random.default_rng(2)
    found = [p_value(rng.normal(size=(3, 9, 9)), rng) for _ in range(200)]
    assert 0.02 < np.mean(np.array(found) <= 0.1) < 0.19
    assert 0.4 < np.mean(found) < 0.6


def test_the_optimum_does_not_depend_on_the_order_and_noise_is_not_loud() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(3, 12, 12))
    shuffled = scores[:, :, rng.permutation(12)]
    assert best_assignment(scores).statistic == pytest.approx(best_assignment(shuffled).statistic)
    loud = [
        strength(best_assignment(noise).statistic, noise, rng)
        for noise in rng.normal(size=(100, 3, 12, 12))
    ]
    assert abs(np.mean(loud)) < 0.5
    assert max(loud) < 5


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
        ([f"a/{n}.png" for n in range(9)], [2, 3, 4, 5, 6, 7, 8, 0, 1], "shifted by two"),
        ([f"a/{n}.png" for n in range(9)], [0, 1, 2, 3, 4, 5, 6, 8, 7], None),
    ],
)
def test_causes(names: list[str], order: list[int], cause: str | None) -> None:
    assert likely_cause(np.array(order), names, names) == cause
    assert likely_cause(np.argsort(order), names, names) == cause


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


def test_many_slices_are_sampled_in_runs(
    workspace: Workspace, twelve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emcache.audit.run, "_MOST", 8)
    monkeypatch.setattr(emcache.audit.run, "_RUNS", 2)
    found = audit(workspace, twelve)
    assert list(found.pairing.assignment) == [f"images/{n}.png" for n in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert "Of 12 slices 8 were compared, 2 runs of 4 neighbours." in found.checks[0].message


def test_without_masks_there_is_less_to_check(workspace: Workspace, twelve: Path) -> None:
    add_dataset(workspace, "bare", "folder", twelve, {"images": "images/*.png"}, Quiet())
    bare = load_dataset(workspace, "bare")
    found, _ = audit_dataset(workspace, bare, Quiet())
    assert {check.name for check in found.checks} == {"sizes", "duplicates", "voxel size"}
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
        train_head(workspace, [name], REQUEST, TrainingOptions([0], LINEAR), listener)
    assert any("Audit of d0, pairing: fail" in line for line in listener.lines)
    assert not list(workspace.cache.glob("d0-*")), "nothing was extracted for it"
    options = TrainingOptions([0], LINEAR, accept_audit=True)
    (run,) = train_head(workspace, [name], REQUEST, options, Quiet())
    assert run.config["audit_accepted"] is True
    reorder(twelve, [STRING.index(place) for place in range(12)])
    (run,) = train_head(workspace, [name], REQUEST, TrainingOptions([0], LINEAR), Quiet())
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
    train_head(workspace, [one, other], REQUEST, TrainingOptions([0], LINEAR), listener)
    assert any("12 slices of d0 and d1 have the same pixels" in line for line in listener.lines)
    assert any("measure 5 x 5 and 4.6 x 4.6 nm; --pixel-size" in line for line in listener.lines)
    listener.lines.clear()
    train_head(workspace, [one], REQUEST, TrainingOptions([0], LINEAR), listener)
    assert not any("--pixel-size" in line for line in listener.lines)

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.classes import IGNORED, ClassRule, class_rule, parse_classes
from emcache.data.dataset import Dataset, load_dataset
from emcache.data.register import add_dataset
from emcache.data.resize import occupancy
from emcache.errors import EmcacheError, ImageError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.models.arithmetic import Precision
from emcache.models.heads import build_head
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.counts import Counts
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.trainer import Trainer

CLASSES = {"background": [0], "mitochondria": [191], "membrane": [32, 64], "ignore": [9]}
OPTIONS = {
    "seeds": [0],
    "protocol": Protocol(head="linear", max_epochs=2),
    "save_predictions": True,
    "precision": "float32",
}
REQUEST = FeatureRequest("tiny", "random:0", 70, precision="float32")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Eight slices with masks of four labels and an ignored margin."""
    root = tmp_path / "many"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for place in range(8):
        image = rng.integers(0, 256, (70, 84), np.uint8)
        mask = rng.choice([0, 0, 32, 64, 191], (10, 12)).astype(np.uint8).repeat(7, 0).repeat(7, 1)
        mask[:, :20] = 9
        Image.fromarray(image).save(root / "images" / f"{place}.png")
        Image.fromarray(mask).save(root / "masks" / f"{place}.png")
    return root


def add(workspace: Workspace, root: Path, name: str = "many", **options: object) -> Dataset:
    table = {"images": "images/*.png", "masks": "masks/*.png", "classes": CLASSES, **options}
    return add_dataset(workspace, name, "folder", root, table, Quiet())[0]


def test_scores_equal_an_independent_count(workspace: Workspace, labelled: Path) -> None:
    dataset = add(workspace, labelled)
    assert dataset.classes.names == ("background", "mitochondria", "membrane")
    (run,) = run_training(
        workspace, TrainingRequest(datasets=["many"], features=REQUEST, **OPTIONS), Quiet()
    )
    rows = pl.read_parquet(run.file("slice_metrics.parquet"))
    assert rows["class"].unique().sort().to_list() == ["foreground", "membrane", "mitochondria"]
    wanted = {"foreground": [32, 64, 191], "membrane": [32, 64], "mitochondria": [191]}
    for row in rows.iter_rows(named=True):
        stored = Image.open(labelled / "masks" / f"{row['slice_id']}.png")
        size = (84 * 70 // 84 // 14 * 14, 70 * 70 // 84 // 14 * 14)
        true = np.asarray(stored.resize(size, Image.Resampling.NEAREST))
        predicted = np.asarray(Image.open(run.file(f"predictions/many/{row['slice_id']}.png")))
        saved = np.asarray(Image.open(run.file(f"masks/many/{row['slice_id']}.png")))
        # A class is drawn by its first value.
        np.testing.assert_array_equal(saved, np.where(true == 64, 32, true))
        seen = true != 9
        p, t = (np.isin(labels, wanted[row["class"]]) for labels in (predicted, true))
        assert row["tp"] == (p & t & seen).sum()
        assert row["fp"] == (p & ~t & seen).sum()
        assert row["fn"] == (~p & t & seen).sum()
        assert row["tn"] == (~p & ~t & seen).sum()
    again = evaluate_run(workspace, run.id, ["many:test"], EvaluationOptions(), Quiet())
    assert pl.read_parquet(again.file("slice_metrics.parquet")).equals(rows)


def test_predictions_have_the_values_of_the_masks(
    workspace: Workspace, labelled: Path, tmp_path: Path
) -> None:
    add(workspace, labelled)
    (run,) = run_training(
        workspace, TrainingRequest(datasets=["many"], features=REQUEST, **OPTIONS), Quiet()
    )
    options = PredictionOptions(probabilities=True)
    files, _ = predict(
        workspace, run.id, [labelled / "images" / "0.png"], tmp_path / "out", options, Quiet()
    )
    mask = np.asarray(Image.open(files[0].mask))
    assert mask.shape == (70, 84)
    assert set(np.unique(mask)) <= {0, 32, 191}


def test_ignored_pixels_have_no_gradient_and_no_share_in_the_loss() -> None:
    torch.manual_seed(0)
    cpu, protocol = torch.device("cpu"), Protocol(head="linear")
    masks = torch.randint(0, 3, (2, 20, 20), dtype=torch.uint8)
    masks[:, :7] = IGNORED
    logits = torch.randn(2, 3, 20, 20, requires_grad=True)
    trainer = Trainer(build_head("linear", 8, 0, 3), protocol, cpu, Precision.FLOAT32, ignores=True)
    loss = trainer.loss(logits, masks)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :7] == 0).all()
    assert (logits.grad[:, :, 7:] != 0).any()
    # The same as a slice that ends where labels begin.
    plain = Trainer(build_head("linear", 8, 0, 3), protocol, cpu, Precision.FLOAT32)
    cropped = plain.loss(logits.detach()[:, :, 7:], masks[:, 7:])
    assert loss.item() == pytest.approx(float(cropped), abs=1e-6)
    # And where nothing is ignored, MONAI's own loss.
    full = torch.randint(0, 3, (2, 20, 20), dtype=torch.uint8)
    both = [float(t.loss(logits.detach(), full)) for t in (trainer, plain)]
    assert both[0] == pytest.approx(both[1], abs=1e-6)


def test_occupancy_is_the_share_of_what_is_labelled() -> None:
    labels = np.zeros((4, 4), np.uint8)
    labels[:2, :2] = [[1, IGNORED], [2, 0]]
    labels[2:, 2:] = IGNORED
    expected = [[2 / 3, 0], [0, np.nan]]
    np.testing.assert_allclose(occupancy(labels, 2), np.array(expected, np.float32), rtol=1e-6)


@given(st.integers(1, 3), st.integers(0, 2**31))
def test_counts_of_classes_equal_numpys(label: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 4, (9, 7))
    t = rng.choice([0, 1, 2, 3, IGNORED], (9, 7)).astype(np.uint8)
    found = Counts.of_class(torch.from_numpy(p), torch.from_numpy(t), label)
    seen = t != IGNORED
    a, b = (p == label)[seen], (t == label)[seen]
    assert (found.tp, found.fp, found.fn, found.tn) == (
        (a & b).sum(),
        (a & ~b).sum(),
        (~a & b).sum(),
        (~a & ~b).sum(),
    )


# Labels of other types


def test_labels_of_more_than_8_bits(workspace: Workspace, labelled: Path) -> None:
    for path in (labelled / "masks").iterdir():
        mask = np.asarray(Image.open(path)).astype(np.int32)
        path.unlink()
        tifffile.imwrite(path.with_suffix(".tif"), np.where(mask == 191, 100_000, mask))
    masks = {"masks": "masks/*.tif"}
    with pytest.raises(ImageError, match="has labels such as 100000"):
        add(workspace, labelled, **masks, classes=None)
    ids = add(workspace, labelled, "ids", **masks, classes=None, mask_threshold=1)
    classes = {**CLASSES, "mitochondria": [100_000]}
    named = add(workspace, labelled, "named", **masks, classes=classes)
    assert ids.slices[0].foreground_pixels is not None
    assert named.slices[0].foreground_pixels is not None
    assert ids.slices[0].foreground_pixels > named.slices[0].foreground_pixels
    (run,) = run_training(
        workspace, TrainingRequest(datasets=["named"], features=REQUEST, **OPTIONS), Quiet()
    )
    drawn = np.asarray(Image.open(next((run.folder / "masks" / "named").iterdir())))
    assert set(np.unique(drawn)) <= {0, 1, 2, IGNORED}, "labels, where values do not fit"


def test_float_masks_hold_whole_numbers(workspace: Workspace, labelled: Path) -> None:
    path = labelled / "masks" / "0.png"
    mask = np.asarray(Image.open(path)).astype(np.float32)
    path.unlink()
    tifffile.imwrite(path.with_suffix(".tif"), mask)
    before = add(workspace, labelled, masks="masks/*.*")
    assert before.slices[0].foreground_pixels
    mask[3, 3:5] = 0.5
    tifffile.imwrite(path.with_suffix(".tif"), mask)
    with pytest.raises(
        ImageError, match=r"0\.tif has 2 values that are not whole numbers \(as 0\.5"
    ):
        load_dataset(workspace, "many")


# What is refused


def test_a_value_without_a_class_is_named_with_its_count(
    workspace: Workspace, labelled: Path
) -> None:
    mask = np.array(Image.open(labelled / "masks" / "3.png"))
    mask[0, :6] = 77
    Image.fromarray(mask).save(labelled / "masks" / "3.png")
    with pytest.raises(ImageError, match=r"3\.png has 6 pixels of value 77, which belongs to no"):
        add(workspace, labelled)
    assert workspace.dataset_names() == []


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (["background=0", "membrane=0,32"], "value 0 belongs to background and to membrane"),
        (["mitochondria=191"], "expected background=VALUE and at least one other"),
        (["background=0", "ignore=1"], "expected background=VALUE and at least one other"),
        (["background=0", "a=x"], "class 'a=x' cannot be read"),
        (["background=0", "a"], "class 'a' cannot be read"),
        (["background=0", "a=1", "a=2"], "'a' is named twice"),
        (["background=0", "A b=1"], "'A b' cannot name a class"),
        (["background=0", "foreground=1", "b=2"], "stands for all classes"),
    ],
)
def test_rules_that_make_no_segmentation(rules: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        class_rule(None, parse_classes(rules))


def test_a_threshold_beside_classes_is_refused(workspace: Workspace, labelled: Path) -> None:
    with pytest.raises(UsageError, match="both say what is foreground"):
        add(workspace, labelled, mask_threshold=1)
    with pytest.raises(UsageError, match="classes cannot be"):
        add(workspace, labelled, classes={"background": [0], "a": ["1"]})


def test_other_classes_do_not_train_or_score_together(
    workspace: Workspace, labelled: Path, cells_root: Path
) -> None:
    add(workspace, labelled)
    other = {**CLASSES, "vesicle": [7]}
    add(workspace, labelled, "other", classes=other)
    with pytest.raises(UsageError, match="dataset other background, mitochondria, membrane, vesic"):
        run_training(
            workspace,
            TrainingRequest(datasets=["many", "other"], features=REQUEST, **OPTIONS),
            Quiet(),
        )
    (run,) = run_training(
        workspace, TrainingRequest(datasets=["many"], features=REQUEST, **OPTIONS), Quiet()
    )
    with pytest.raises(UsageError, match=rf"run {run.id} has the classes .*expected the same"):
        evaluate_run(workspace, run.id, ["other"], EvaluationOptions(), Quiet())


def test_two_classes_are_foreground_and_background_however_called(
    workspace: Workspace, labelled: Path
) -> None:
    two = {"background": [0, 32, 64, 9], "mitochondria": [191]}
    add(workspace, labelled, "two", classes=two)
    add(workspace, labelled, "plain", classes=None, mask_threshold=191)
    (run,) = run_training(
        workspace, TrainingRequest(datasets=["two", "plain"], features=REQUEST, **OPTIONS), Quiet()
    )
    rows = pl.read_parquet(run.file("slice_metrics.parquet"))
    named = rows.filter(pl.col("eval_on") == "two")
    assert named["class"].unique().sort().to_list() == ["foreground", "mitochondria"]
    assert rows.filter(pl.col("eval_on") == "plain")["class"].unique().to_list() == ["foreground"]


def test_the_key_of_a_threshold_is_what_it_was() -> None:
    """Label sets of earlier versions stay in use."""
    assert ClassRule().identity() == {"foreground": {"at_least": 128}}
    with pytest.raises(EmcacheError):
        class_rule(3, CLASSES)


@pytest.mark.parametrize(("threshold", "doubtful"), [(128, 7), (1, 0)])
def test_values_above_a_threshold_of_one_are_not_in_doubt(threshold: int, doubtful: int) -> None:
    """Instance labels: whoever says that every value above 0 is foreground need not be asked."""
    assert class_rule(threshold, None).doubtful_pixels({0: 90, 11: 4, 22: 3}) == doubtful

"""Every dataset at one physical scale."""

from pathlib import Path

import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache.extract import run_extraction
from emcache.cache.find import FeatureRequest
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.classes import ClassRule
from emcache.data.dataset import Selection, load_dataset
from emcache.data.register import add_dataset
from emcache.data.resize import Preprocessing, preprocessing_of
from emcache.errors import ImageError, UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

MASKED = {"images": "images/*.png", "masks": "masks/*.png"}
LINEAR = Protocol(head="linear", learning_rate=0.05, max_epochs=2)


@pytest.mark.parametrize(
    ("pitch", "target", "shape", "size"),
    [
        # 84 px of 5 nm are 420 nm: 42 px of 10 nm, three patches of 14.
        ((5.0, 5.0), 10.0, (84, 84), (42, 42)),
        # 1024 px of 4.6 nm at 8 nm: 588.8 px, floored to 42 patches.
        ((4.6, 4.6), 8.0, (1024, 1024), (588, 588)),
        # A pixel need not be square: 100 x 4 nm = 400 nm, 50 x 8 nm = 400 nm.
        ((4.0, 8.0), 10.0, (100, 50), (28, 28)),
        # Exactly one patch, in spite of rounding: 14 px of 0.1 nm at 0.1 nm.
        ((0.1, 0.1), 0.1, (14, 14), (14, 14)),
    ],
)
def test_sizes(pitch, target, shape, size) -> None:
    assert Preprocessing(None, 14, target, pitch).size_of(*shape) == size


def test_sizes_that_cannot_be() -> None:
    for nm in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="is not a pitch"):
            Preprocessing(None, 14, nm, (5.0, 5.0))
    with pytest.raises(ImageError, match=r"below one patch of 14 px at --pixel-size 100"):
        Preprocessing(None, 14, 100.0, (5.0, 5.0)).size_of(84, 84)
    with pytest.raises(UsageError, match=r"voxel size of cells is unknown, and --pixel-size 8 "):
        preprocessing_of(14, None, 8.0, None, "cells")


@pytest.fixture
def scaled(workspace: Workspace, tmp_path: Path) -> Workspace:
    """The same slices three times: with a pitch of 5 nm, with 10 nm, and in doubt."""
    root = tmp_path / "cells"
    write_domain(root, STYLES["sharp"], slices=10, size=84, seed=3)
    for name, pitch in (("fine", 5.0), ("coarse", 10.0), ("unknown", None)):
        extra = {} if pitch is None else {"voxel_size_nm": [50.0, pitch, pitch]}
        add_dataset(workspace, name, "folder", root, {**MASKED, **extra}, Quiet())
    return workspace


def test_the_same_pixels_at_another_scale_are_other_tokens(scaled: Workspace) -> None:
    options = ExtractOptions("tiny", "random:0", pixel_size_nm=10.0)
    sets = []
    for name in ("fine", "coarse"):
        done = run_extraction(
            plan_extraction(scaled, Selection(name, None), options, Quiet()), Quiet()
        )
        assert done.copied == 0, "the older set holds the same pixels at another size"
        sets.append(done.feature_set)
    assert [s.slices[0].grid for s in sets] == [(3, 3), (6, 6)]
    assert sets[0].fingerprint != sets[1].fingerprint
    assert sets[0].manifest["recipe_sha256"] == sets[1].manifest["recipe_sha256"]
    assert "-10nm-" in sets[0].name
    assert sets[0].description["longest_edge"] is None
    with pytest.raises(UsageError, match="voxel size of unknown is unknown"):
        plan_extraction(scaled, Selection("unknown", None), options, Quiet())


def test_labels_follow_the_tokens(scaled: Workspace, tmp_path: Path) -> None:
    options = ExtractOptions("tiny", "random:0", pixel_size_nm=10.0)
    job = plan_extraction(scaled, Selection("fine", None), options, Quiet())
    labels = ensure_labels(
        run_extraction(job, Quiet()).feature_set, job.slices, ClassRule(), Quiet()
    )
    mask = Image.open(tmp_path / "cells" / "masks" / f"{job.slices[0].id}.png")
    expected = mask.resize((42, 42), Image.Resampling.NEAREST).point(lambda v: v >= 128)
    assert (labels.mask(0) == expected).all()


def test_both_regimes_train_on_two_scales_and_say_so(scaled: Workspace) -> None:
    options = {"seeds": [0], "protocol": LINEAR.with_changes({"pixel_size_nm": 10.0})}
    request = FeatureRequest("tiny", "random:0", pixel_size_nm=10.0)
    (frozen,) = run_training(
        scaled, TrainingRequest(datasets=["fine", "coarse"], features=request, **options), Quiet()
    )
    (lora,) = run_training(
        scaled,
        TrainingRequest(
            datasets=["fine", "coarse"],
            regime="lora",
            features=FeatureRequest("tiny", "random:0"),
            **options,
        ),
        Quiet(),
    )
    for record in (frozen, lora):
        assert "pixel_size_nm=10.0]" in record.config["protocol"]
        assert record.config["longest_edge"] is None
        assert record.config["pixel_size_nm"] == 10.0
    assert frozen.config["label_sets"] == lora.config["label_sets"]
    # Features chosen without naming their scale are named all the same.
    plain = {"seeds": [0], "protocol": LINEAR}
    (record,) = run_training(scaled, TrainingRequest(datasets=["fine"], **plain), Quiet())
    assert "pixel_size_nm=10.0]" in record.config["protocol"]


def test_a_stated_voxel_size_wins_over_the_layouts(scaled: Workspace) -> None:
    assert load_dataset(scaled, "fine").voxel_size_nm == (50.0, 5.0, 5.0)
    for bad in ([1, 2], [1, 2, 0], "5", [1, 2, "x"], [1, 2, float("inf")]):
        with pytest.raises(UsageError, match="three positive numbers"):
            add_dataset(scaled, "bad", "folder", scaled.root, {"voxel_size_nm": bad}, Quiet())

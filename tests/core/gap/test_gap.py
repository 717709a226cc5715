"""Distances between sets of slices, against independent ways to the same figures."""

import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy
from emcache_bench.synthetic import STYLES, write_domain
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import emcache.gap.sources
from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.find import Donors, FeatureRequest
from emcache.cache.recipe import StoredSlice
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, StoreError, UsageError
from emcache.gap import probe as probe_module
from emcache.gap.frechet import (
    Sample,
    at_infinity,
    effective_rank,
    frechet_distance,
    jackknife_interval,
    yardstick,
)
from emcache.gap.measure import kernel_distance, measure
from emcache.gap.probe import fold_of_blocks, probe
from emcache.gap.run import GapOptions, measure_gaps
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

REQUEST = FeatureRequest("tiny", "random:0", 70)
ONE_EPOCH = {"seeds": [0], "protocol": Protocol(head="linear", max_epochs=1, learning_rate=1e-2)}


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see that they are there."""
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 9)


def textbook(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The distance by the square root of a matrix, and the sum of the traces."""
    s, t = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    with warnings.catch_warnings():
        # It says itself that it is not exact for singular matrices.
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        root = scipy.linalg.sqrtm(s @ t)
    shift = x.mean(axis=0) - y.mean(axis=0)
    traces = np.trace(s) + np.trace(t)
    return float(shift @ shift + traces - 2 * np.trace(root).real), float(traces)


shapes = st.tuples(
    st.integers(2, 40), st.integers(2, 40), st.integers(1, 24), st.integers(0, 2**32 - 1)
)


def draw(n: int, m: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim))
    return rng.normal(size=(n, dim)) @ mix, rng.normal(size=(m, dim)) * 2 + rng.normal(size=dim)


@settings(max_examples=200, deadline=None)
@given(shapes)
def test_frechet_is_the_textbooks(shape: tuple[int, int, int, int]) -> None:
    x, y = draw(*shape)
    expected, traces = textbook(x, y)
    assert abs(frechet_distance(x, y) - expected) <= 1e-6 * traces


def test_frechet_is_many_times_faster_than_the_textbook() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(165, 512)), rng.normal(size=(20, 512)) + 0.1
    frechet_distance(x, y)
    # Of the processor: whatever else runs on the machine is in neither.
    began = time.process_time()
    expected, traces = textbook(x, y)
    slow = time.process_time() - began
    fast = []
    for _ in range(5):
        began = time.process_time()
        found = frechet_distance(x, y)
        fast.append(time.process_time() - began)
    assert abs(found - expected) <= 1e-6 * traces
    assert slow >= 50 * sorted(fast)[2]


@given(shapes)
def test_frechet_is_a_distance(shape: tuple[int, int, int, int]) -> None:
    x, y = draw(*shape)
    dim = x.shape[1]
    distance = frechet_distance(x, y)
    scale = 1e-9 * (1 + distance + np.ptp(x) ** 2 + np.ptp(y) ** 2) * dim
    assert distance == pytest.approx(frechet_distance(y, x), abs=scale)
    assert frechet_distance(x, x) <= scale
    rotation = np.linalg.qr(np.random.default_rng(shape[3]).normal(size=(dim, dim)))[0]
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(distance, abs=scale)
    shift = np.arange(dim, dtype=float)
    moved = frechet_distance(x + shift, x)
    assert moved == pytest.approx(float(shift @ shift), abs=scale + 1e-9 * (shift @ shift))


def test_effective_rank_counts_directions() -> None:
    rng = np.random.default_rng(0)
    line = rng.normal(size=(500, 1)) @ rng.normal(size=(1, 30))
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    ball = rng.normal(size=(20_000, 12))
    assert effective_rank(ball) == pytest.approx(12, rel=1e-2)
    assert effective_rank(np.ones((5, 3))) == 0


@given(st.integers(3, 25), st.integers(3, 25), st.integers(0, 999))
def test_kernel_distance_is_the_sum_over_pairs(n: int, m: int, seed: int) -> None:
    x, y = draw(n, m, 7, seed)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 7 + 1) ** 3)

    def within(v: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(v)) for j in range(len(v)) if abs(i - j) > 1]
        return sum(k(v[i], v[j]) for i, j in pairs) / len(pairs)

    cross = sum(k(a, b) for a in x for b in y) / (n * m)
    found = kernel_distance(Sample.of_slices(x), Sample.of_slices(y))
    assert found == pytest.approx(within(x) + within(y) - 2 * cross, rel=1e-9)


def test_the_probe_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 3)
    x, y = draw(23, 17, 30, 1)
    y = y / 2 + 0.5
    found = probe(Sample.of_slices(x), Sample.of_slices(y))
    assert found is not None
    data = np.concatenate([x, y])
    labels = np.array([0] * len(x) + [1] * len(y))
    blocks = [Sample.of_slices(side).blocks() for side in (x, y)]
    owners = np.array([0] * len(blocks[0]) + [1] * len(blocks[1]))
    folds = np.empty(len(data), int)
    members = [*blocks[0], *(b + len(x) for b in blocks[1])]
    for block, fold in zip(members, fold_of_blocks(owners), strict=True):
        folds[block] = fold
    scores = np.empty(len(data))
    for fold in range(5):
        train = data[folds != fold]
        mean, scale = train.mean(axis=0), (train - train.mean(axis=0)).std()
        plain = make_pipeline(
            FunctionTransformer(lambda v, mean=mean, scale=scale: (v - mean) / scale),
            LogisticRegression(class_weight="balanced", max_iter=5000, tol=1e-8),
        ).fit(train, labels[folds != fold])
        scores[folds == fold] = plain.decision_function(data[folds == fold])
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=0.01)
    told = (scores > 0) == labels
    assert found.accuracy == pytest.approx((told[:23].mean() + told[23:].mean()) / 2, abs=0.03)


def test_the_probe_knows_chance_from_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # As few as tell the p-values that are asked for.
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 39)
    alike = probe(*(Sample.of_slices(rng.normal(size=(24, 40))) for _ in range(2)))
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 199)
    apart = probe(*(Sample.of_slices(rng.normal(size=(24, 40)) + s) for s in (0, 1)))
    assert alike is not None
    assert apart is not None
    assert alike.p_value > 0.05
    assert apart.p_value <= 0.01
    assert apart.auroc > 0.95
    few = Sample.of_slices(rng.normal(size=(7, 40)))
    assert probe(few, Sample.of_slices(rng.normal(size=(24, 40)))) is None, "three blocks"


def test_the_interval_holds_the_distance_of_independent_slices() -> None:
    """Of 60 draws from two Gaussians, far apart and of low rank, nearly all cover the truth."""
    rng = np.random.default_rng(0)
    shift = np.zeros(5)
    shift[0] = 6.0
    truth, covered = 36.0, 0
    for _ in range(60):
        sides = [Sample.of_slices(rng.normal(size=(120, 5)) + s) for s in (0, shift)]
        interval = jackknife_interval(*sides)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert covered >= 52


def test_neighbours_widen_the_interval() -> None:
    """Slices that repeat one another are not twice the evidence."""
    rng = np.random.default_rng(0)
    few = [rng.normal(size=(20, 6)) + s for s in (0, 2)]
    once = jackknife_interval(*map(Sample.of_slices, few))
    twice = jackknife_interval(*(Sample.of_slices(side.repeat(2, axis=0)) for side in few))
    assert once is not None
    assert twice is not None
    assert twice.standard_error > 0.8 * once.standard_error


def test_too_few_for_an_interval_or_a_yardstick() -> None:
    three, two = (Sample.of_slices(draw(n, n, 4, 0)[0]) for n in (3, 2))
    assert jackknife_interval(three, two) is None
    assert yardstick(three, three) is None
    gap = measure(two, three, ("a", "b"))
    assert gap.frechet_low is None
    assert gap.frechet_infinity is None
    assert gap.probe_auroc is None
    with pytest.raises(UsageError, match="b has 1 of the vectors"):
        measure(two, Sample.of_slices(np.zeros((1, 4))), ("a", "b"))


def test_yardsticks_are_contiguous() -> None:
    """A stack that drifts is further from itself by halves than by every other slice."""
    rng = np.random.default_rng(0)
    drift = np.linspace(0, 5, 40)[:, None] + rng.normal(size=(40, 6))
    rods = yardstick(Sample.of_slices(drift), Sample.of_slices(drift[::-1]))
    assert rods is not None
    assert rods.vectors == 20
    assert rods.within_one == pytest.approx(frechet_distance(drift[:20], drift[20:]))
    assert rods.within_one > 3 * frechet_distance(drift[::2], drift[1::2])


def test_infinity_takes_the_bias_away() -> None:
    rng = np.random.default_rng(0)
    sides = [Sample.of_slices(rng.normal(size=(400, 10))) for _ in range(2)]
    found = at_infinity(*sides)
    assert found is not None
    assert found < 0.2 * frechet_distance(*(side.vectors for side in sides))
    short = [Sample.of_slices(side.vectors[:30]) for side in sides]
    assert at_infinity(*short) is None, "three vectors for each dimension"


# The command's work


@pytest.fixture
def domains(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Two made-up microscopes with masks, and a third set without."""
    for seed, style in enumerate(("sharp", "soft")):
        root = tmp_path / style
        write_domain(root, STYLES[style], slices=10, size=84, seed=seed)
        options = {"images": "images/*.png", "masks": "masks/*.png"}
        add_dataset(workspace, style, "folder", root, options, Quiet())
    write_domain(tmp_path / "other", STYLES["sharp"], slices=6, size=84, seed=7)
    options = {"images": "images/*.png"}
    add_dataset(workspace, "other", "folder", tmp_path / "other", options, Quiet())
    return workspace


def vectors_of(workspace: Workspace, name: str) -> np.ndarray:
    (found,) = [f for f in list_feature_sets(workspace.cache) if f.description["dataset"] == name]
    return found.pooled()


def test_every_pair_is_measured(domains: Workspace) -> None:
    options = GapOptions(REQUEST)
    rows, record = measure_gaps(domains, ["sharp", "soft", "other"], options, Quiet())
    pairs = [(row["domain_a"], row["domain_b"]) for row in rows]
    assert pairs == [("sharp", "soft"), ("sharp", "other"), ("soft", "other")]
    assert {(row["level"], row["class"]) for row in rows} == {("slice", None)}
    for row in rows:
        x, y = (vectors_of(domains, row[f"domain_{side}"]) for side in "ab")
        assert row["frechet"] == pytest.approx(textbook(x, y)[0], rel=1e-3)
        assert (row["n_a"], row["n_b"], row["dim"]) == (len(x), len(y), 64)
    points = pl.read_parquet(record.file("gap_points.parquet"))
    assert points.height == 26
    assert points["thumbnail"].str.starts_with("data:image/jpeg;base64,").all()
    together = np.concatenate([vectors_of(domains, n) for n in ("sharp", "soft", "other")])
    centred = together.astype(np.float64) - together.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    assert points["explained1"][0] == pytest.approx(values[0] / values.sum(), rel=1e-4)
    assert np.abs(points["pc1"]).sum() == pytest.approx(
        np.abs(centred @ np.linalg.svd(centred)[2][0]).sum(), rel=1e-4
    )


def test_vectors_of_slices_are_read_without_their_tokens(
    domains: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """330 slices of a large backbone have gigabytes of tokens, and kilobytes of vectors."""
    options = GapOptions(REQUEST, levels=("slice", "cls"))
    before, _ = measure_gaps(domains, ["sharp", "soft"], options, Quiet())

    def tokens(self: FeatureSet, position: int) -> None:
        raise AssertionError("tokens were read")

    monkeypatch.setattr(FeatureSet, "tokens", tokens)
    again, _ = measure_gaps(domains, ["sharp", "soft"], options, Quiet())
    assert again == before


def test_tokens_by_class_are_those_of_the_masks(domains: Workspace, listener) -> None:
    fine = FeatureRequest("tiny", "random:0", 168)
    options = GapOptions(fine, levels=("slice", "cls", "token"), by_class=True)
    rows, record = measure_gaps(domains, ["sharp", "soft"], options, Quiet())
    kinds = [(row["level"], row["class"]) for row in rows]
    assert kinds == [
        ("slice", None),
        ("cls", None),
        ("token", None),
        ("token", "foreground"),
        ("token", "background"),
    ]
    table = pl.read_parquet(record.file("embeddings.parquet"))
    assert set(table["class"]) == {None, "foreground", "background"}
    tokens = {
        (stored.description["dataset"], item.id): stored.tokens(place)
        for stored in list_feature_sets(domains.cache)
        for place, item in enumerate(stored.slices)
    }

    @cache
    def foreground(dataset: str, slice_id: str) -> np.ndarray:
        root = domains.root.parent / dataset
        if not root.exists():
            root = domains.root / dataset
        mask = Image.open(root / "masks" / f"{slice_id}.png")
        return np.asarray(mask.resize((168, 168), Image.Resampling.NEAREST)) >= 128

    for row in table.filter(pl.col("class").is_not_null()).iter_rows(named=True):
        full = foreground(row["dataset"], row["slice_id"])
        top, left = row["token_row"] * 14, row["token_col"] * 14
        share = full[top : top + 14, left : left + 14].mean()
        assert share >= 0.9 if row["class"] == "foreground" else share <= 0.1
        token = tokens[row["dataset"], row["slice_id"]][row["token_row"], row["token_col"]]
        np.testing.assert_array_equal(token.astype(np.float32), row["vector"])
    coarse = GapOptions(REQUEST, by_class=True)
    rows, _ = measure_gaps(domains, ["sharp", "soft"], coarse, listener)
    assert ("token", "foreground") not in [(row["level"], row["class"]) for row in rows]
    assert any("fewer than two foreground tokens" in line for line in listener.lines)
    with pytest.raises(DatasetError, match="not every slice of other has a mask"):
        measure_gaps(domains, ["sharp", "other"], options, Quiet())


@pytest.mark.parametrize("regime", ["lora", "full"])
def test_a_run_that_trained_its_backbone_has_features_of_its_own(
    domains: Workspace, regime: str
) -> None:
    choice = FeatureRequest("tiny", "random:0", 70)
    (run,) = run_training(
        domains,
        TrainingRequest(datasets=["sharp"], regime=regime, features=choice, **ONE_EPOCH),
        Quiet(),
    )
    frozen, _ = measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST), Quiet())
    adapted, _ = measure_gaps(domains, ["sharp", "soft"], GapOptions(run=run.id), Quiet())
    assert (frozen[0]["regime"], adapted[0]["regime"]) == ("frozen", regime)
    assert adapted[0]["run_id"] == run.id
    assert adapted[0]["frechet"] != frozen[0]["frechet"]
    assert adapted[0]["recipe_sha256"] != frozen[0]["recipe_sha256"]
    # A head is never trained on them by accident.
    (head,) = run_training(domains, TrainingRequest(datasets=["sharp"], **ONE_EPOCH), Quiet())
    assert not any(f"-{regime}-" in name for name in head.config["feature_sets"])
    (head_rows, _) = measure_gaps(domains, ["sharp", "soft"], GapOptions(run=head.id), Quiet())
    assert head_rows[0]["frechet"] == frozen[0]["frechet"]
    assert head_rows[0]["regime"] == "frozen"


def test_splits_are_read_from_what_is_there(
    domains: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST), Quiet())
    before = [f.name for f in list_feature_sets(domains.cache)]

    def fail(*_: object) -> None:
        pytest.fail("slices went through the backbone again")

    monkeypatch.setattr(emcache.gap.sources, "run_extraction", fail)
    rows, _ = measure_gaps(domains, ["sharp:test", "soft:train"], GapOptions(), Quiet())
    assert (rows[0]["n_a"], rows[0]["n_b"]) == (2, 8)
    assert [f.name for f in list_feature_sets(domains.cache)] == before


def test_features_that_are_not_finite_name_the_slices(
    domains: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST), Quiet())
    real = Donors.vectors

    def broken(self: Donors, item: StoredSlice) -> dict[str, np.ndarray]:
        found = dict(real(self, item))
        return {**found, "pooled": found["pooled"] * np.nan} if item.id == "3" else found

    monkeypatch.setattr(Donors, "vectors", broken)
    with pytest.raises(StoreError, match="the features of 3 in sharp are not finite"):
        measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST), Quiet())


def test_what_cannot_be_compared(domains: Workspace) -> None:
    for names, reason in (
        (["sharp"], "two or more different selections"),
        (["sharp", "sharp"], "two or more different selections"),
    ):
        with pytest.raises(UsageError, match=reason):
            measure_gaps(domains, names, GapOptions(REQUEST), Quiet())
    with pytest.raises(UsageError, match="no backbone was named"):
        measure_gaps(domains, ["sharp", "soft"], GapOptions(), Quiet())
    with pytest.raises(UsageError, match="there is no level 'pixel'"):
        measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST, levels=("pixel",)), Quiet())
    measure_gaps(domains, ["sharp", "soft"], GapOptions(REQUEST), Quiet())
    other = FeatureRequest("tiny", "random:0", 84)
    measure_gaps(domains, ["sharp", "soft"], GapOptions(other), Quiet())
    with pytest.raises(StoreError, match=r"of 2 kinds .*longest_edge 70.*longest_edge 84"):
        measure_gaps(domains, ["sharp", "soft"], GapOptions(), Quiet())


@pytest.mark.real
def test_the_same_tissue_is_nearer_than_another_microscope(
    workspace: Workspace, vnc_root: Path
) -> None:
    add_dataset(workspace, "vnc", "vnc", vnc_root, {}, Quiet())
    add_dataset(workspace, "fib", "folder", vnc_root.parent / "fib25", {}, Quiet())
    request = FeatureRequest("dinov2-small", "random:0", 126)
    rows, _ = measure_gaps(workspace, ["vnc", "vnc:stack2", "fib"], GapOptions(request), Quiet())
    same, *across = rows
    for row in across:
        assert row["frechet_low"] > same["frechet_high"]
        assert row["kernel"] > 10 * same["kernel"]
        # All of these at N = 10.
        assert row["n_yardstick"] == same["n_yardstick"] == 10
        rods = [r[f"frechet_within_{side}"] for r in rows for side in "ab"]
        assert row["frechet_at_n"] > max(*rods, same["frechet_at_n"])

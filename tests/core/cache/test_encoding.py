"""Tokens in fewer bytes: 8 bits, and principal components."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.decomposition import PCA

import emcache.cache.extract
from emcache.cache.convert import convert
from emcache.cache.encoding import BASIS_FILE, Encoding, fit_basis
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.errors import StoreError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.maintenance.repair import repair_feature_set, verify_feature_set
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=4)


def tokens_of(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5, 6)) -> np.ndarray:
    """Tokens that lie far from zero and close to each other, as those of real slices do."""
    rng = np.random.default_rng(seed)
    return (20 + rng.standard_normal(shape) * np.linspace(0.1, 3, shape[-1])).astype(np.float32)


def extract(workspace: Workspace, name: str = "cells", dtype: str = "float16") -> FeatureSet:
    options = ExtractOptions("tiny", "random:0", 70, dtype, precision="float32")
    job = plan_extraction(workspace, Selection(name, None), options, Quiet())
    return run_extraction(job, Quiet()).feature_set


def refuse(*_: object) -> None:
    raise AssertionError("a backbone was loaded")


def train(workspace: Workspace, names: tuple[str, ...] = ("cells",), **features: object) -> Record:
    request = TrainingRequest(
        datasets=names,
        features=FeatureRequest("tiny", "random:0", 70, precision="float32", **features),
        protocol=LINEAR,
        save_predictions=True,
    )
    (record,) = run_training(workspace, request, Quiet())
    return record


def test_8_bits_are_off_by_half_a_step_at_most() -> None:
    tokens = tokens_of()
    tokens[0, :, :, 2] = 7.25
    encoding = Encoding("int8")
    stored = encoding.encode(tokens)
    assert stored.values.dtype == np.int8
    assert (stored.values.min(), stored.values.max()) == (-127, 127)
    read = encoding.decode(stored)
    assert read.dtype == np.float16
    step = (tokens.max(axis=(1, 2)) - tokens.min(axis=(1, 2))) / 254
    rounding = np.abs(tokens) * 2.0**-10  # to float16, before and after
    assert (np.abs(read - tokens) <= step[:, None, None] / 2 + rounding).all()
    assert (read[0, :, :, 2] == 7.25).all()
    # Each slice has its own steps, so its neighbours change nothing.
    alone = encoding.encode(tokens[1:2])
    np.testing.assert_array_equal(alone.values[0], stored.values[1])


def test_a_basis_is_that_of_a_principal_component_analysis() -> None:
    slices = [tokens_of(seed)[0] for seed in range(3)]
    basis = fit_basis(iter(slices), 3)
    expected = PCA(3, svd_solver="full").fit(np.concatenate([s.reshape(-1, 6) for s in slices]))
    same = np.abs((basis.components * expected.components_).sum(axis=1))
    np.testing.assert_allclose(same, 1, atol=1e-5)
    np.testing.assert_allclose(basis.mean, expected.mean_, rtol=1e-5)
    largest = np.abs(basis.components).argmax(axis=1)
    assert (basis.components[np.arange(3), largest] > 0).all(), "solvers give either direction"
    assert basis.explained == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-6)
    whole = Encoding("float16", fit_basis(iter(slices), 6))
    np.testing.assert_allclose(whole.round_trip(slices[0][None])[0], slices[0], atol=0.03)
    with pytest.raises(StoreError, match="7 principal components were asked for"):
        fit_basis(iter(slices), 7)


def test_converted_bytes_are_those_of_an_extraction(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = extract(cells, dtype="int8")
    plain = extract(cells)
    files = {name: facts["sha256"] for name, facts in direct.manifest["files"].items()}
    assert direct.token_bytes * 2 == plain.token_bytes
    direct.folder.rename(cells.root / "aside")
    monkeypatch.setattr(emcache.cache.extract, "load_job_backbone", refuse)
    (made,) = convert(cells, [plain.name], "int8", None, Quiet())
    assert made.feature_set.fingerprint == direct.fingerprint
    kept = {name for name in files if "tokens" in name or name.startswith(("scale", "offset"))}
    assert len(kept) >= 5
    for name in kept:
        assert made.feature_set.manifest["files"][name]["sha256"] == files[name]
    np.testing.assert_array_equal(made.feature_set.pooled(), plain.pooled())


@pytest.mark.parametrize(("dtype", "components"), [("int8", None), ("float16", 16), ("int8", 16)])
def test_a_head_on_smaller_tokens_predicts_and_is_evaluated(
    cells: Workspace, tmp_path: Path, dtype: str, components: int | None
) -> None:
    plain = extract(cells)
    convert(cells, [plain.name], dtype, components, Quiet())
    run = train(cells, dtype=dtype, components=components)
    small = tmp_path / "small"
    small.mkdir()
    saved = sorted((run.folder / "predictions" / "cells").iterdir())
    for path in saved:
        picture = Image.open(tmp_path / "cells" / "images" / path.name)
        picture.resize((70, 70), Image.Resampling.BICUBIC).save(small / path.name)
    predict(cells, run.id, [small], tmp_path / "out", PredictionOptions(), Quiet())
    for path in saved:
        predicted = np.asarray(Image.open(tmp_path / "out" / path.name))
        assert np.array_equal(predicted, np.asarray(Image.open(path)))
    # Other data go through the basis of the training, not through one of their own.
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "others", "folder", tmp_path / "cells", options, Quiet())
    record = evaluate_run(cells, run.id, ["others"], EvaluationOptions(), Quiet())
    scores = ("slice_id", "tp", "fp", "fn")
    tested, again = (
        pl.read_parquet(one.file("slice_metrics.parquet")).select(scores) for one in (run, record)
    )
    both = tested.join(again, on="slice_id")
    assert len(both) == len(tested)
    for name in scores[1:]:
        assert both[name].to_list() == both[f"{name}_right"].to_list()


def test_datasets_share_a_basis_or_cannot_be_trained_together(
    cells: Workspace, tmp_path: Path
) -> None:
    options = {"images": "images/*[1-9].png", "masks": "masks/*[1-9].png"}
    add_dataset(cells, "others", "folder", tmp_path / "cells", options, Quiet())
    names = [extract(cells).name, extract(cells, "others").name]
    for name, _ in zip(names, range(2), strict=True):
        convert(cells, [name], "float16", 8, Quiet())
    with pytest.raises(StoreError, match=r"differ .*basis_sha256"):
        train(cells, ("cells", "others"), components=8)
    one, other = convert(cells, names, "float16", 9, Quiet())
    assert one.feature_set.encoding.basis.sha256 == other.feature_set.encoding.basis.sha256
    assert train(cells, ("cells", "others"), components=9).config["recipe"]["components"] == 9


def test_components_are_used_where_they_are_asked_for(cells: Workspace) -> None:
    plain = extract(cells)
    with pytest.raises(UsageError, match="no 8 principal components of the tokens of cells"):
        train(cells, components=8)
    (made,) = convert(cells, [plain.name], "float16", 8, Quiet())
    assert train(cells).config["feature_sets"] == [plain.name]
    assert train(cells, components=8).config["feature_sets"] == [made.feature_set.name]


def test_what_is_smaller_is_repaired(cells: Workspace) -> None:
    plain = extract(cells)
    (made,) = convert(cells, [plain.name], "int8", 8, Quiet())
    found, before = made.feature_set, made.feature_set.tokens(2)
    (shard,) = found.folder.glob("grids/*/tokens/c/0/0/0/0")
    shard.write_bytes(bytes(len(shard.read_bytes())))
    damages = verify_feature_set(found.folder)
    assert repair_feature_set(cells, found.name, damages, Quiet()).repaired
    np.testing.assert_array_equal(FeatureSet.open(found.folder).tokens(2), before)
    basis = found.folder / BASIS_FILE
    basis.write_bytes(bytes(len(basis.read_bytes())))
    (damage,) = verify_feature_set(found.folder)
    outcome = repair_feature_set(cells, found.name, [damage], Quiet())
    assert (damage.file, outcome.repaired) == ("basis.npz", False)
    assert "holds no basis of principal components" in outcome.message
    with pytest.raises(StoreError, match=r"is damaged or missing.*convert again"):
        FeatureSet.open(found.folder).tokens(2)


def test_what_cannot_be_converted(cells: Workspace) -> None:
    plain = extract(cells)
    with pytest.raises(UsageError, match="float16 makes nothing smaller"):
        convert(cells, [plain.name], "float16", None, Quiet())
    with pytest.raises(StoreError, match="did you mean"):
        convert(cells, [plain.name[:-1]], "int8", None, Quiet())
    with pytest.raises(StoreError, match="65 principal components were asked for"):
        convert(cells, [plain.name], "int8", 65, Quiet())
    (made,) = convert(cells, [plain.name], "int8", None, Quiet())
    with pytest.raises(StoreError, match="was made smaller already"):
        convert(cells, [made.feature_set.name], "int8", 8, Quiet())
    options = ExtractOptions("tiny", "random:0", 70, precision="float32")
    job = plan_extraction(cells, Selection("cells", "test"), options, Quiet())
    test = run_extraction(job, Quiet()).feature_set
    with pytest.raises(StoreError, match="no training slices"):
        convert(cells, [test.name], "int8", 8, Quiet())
    options = ExtractOptions("tiny", "random:0", 56, precision="float32")
    smaller = run_extraction(
        plan_extraction(cells, Selection("cells", None), options, Quiet()), Quiet()
    ).feature_set
    with pytest.raises(StoreError, match="tokens of several kinds"):
        convert(cells, [plain.name, smaller.name], "int8", 8, Quiet())
    several = LINEAR.with_changes({"layers": "last2"})
    request = TrainingRequest(
        datasets=["cells"],
        features=FeatureRequest("tiny", "random:0", 70, components=8),
        protocol=several,
    )
    with pytest.raises(UsageError, match="components are of one layer"):
        run_training(cells, request, Quiet())


def test_tokens_in_float32_give_the_same_bytes(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = extract(cells, dtype="int8")
    tokens = direct.tokens(3)
    wide = extract(cells, dtype="float32")
    direct.folder.rename(cells.root / "aside")
    monkeypatch.setattr(emcache.cache.extract, "load_job_backbone", refuse)
    (made,) = convert(cells, [wide.name], "int8", None, Quiet())
    np.testing.assert_array_equal(made.feature_set.tokens(3), tokens)

"""Alignment of tokens: the transforms, and which slices they are fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache import moments as moments_module
from emcache.cache.alignment import fit
from emcache.cache.feature_set import list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.cache.moments import (
    ALIGNMENT_FILE,
    Moments,
    load_moments,
    moments_of,
    save_moments,
)
from emcache.data.dataset import load_dataset
from emcache.data.register import add_dataset
from emcache.errors import RecordError, StoreError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.gap import probe as probe_module
from emcache.gap.run import GapOptions, measure_gaps
from emcache.maintenance.repair import verify_cache
from emcache.models.norms import DomainBatchNorm2d
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

TINY = FeatureRequest("tiny", "random:0", 70)


def domain(seed: int, slices: int = 6, channels: int = 5, grid: int = 20) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(channels, channels))
    level = 100 * random.normal(size=channels)
    return [random.normal(size=(grid, grid, channels)) ** 3 @ mix + level for _ in range(slices)]


def flat(slices: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([tokens.reshape(-1, tokens.shape[-1]) for tokens in slices])


def moments(slices: list[np.ndarray], name: str = "cells") -> Moments:
    return moments_of(name, slices.__getitem__, range(len(slices)))


def test_moments_are_those_of_all_tokens() -> None:
    slices = domain(0)
    found, tokens = moments(slices), flat(slices)
    assert found.count == len(tokens) == 2400
    np.testing.assert_allclose(found.mean, tokens.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(tokens.T), rtol=1e-10)
    np.testing.assert_allclose(found.quantiles[[0, 128, -1]], np.quantile(tokens, [0, 0.5, 1], 0))


@pytest.mark.parametrize("method", ["standardise", "whiten", "coral", "quantile"])
def test_what_comes_out_has_the_moments_that_were_asked_for(method: str) -> None:
    slices, others = domain(0), domain(1)
    reference = moments(others)
    transform = fit(method, moments(slices), reference)  # type: ignore[arg-type]
    assert transform is not None
    after = moments([transform(tokens) for tokens in slices])
    if method == "standardise":
        np.testing.assert_allclose(after.mean, 0, atol=1e-12)
        np.testing.assert_allclose(after.deviation, 1, rtol=1e-12)
    elif method == "whiten":
        np.testing.assert_allclose(after.mean, 0, atol=1e-10)
        np.testing.assert_allclose(after.covariance, np.eye(5), atol=1e-6)
    elif method == "coral":
        np.testing.assert_allclose(after.mean, reference.mean, rtol=1e-9)
        np.testing.assert_allclose(after.covariance, reference.covariance, rtol=1e-6, atol=1e-6)
    else:
        # The outermost steps are long, and a line stands in each of them.
        inner = slice(8, -8)
        np.testing.assert_allclose(after.quantiles[inner], reference.quantiles[inner], atol=0.5)
        np.testing.assert_allclose(after.quantiles[0], reference.quantiles[0], rtol=1e-9)


def test_a_domain_aligned_to_itself_stays() -> None:
    slices = domain(2)
    own = moments(slices)
    assert fit("none", own, None) is None
    for method in ("coral", "quantile"):
        transform = fit(method, own, own)  # type: ignore[arg-type]
        assert transform is not None
        np.testing.assert_allclose(transform(slices[0]), slices[0], atol=1e-8)
    # An identity changes no bit, whatever the type.
    plain = Moments("x", 10, np.zeros(5), np.eye(5), own.quantiles)
    transform = fit("standardise", plain, None)
    assert transform is not None
    for dtype in (np.float16, np.float32, np.float64):
        tokens = slices[0].astype(dtype)
        assert transform(tokens).dtype == dtype
        assert transform(tokens).tobytes() == tokens.tobytes()


def test_too_few_tokens_for_a_covariance() -> None:
    few = moments(domain(0, slices=1, grid=2))
    with pytest.raises(StoreError, match=r"5 channels cannot be inverted from 4 tokens of cells"):
        fit("whiten", few, None)
    assert fit("whiten", few, None, shrinkage=0.1) is not None
    assert fit("standardise", few, None) is not None
    constant = [np.concatenate([tokens, tokens[..., :1]], axis=-1) for tokens in domain(0)]
    with pytest.raises(StoreError, match="no channel that follows from others"):
        fit("coral", moments(constant), moments(constant))
    with pytest.raises(StoreError, match="needs a reference domain"):
        fit("coral", few, None)
    with pytest.raises(StoreError, match="has no slices to take an alignment from"):
        moments_of("cells", [].__getitem__, [])


def test_moments_are_kept(tmp_path: Path) -> None:
    domains = [moments(domain(seed), f"d{seed}") for seed in (3, 1)]
    save_moments(tmp_path / ALIGNMENT_FILE, domains)
    kept = load_moments(tmp_path / ALIGNMENT_FILE)
    assert list(kept) == ["d3", "d1"]
    for before in domains:
        after = kept[before.name]
        assert after.count == before.count
        assert np.array_equal(after.covariance, before.covariance)
    (tmp_path / ALIGNMENT_FILE).write_bytes(b"PK")
    with pytest.raises(RecordError, match="restore the record"):
        load_moments(tmp_path / ALIGNMENT_FILE)


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=100, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    return cells


def trained(workspace: Workspace, *names: str, regime: str = "frozen", **changes: object) -> Record:
    protocol = Protocol(head="linear", learning_rate=0.01, max_epochs=2).with_changes(changes)
    request = TrainingRequest(
        datasets=names,
        regime=regime,
        features=TINY,
        protocol=protocol,
        precision="float32",
        device="cpu",
    )
    (record,) = train(workspace, request, Quiet())
    return record


@pytest.mark.parametrize("align_on", ["train", "test"])
def test_statistics_are_of_one_split_alone(two: Workspace, align_on: str) -> None:
    """Tokens of test slices never enter without the mark that every score carries."""
    record = trained(two, "cells", "other", align="standardise", align_on=align_on)
    kept = load_moments(record.file(ALIGNMENT_FILE))
    assert list(kept) == ["cells", "other"]
    sets = {item.description["dataset"]: item for item in list_feature_sets(two.cache)}
    for name, found in kept.items():
        labelled = load_dataset(two, name).labelled
        tokens = flat(
            [
                np.asarray(sets[name].tokens(place), np.float64)
                for place, item in enumerate(labelled)
                if item.split == align_on
            ]
        )
        np.testing.assert_allclose(found.mean, tokens.mean(axis=0), atol=1e-9)
        assert found.count == len(tokens)
    assert ("transductive" in record.config["protocol"]) == (align_on == "test")


def test_moments_are_found_once_and_shared_by_trainings_and_distances(
    two: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def counted(name, read, positions):
        found.append(name)
        return moments_of(name, read, positions)

    monkeypatch.setattr(moments_module, "moments_of", counted)
    monkeypatch.setattr(probe_module, "_PERMUTATIONS", 3)
    first = trained(two, "cells", "other", align="standardise")
    assert found == ["cells", "other"]
    again = trained(two, "cells", "other", align="standardise", max_epochs=1)
    gaps = GapOptions(FeatureRequest("tiny", "random:0", 70), align="standardise")
    measure_gaps(two, ["cells", "other"], gaps, Quiet())
    assert found == ["cells", "other"]
    assert first.file(ALIGNMENT_FILE).read_bytes() == again.file(ALIGNMENT_FILE).read_bytes()
    trained(two, "cells", align="standardise", align_on="test", max_epochs=1)
    assert found == ["cells", "other", "cells"]

    # A damaged file is made again, and one that cannot be written is done without.
    kept = sorted(two.cache.glob("*/moments/*.npz"))
    before = [path.read_bytes() for path in kept]
    assert len(kept) == 3
    for path, content in zip(kept, before, strict=True):
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    trained(two, "cells", "other", align="standardise", max_epochs=1)
    assert found[3:] == ["cells", "other"]
    assert (
        sum(path.read_bytes() == content for path, content in zip(kept, before, strict=True)) == 2
    )
    for path in kept:
        path.unlink()
    for folder in two.cache.glob("*/moments"):
        folder.rmdir()
        folder.write_text("in the way")
    trained(two, "cells", "other", align="standardise", max_epochs=1)
    assert found[5:] == ["cells", "other"]
    assert verify_cache(two.cache) == []


@pytest.mark.parametrize("method", ["standardise", "coral"])
def test_other_data_are_aligned_by_their_own_training_slices(two: Workspace, method: str) -> None:
    record = trained(two, "cells", align=method)
    evaluated = evaluate_run(two, record.id, ["other:test"], EvaluationOptions(), Quiet())
    scored = pl.read_parquet(evaluated.file("slice_metrics.parquet"))
    run = find_run(two, record.id)
    head = run.load_head(torch.device("cpu"))
    (tokens_of,) = (
        item for item in list_feature_sets(two.cache) if item.description["dataset"] == "other"
    )
    other = load_dataset(two, "other").labelled
    train_slices = [place for place, item in enumerate(other) if item.split == "train"]
    own = moments_of("other", tokens_of.tokens, train_slices)
    transform = fit(run.protocol.align, own, run.domains()["cells"])
    assert transform is not None
    for place, item in enumerate(other):
        if item.split != "test":
            continue
        aligned = torch.from_numpy(transform(tokens_of.tokens(place))).float()
        with torch.inference_mode():
            logits = head(aligned.permute(2, 0, 1)[None], (70, 70))
        row = scored.row(by_predicate=pl.col("slice_id") == item.id, named=True)
        assert row["tp"] + row["fp"] == int((logits.argmax(dim=1) == 1).sum())


def test_a_prediction_is_aligned_as_a_dataset_of_the_training(
    two: Workspace, tmp_path: Path
) -> None:
    record = trained(two, "cells", "other", align="whiten", align_shrinkage=0.1)
    image = Path(str(load_dataset(two, "cells").slices[0].image.path))
    options = PredictionOptions(device="cpu")
    with pytest.raises(UsageError, match="aligns the tokens of cells, other; say with --align-as"):
        predict(two, record.id, [image], tmp_path / "out", options, Quiet())
    masks = []
    for name in ("cells", "other"):
        options = PredictionOptions(device="cpu", align_as=name)
        files, _ = predict(two, record.id, [image], tmp_path / name, options, Quiet())
        masks.append(np.asarray(Image.open(files[0].mask)))
    assert (masks[0] != masks[1]).any()
    plain = trained(two, "cells")
    with pytest.raises(UsageError, match="aligns the tokens of no dataset"):
        predict(two, plain.id, [image], tmp_path / "no", options, Quiet())


def test_what_cannot_be_aligned(two: Workspace) -> None:
    protocol = Protocol(align="standardise")
    request = TrainingRequest(
        datasets=["cells"], regime="lora", features=TINY, protocol=protocol, device="cpu"
    )
    with pytest.raises(UsageError, match="tokens move while their backbone is trained"):
        train(two, request, Quiet())
    with pytest.raises(UsageError, match="align cannot be 'corla'; expected one of none, standard"):
        Protocol().with_changes({"align": "corla"})


@pytest.mark.parametrize("regime", ["frozen", "lora"])
def test_batch_norm_keeps_statistics_of_each_domain(two: Workspace, regime: str) -> None:
    record = trained(two, "cells", "other", align="batch-norm", regime=regime)
    assert record.config["domains"] == ["cells", "other"]
    run = find_run(two, record.id)
    norm = run.load_head(torch.device("cpu")).norm
    assert isinstance(norm, DomainBatchNorm2d)
    assert (norm.num_batches_tracked > 0).all()
    assert not torch.allclose(norm.running_mean[0], norm.running_mean[1])
    # Scored once more, in another order: each dataset finds its own statistics.
    names = ["other:test", "cells:test"]
    again = evaluate_run(two, record.id, names, EvaluationOptions(device="cpu"), Quiet())
    order = ["eval_on", "slice_id", "class"]
    ours, theirs = (
        pl.read_parquet(item.file("slice_metrics.parquet")).sort(order).select(*order, "tp", "fp")
        for item in (record, again)
    )
    assert ours.equals(theirs)


def test_a_domain_that_was_not_trained_on_brings_its_own_statistics(two: Workspace) -> None:
    plain, record = trained(two, "cells"), trained(two, "cells", align="batch-norm")
    cpu = torch.device("cpu")
    ours, theirs = (find_run(two, item.id).load_head(cpu).state_dict() for item in (record, plain))
    for name, value in theirs.items():  # with one dataset, the training is the plain one
        torch.testing.assert_close(ours[name].reshape(value.shape), value)
    options = EvaluationOptions(device="cpu")
    evaluated = evaluate_run(two, record.id, ["other:test"], options, Quiet())
    scored = pl.read_parquet(evaluated.file("slice_metrics.parquet"))
    sets = {item.description["dataset"]: item for item in list_feature_sets(two.cache)}
    other = load_dataset(two, "other").labelled
    tokens = torch.stack(
        [torch.from_numpy(np.array(sets["other"].tokens(i))).float() for i in range(len(other))]
    ).permute(0, 3, 1, 2)
    own = [place for place, item in enumerate(other) if item.split == "train"]
    head = find_run(two, plain.id).load_head(cpu)
    assert isinstance(head.norm, torch.nn.BatchNorm2d)
    batches = [tokens[own[at : at + 2]] for at in range(0, len(own), 2)]
    head.norm.running_mean = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    head.norm.running_var = torch.stack([b.var(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    for place, item in enumerate(other):
        if item.split == "test":
            with torch.inference_mode():
                found = int((head(tokens[place][None], (70, 70)).argmax(dim=1) == 1).sum())
            row = scored.row(by_predicate=pl.col("slice_id") == item.id, named=True)
            assert abs(row["tp"] + row["fp"] - found) <= 5  # sums in another order


def test_batch_norm_of_the_test_slices_is_transductive(two: Workspace) -> None:
    usual = trained(two, "cells", align="batch-norm")
    record = trained(two, "cells", align="batch-norm", align_on="test")
    assert record.config["protocol"].endswith("transductive]")
    cpu = torch.device("cpu")
    heads = [find_run(two, item.id).load_head(cpu).state_dict() for item in (usual, record)]
    changed = {n for n in heads[0] if not torch.equal(heads[0][n], heads[1][n])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_a_prediction_takes_the_statistics_of_a_dataset(two: Workspace, tmp_path: Path) -> None:
    record = trained(two, "cells", "other", align="batch-norm")
    image = Path(str(load_dataset(two, "cells").slices[0].image.path))
    masks = []
    for name in ("cells", "other"):
        options = PredictionOptions(device="cpu", align_as=name)
        files, _ = predict(two, record.id, [image], tmp_path / name, options, Quiet())
        masks.append(np.asarray(Image.open(files[0].mask)))
    assert (masks[0] != masks[1]).any()
    with pytest.raises(UsageError, match="aligns the tokens of cells, other; say with --align-as"):
        predict(two, record.id, [image], tmp_path / "no", PredictionOptions(device="cpu"), Quiet())

"""Training on as many slices as one would annotate."""

from pathlib import Path

import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.errors import UsageError
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.numbers import parse_counts
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train, train_each
from emcache.training.sampling import split_of, training_sources
from emcache.training.trainer import Trainer

TINY = FeatureRequest("tiny", "random:0", 70)
LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=1)


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=100, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    return cells


def request(*names: str, seeds: tuple[int, ...] = (0,), **fields: object) -> TrainingRequest:
    protocol = LINEAR.with_changes(fields)
    return TrainingRequest(datasets=names, features=TINY, protocol=protocol, seeds=seeds)


def used(record: Record) -> set[str]:
    return set(pl.read_parquet(record.file("training_slices.parquet"))["slice_id"])


@pytest.mark.parametrize("subset", ["random", "block"])
def test_subsets_of_a_seed_are_nested(two: Workspace, subset: str) -> None:
    sources = training_sources(two, ["cells", "other"], Quiet())
    positions = [source.positions("train") for source in sources.items]
    seen = set()
    for seed in range(8):
        before: list[set[int]] = [set(), set()]
        for count in range(1, 1 + min(map(len, positions))):
            protocol = LINEAR.with_changes({"train_slices": count, "train_subset": subset})
            split = split_of(sources, protocol, seed, validates=False)
            for own, smaller, whole in zip(split.train, before, positions, strict=True):
                assert len(own) == count
                assert smaller < set(own) <= set(whole)
                if subset == "block":
                    places = [whole.index(p) for p in own]
                    assert max(places) - min(places) == count - 1
            before = [set(own) for own in split.train]
            if count == 2:
                seen.add(tuple(map(tuple, split.train)))
    assert len(seen) > 3, "seeds differ"


def test_a_run_learns_from_its_subset_alone(cells: Workspace) -> None:
    records = {n: train(cells, request("cells", train_slices=n), Quiet())[0] for n in (1, 2, 4)}
    whole = train(cells, request("cells"), Quiet())[0]
    assert used(records[1]) < used(records[2]) < used(records[4]) < used(whole)
    for count, record in records.items():
        assert len(used(record)) == count == record.config["annotated_slices"]
        assert record.config["labelled_pixels"] == count * 84 * 84
        assert record.config["protocol"].endswith(f"train_slices={count}]")
    table = pl.read_parquet(records[1].file("training_slices.parquet"))
    assert table["part"].to_list() == ["train"], "it validates, too, and stands once"
    assert (records[1].config["n_train"], records[1].config["n_val"]) == (1, 1)
    assert (records[4].config["n_train"], records[4].config["n_val"]) == (3, 1)
    assert len({r.config["run_fingerprint"] for r in (*records.values(), whole)}) == 4


def test_each_seed_has_its_own_subset(cells: Workspace) -> None:
    records = train(cells, request("cells", seeds=(0, 1, 2), train_slices=2), Quiet())
    assert len({frozenset(used(record)) for record in records}) > 1
    again = train(cells, request("cells", seeds=(2,), train_slices=2), Quiet())[0]
    rows = [pl.read_parquet(r.file("slice_metrics.parquet")) for r in (records[2], again)]
    assert rows[0].equals(rows[1])


def test_several_numbers_are_delivered_together_and_none_is_trained_twice(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = 0
    trained = Trainer.train_epoch

    def train_epoch(trainer, steps):
        nonlocal epochs
        epochs += 1
        if epochs == 2:
            raise KeyboardInterrupt
        return trained(trainer, steps)

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    requests = [request("cells", train_slices=count) for count in (1, 2, None)]
    delivered: list[Record] = []
    with pytest.raises(KeyboardInterrupt):
        train_each(cells, requests, Quiet(), delivered.extend)
    assert not delivered
    train_each(cells, requests, Quiet(), delivered.extend)
    assert epochs == 4, "the first was there already"
    counts = [record.config["protocol_fields"].get("train_slices") for record in delivered]
    assert counts == [1, 2, None]
    assert not list(cells.runs.glob(".training-*"))


def test_numbers_that_cannot_be(cells: Workspace) -> None:
    assert parse_counts("1, 2,all") == [1, 2, None]
    for text in ("0", "1,1", "all,all", "two", "-1", "1,,2", "9" * 30):
        with pytest.raises(UsageError, match=r"expected whole numbers of at least 1, or all"):
            parse_counts(text)
    with pytest.raises(UsageError, match=r"training slices, and 99 were to be used; .* or all"):
        train(cells, request("cells", train_slices=99), Quiet())

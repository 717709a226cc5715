from pathlib import Path

import numpy as np
import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.data.register import add_dataset, rename_dataset
from emcache.errors import DatasetError, RecordError, UsageError, WeightsError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run, evaluate_runs, mark_runs
from emcache.evaluation.trained_run import find_run
from emcache.progress import Quiet
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=6)
PAPER = Protocol(learning_rate=1e-3, max_epochs=6)
MASKED = {"images": "images/*.png", "masks": "masks/*.png"}


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    """``cells`` beside ``other``, of another size and look."""
    root = tmp_path / "other"
    write_domain(root, STYLES["soft"], slices=8, size=100, seed=9)
    add_dataset(cells, "other", "folder", root, MASKED, Quiet())
    return cells


def train(workspace: Workspace, regime: str, protocol: Protocol = LINEAR) -> Record:
    options = {"seeds": [0], "protocol": protocol}
    if regime == "frozen":
        request = FeatureRequest("tiny", "random:0", 70)
        (record,) = run_training(
            workspace, TrainingRequest(datasets=["cells"], features=request, **options), Quiet()
        )
    else:
        choice = FeatureRequest("tiny", "random:0", 70)
        (record,) = run_training(
            workspace,
            TrainingRequest(datasets=["cells"], regime=regime, features=choice, **options),
            Quiet(),
        )
    return record


def evaluate(workspace: Workspace, run: str, *on: str, **options: object) -> Record:
    return evaluate_run(workspace, run, on, EvaluationOptions(**options), Quiet())  # type: ignore[arg-type]


@pytest.mark.parametrize("regime", ["frozen", "lora", "full"])
def test_on_its_own_test_slices_it_scores_what_the_training_scored(
    cells: Workspace, regime: str
) -> None:
    run = train(cells, regime, PAPER)
    evaluation = evaluate(cells, run.id, "cells:test")
    ours, theirs = (pl.read_parquet(r.file("slice_metrics.parquet")) for r in (evaluation, run))
    assert ours.equals(theirs)
    assert theirs["tp"].sum() > 0, "the model learned nothing: equal counts show little"


@pytest.mark.parametrize("regime", ["frozen", "lora", "full"])
def test_counts_on_another_dataset_equal_an_independent_count(
    two: Workspace, tmp_path: Path, regime: str
) -> None:
    run = train(two, regime)
    evaluation = evaluate(two, run.id, "other", save_predictions=True)
    rows = pl.read_parquet(evaluation.file("slice_metrics.parquet"))
    assert rows["slice_id"].to_list() == [s.id for s in load_dataset(two, "other").slices]
    assert set(rows["split"]) == {"train", "test"}
    for row in rows.iter_rows(named=True):
        saved = evaluation.file(f"predictions/other/{row['slice_id']}.png")
        predicted = np.asarray(Image.open(saved)) > 0
        mask = Image.open(tmp_path / "other" / "masks" / f"{row['slice_id']}.png")
        true = np.asarray(mask.resize((70, 70), Image.Resampling.NEAREST)) >= 128
        assert row["tp"] == (predicted & true).sum()
        assert row["fp"] == (predicted & ~true).sum()
        assert row["fn"] == (~predicted & true).sum()
    assert evaluation.config["run_id"] == run.id
    assert len(set(evaluation.config["data_keys"])) == 1


def test_a_part_of_the_identifier_is_enough(cells: Workspace) -> None:
    run = train(cells, "frozen")
    assert find_run(cells, run.id[-6:]).id == run.id
    again = train(cells, "frozen")
    with pytest.raises(RecordError, match=rf"2 runs match 'train-head'; say which one: {again.id}"):
        find_run(cells, "train-head")
    with pytest.raises(RecordError, match="there is no run 'nope'; trained runs here: "):
        find_run(cells, "nope")
    with pytest.raises(RecordError, match="there is no run ''"):
        find_run(cells, "")


def rewrite(record: Record, **changes: object) -> None:
    """A record that says something else, with a checksum that matches."""
    content = {key: value for key, value in record.content.items() if key != "sha256"}
    content["config"] = {**content["config"], **changes}
    content["sha256"] = json_sha256(content)
    (record.folder / "record.json").write_text(__import__("json").dumps(content))


def test_what_no_longer_matches_is_said_field_by_field(cells: Workspace) -> None:
    run = train(cells, "frozen")
    recipe = dict(run.config["recipe"])
    changed = {
        **recipe,
        "weights_sha256": "ab" * 32,
        "preprocessing": {**recipe["preprocessing"], "patch": 16},
    }
    rewrite(run, recipe=changed)
    with pytest.raises(
        RecordError,
        match=r"no longer matches the features of cells: weights_sha256 was abababab\.\.\., is "
        r"\w{8}\.\.\.; preprocessing.patch was 16, is 14; restore",
    ):
        evaluate(cells, run.id, "cells")


def test_weights_from_a_file_that_is_gone_are_asked_for(two: Workspace, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from emcache.models.backbones.base import random_backbone
    from emcache.models.backbones.registry import TINY

    for seed in (3, 4):
        save_file(random_backbone(TINY, seed).model.state_dict(), tmp_path / f"{seed}.safetensors")
    request = FeatureRequest("tiny", str(tmp_path / "3.safetensors"), 70)
    (run,) = run_training(
        two,
        TrainingRequest(datasets=["cells"], features=request, seeds=[0], protocol=LINEAR),
        Quiet(),
    )
    moved = (tmp_path / "3.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(WeightsError, match=r"file:3.safetensors@\w{8} are known by their name and"):
        evaluate(two, run.id, "other")
    with pytest.raises(RecordError, match=r"weights_sha256 was \w{8}\.\.\., is \w{8}"):
        evaluate(two, run.id, "other", weights=str(tmp_path / "4.safetensors"))
    assert evaluate(two, run.id, "other", weights=str(moved))
    assert evaluate(two, run.id, "other")


def test_what_cannot_be_scored(cells: Workspace, cells_root: Path) -> None:
    run = train(cells, "frozen")
    add_dataset(cells, "bare", "folder", cells_root, {"images": "images/*.png"}, Quiet())
    with pytest.raises(DatasetError, match="bare has no masks; a score needs them"):
        evaluate(cells, run.id, "bare")
    with pytest.raises(DatasetError, match="has no split 'tset'; known: "):
        evaluate(cells, run.id, "cells:tset")
    with pytest.raises(UsageError, match="cells is named twice"):
        evaluate(cells, run.id, "cells", "cells:test")


def test_a_damaged_head_is_never_loaded(cells: Workspace) -> None:
    run = train(cells, "frozen")
    head = run.file("head.safetensors")
    data = bytearray(head.read_bytes())
    data[-1] ^= 1
    head.write_bytes(bytes(data))
    with pytest.raises(RecordError, match=r"head.safetensors: its checksum does not match"):
        evaluate(cells, run.id, "cells")


def test_slices_that_were_trained_on_are_no_test(
    cells: Workspace, cells_root: Path, listener
) -> None:
    run = train(cells, "frozen")
    options = {**MASKED, "split": ["random:0.5:3"]}
    config = cells.config_path.read_text()
    add_dataset(cells, "again", "folder", cells_root, options, Quiet())
    other = cells.config_path.read_text().replace("[datasets.cells]", "[datasets.old]")
    cells.config_path.write_text(other.replace("[datasets.again]", "[datasets.cells]"))
    evaluate_run(cells, run.id, ["cells:test"], EvaluationOptions(), listener)
    assert any("has learned from" in line and "are not test" in line for line in listener.lines)
    cells.config_path.write_text(config)
    listener.lines.clear()
    evaluate_run(cells, run.id, ["cells:test"], EvaluationOptions(), listener)
    assert not any("has learned" in line for line in listener.lines)


def test_scores_on_data_that_failed_its_audit_come_with_a_warning(
    cells: Workspace, tmp_path: Path, listener
) -> None:
    run = train(cells, "frozen")
    root = tmp_path / "mixed"
    # On smaller slices an audit only warns.
    write_domain(root, STYLES["sharp"], slices=10, size=112, seed=3)
    masks = sorted((root / "masks").iterdir())
    data = [path.read_bytes() for path in masks]
    for path, other in zip(masks, data[::-1], strict=True):
        path.write_bytes(other)
    add_dataset(cells, "mixed", "folder", root, MASKED, Quiet())
    options = EvaluationOptions()
    evaluation = evaluate_run(cells, run.id, ["cells:test", "mixed"], options, listener)
    assert any("audit of mixed failed, and scores on it mean little" in x for x in listener.lines)
    assert evaluation.config["audits_failed"] == [False, True]


def test_a_datasets_name_stands_for_all_runs_trained_on_it(cells: Workspace, listener) -> None:
    first, second = train(cells, "frozen"), train(cells, "frozen", PAPER)
    options = EvaluationOptions()

    def scored(*names: str) -> list[str]:
        records = evaluate_runs(cells, names, ["cells:test"], options, listener)
        return [record.config["run_id"] for record in records]

    assert scored("cells") == [first.id, second.id]
    assert "Scoring 2 runs on cells:test." in listener.lines
    assert scored(second.id, "cells") == [second.id, first.id]
    mark_runs(cells, [first.id], hidden=True, why="a trial")
    assert scored("cells") == [second.id]
    assert scored(first.id) == [first.id]
    # Another run's record does not matter to a run that was named.
    kept = (first.folder / "record.json").read_bytes()
    (first.folder / "record.json").write_bytes(b"{")
    assert scored(second.id) == [second.id]
    (first.folder / "record.json").write_bytes(kept)
    rename_dataset(cells, "cells", "neurons", Quiet())
    assert evaluate_runs(cells, ["neurons"], ["neurons:test"], options, listener)
    with pytest.raises(RecordError, match="no run 'fib'"):
        scored("fib")

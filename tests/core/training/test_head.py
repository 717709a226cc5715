import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.torch import load_file

import emcache.cache.job_backbone
import emcache.data.dataset
import emcache.models.weights.finding
import emcache.storage.file_index
import emcache.training.run
import emcache.training.trainer
from emcache.cache.extract import run_extraction
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, StoreError, TrainingError, UsageError
from emcache.models.heads import build_head
from emcache.progress import Quiet, Reporter
from emcache.storage.file_index import FileIndex
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

LINEAR = Protocol(head="linear", learning_rate=0.05, max_epochs=2)


def options(**changes: object) -> dict[str, object]:
    return {"seeds": [0], "protocol": LINEAR, **changes}


def extract(workspace: Workspace, longest_edge: int = 70, weights: str = "random:0") -> None:
    chosen = ExtractOptions("tiny", weights, longest_edge)
    job = plan_extraction(workspace, Selection.parse("cells"), chosen, Quiet())
    run_extraction(job, Quiet())


def test_scores_equal_a_count_of_the_saved_predictions(cells: Workspace, cells_root: Path) -> None:
    extract(cells)
    protocol = Protocol(learning_rate=1e-3, max_epochs=4)
    (record,) = run_training(
        cells,
        TrainingRequest(datasets=["cells"], **options(protocol=protocol, save_predictions=True)),
        Quiet(),
    )
    rows = pl.read_parquet(record.file("slice_metrics.parquet"))
    assert rows["slice_id"].to_list() == [
        s.id for s in emcache.data.dataset.load_dataset(cells, "cells").slices if s.split == "test"
    ]
    for row in rows.iter_rows(named=True):
        predicted = (
            np.asarray(Image.open(record.file(f"predictions/cells/{row['slice_id']}.png"))) > 0
        )
        mask = Image.open(cells_root / "masks" / f"{row['slice_id']}.png")
        true = np.asarray(mask.resize((70, 70), Image.Resampling.NEAREST)) >= 128
        assert row["tp"] == (predicted & true).sum()
        assert row["fp"] == (predicted & ~true).sum()
        assert row["fn"] == (~predicted & true).sum()
        assert row["tn"] == (~predicted & ~true).sum()
    assert rows["tp"].sum() > 0, "the head learned nothing: the counts show little"


def test_no_image_is_decoded_and_no_backbone_built(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emcache.storage.file_index, "is_settled", lambda stamp: True)
    extract(cells)
    run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())

    def fail(*_: object) -> None:
        pytest.fail("an image was decoded or a backbone built")

    for module in ("emcache.data.images", "emcache.cache.inputs"):
        monkeypatch.setattr(f"{module}.read_image", fail)
        monkeypatch.setattr(f"{module}.read_mask", fail)
    monkeypatch.setattr(emcache.cache.job_backbone, "load_backbone", fail)
    monkeypatch.setattr(emcache.models.weights.finding, "random_backbone", fail)
    request = FeatureRequest(backbone="tiny", weights="random:0", longest_edge=70)
    run_training(cells, TrainingRequest(datasets=["cells"], features=request, **options()), Quiet())


def test_five_seeds_make_five_records(cells: Workspace) -> None:
    extract(cells)
    records = run_training(
        cells, TrainingRequest(datasets=["cells"], **options(seeds=[0, 1, 2, 3, 4])), Quiet()
    )
    assert [record.config["seed"] for record in records] == [0, 1, 2, 3, 4]
    for record in records:
        again = read_record(record.folder)
        assert again.config["protocol"] == "paper[head=bn-linear, learning_rate=0.05, max_epochs=2]"
        assert pl.read_parquet(again.file("epochs.parquet")).height == 2
        head = build_head("linear", 64, 0)
        head.load_state_dict(load_file(again.file("head.safetensors")))


def test_missing_features_are_extracted_first_with_a_message(cells: Workspace, listener) -> None:
    request = FeatureRequest(backbone="tiny", weights="random:0", longest_edge=70)
    run_training(
        cells, TrainingRequest(datasets=["cells"], features=request, **options()), listener
    )
    assert any("No features of cells for tiny yet: extracting first" in x for x in listener.lines)
    assert any("random:0 are untrained" in line for line in listener.lines)
    kinds = [read_record(cells.runs / name).kind for name in list_record_ids(cells.runs)]
    assert kinds == ["dataset", "audit", "extract", "train-head"]


def test_a_corrected_mask_is_trained_on_without_the_backbone(
    cells: Workspace, cells_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(cells)
    (before,) = run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())
    for path in (cells_root / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    monkeypatch.setattr(
        emcache.cache.job_backbone, "load_backbone", lambda *_: pytest.fail("built")
    )
    # The audit fails: the masks are inverted.
    (after,) = run_training(
        cells, TrainingRequest(datasets=["cells"], **options(accept_audit=True)), Quiet()
    )
    assert before.config["feature_sets"] == after.config["feature_sets"]
    assert before.config["label_sets"] != after.config["label_sets"]
    true = [
        pl.read_parquet(r.file("slice_metrics.parquet")).select(pl.col("tp") + pl.col("fn")).sum()
        for r in (before, after)
    ]
    assert true[0].item() + true[1].item() == 2 * 70 * 70


def test_a_changed_slice_is_never_trained_on_with_old_tokens(
    cells: Workspace, cells_root: Path
) -> None:
    extract(cells)
    path = cells_root / "images" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(UsageError, match="no features of cells as it is now"):
        run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())


def test_a_choice_is_asked_for(cells: Workspace) -> None:
    extract(cells, 70)
    extract(cells, 84)
    with pytest.raises(
        StoreError, match=r"2 feature sets of cells fit.*--feature-set \S+ \(tiny, random:0, 84 px"
    ):
        run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())
    (record,) = run_training(
        cells,
        TrainingRequest(datasets=["cells"], features=FeatureRequest(longest_edge=84), **options()),
        Quiet(),
    )
    assert record.config["longest_edge"] == 84


def test_feature_sets_that_differ_in_arithmetic_alone_can_be_chosen(cells: Workspace) -> None:
    for precision in ("float32", "bfloat16"):
        chosen = ExtractOptions("tiny", "random:0", 70, precision=precision)
        job = plan_extraction(cells, Selection.parse("cells"), chosen, Quiet())
        name = run_extraction(job, Quiet()).feature_set.name
    with pytest.raises(StoreError, match=r"computed in (bfloat16|float32)\).*computed in (?!\1)"):
        run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())
    (record,) = run_training(
        cells,
        TrainingRequest(datasets=["cells"], features=FeatureRequest(feature_set=name), **options()),
        Quiet(),
    )
    assert record.config["feature_sets"] == [name]
    with pytest.raises(StoreError, match="there is no feature set nope"):
        run_training(
            cells,
            TrainingRequest(
                datasets=["cells"], features=FeatureRequest(feature_set="nope"), **options()
            ),
            Quiet(),
        )


def test_a_loss_that_is_not_finite_ends_with_a_sentence(cells: Workspace) -> None:
    extract(cells)
    protocol = Protocol(head="linear", learning_rate=9e5, max_epochs=40, patience=40)
    before = list_record_ids(cells.runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emcache.training.trainer.Trainer, "train_epoch", lambda *_: [float("nan")])
        with pytest.raises(TrainingError, match="loss of epoch 1 is not finite"):
            run_training(
                cells, TrainingRequest(datasets=["cells"], **options(protocol=protocol)), Quiet()
            )
    assert list_record_ids(cells.runs) == before
    with pytest.raises(UsageError, match="learning_rate cannot be inf"):
        Protocol(learning_rate=float("inf"))


@pytest.mark.parametrize("protocol", [Protocol(), LINEAR])
def test_a_grid_of_one_token_is_refused(cells: Workspace, protocol: Protocol) -> None:
    extract(cells, 14)
    with pytest.raises(TrainingError, match=r"are a grid of one, .*larger --longest-edge"):
        run_training(
            cells, TrainingRequest(datasets=["cells"], **options(protocol=protocol)), Quiet()
        )


def test_an_interrupt_names_the_seeds_that_are_left(
    cells: Workspace, listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(cells)
    real = emcache.training.run.fit

    def run(*arguments):
        if arguments[3] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(emcache.training.run, "fit", run)
    with pytest.raises(KeyboardInterrupt):
        run_training(
            cells, TrainingRequest(datasets=["cells"], **options(seeds=[0, 2, 5])), listener
        )
    assert listener.lines[-1] == "1 of 3 seeds are done; the same command goes on from there."


def test_the_same_command_at_the_same_time_waits_and_takes_the_records(
    cells: Workspace, listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(cells)
    real = emcache.training.run.fit
    started, go_on = threading.Event(), threading.Event()

    def run(*arguments):
        started.set()
        assert go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(emcache.training.run, "fit", run)

    def train(reporter: Reporter) -> list[str]:
        chosen = options(seeds=[0, 2])
        return [
            r.id
            for r in run_training(cells, TrainingRequest(datasets=["cells"], **chosen), reporter)
        ]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(train, Quiet())
        assert started.wait(60)
        second = pool.submit(train, listener)
        while not any("is training cells: waiting for it." in line for line in listener.lines):
            assert not second.done()
            time.sleep(0.01)
        go_on.set()
        assert first.result() == second.result()
    assert sum("train-head" in name for name in list_record_ids(cells.runs)) == 2
    assert listener.lines[-2].startswith("Seed 0 is done: record ")
    # Once more, later, it trains anew.
    assert train(Quiet()) != first.result()


def test_what_cannot_be_trained_on(cells: Workspace, cells_root: Path) -> None:
    add_dataset(cells, "bare", "folder", cells_root, {"images": "images/*.png"}, Quiet())
    only_train = {"images": "images/*.png", "masks": "masks/*.png", "split": ["train=*"]}
    add_dataset(cells, "half", "folder", cells_root, only_train, Quiet())
    for names, error, said in [
        (["bare"], DatasetError, "has no masks"),
        (["half"], DatasetError, "no labelled slice in split test"),
        (["cells:train"], UsageError, "training takes a whole dataset"),
        (["cells", "bare"], DatasetError, "dataset bare has no masks"),
        (["nope"], DatasetError, "there is no dataset 'nope'"),
    ]:
        with pytest.raises(error, match=said):
            run_training(
                cells,
                TrainingRequest(
                    datasets=names, features=FeatureRequest(backbone="tiny"), **options()
                ),
                Quiet(),
            )


def test_index_survives_a_lost_cache_file(cells: Workspace) -> None:
    extract(cells)
    (cells.cache / "files.json").unlink()
    assert FileIndex(cells.cache / "files.json").lookup(Path("x"), "image") is None
    assert len(run_training(cells, TrainingRequest(datasets=["cells"], **options()), Quiet())) == 1

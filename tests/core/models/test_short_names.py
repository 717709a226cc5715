from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emcache.cache.extract import run_extraction
from emcache.cache.find import FeatureRequest, choose_feature_set
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.errors import EmcacheError, UsageError, WeightsError, WorkspaceError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.models.loading import add_weights, list_weights
from emcache.models.weights import Weights, find_workspace_weights
from emcache.models.weights.short_names import read_short_names, remove
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.studies.file import read_study
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import find_protocol
from emcache.training.run import train as run_training

STATE = random_backbone(TINY, 1).model.state_dict()
SETTING = EvaluationOptions(device="cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the small backbone."""
    save_file(STATE, tmp_path / "em_finetuned.safetensors")
    return tmp_path / "em_finetuned.safetensors"


def change(file: Path) -> None:
    save_file({**STATE, "cls_token": STATE["cls_token"] + 1}, file)


def add(workspace: Workspace, name: str, path: Path) -> None:
    add_weights(workspace, name, str(path), None, Quiet())


def find(workspace: Workspace, text: str) -> Weights:
    return find_workspace_weights(workspace, text, TINY)


def test_a_short_name_is_the_label_however_the_file_is_named(
    cells: Workspace, file: Path, tmp_path: Path
) -> None:
    before = find(cells, str(file))
    assert before.label == f"file:em_finetuned.safetensors@{before.sha256[:8]}"
    add(cells, "finetuned", file)
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(file.read_bytes())
    for text in ("finetuned", str(file), str(copy)):
        assert (find(cells, text).label, find(cells, text).sha256) == ("finetuned", before.sha256)
    options = ExtractOptions("tiny", "finetuned", longest_edge=84)
    job = plan_extraction(cells, Selection("cells", None), options, Quiet())
    assert job.name.startswith("cells-tiny-finetuned-84px-")
    facts = run_extraction(job, Quiet()).feature_set.description
    assert (facts["weights"], facts["weights_sha256"]) == ("finetuned", before.sha256)


def test_emcache_toml_keeps_its_comments(workspace: Workspace, file: Path, tmp_path: Path) -> None:
    text = "# mine\n[datasets]\n\n[weights] # names\n\n# the last line\n"
    workspace.config_path.write_text(text)
    add(workspace, "one", file)
    other = workspace.root / "inside.safetensors"
    save_file({"a": torch.ones(2)}, other)
    add(workspace, "two", other)
    content = workspace.config_path.read_text()
    assert all(comment in content for comment in ("# mine", "# names", "# the last line"))
    names = read_short_names(workspace)
    assert [(short.name, short.stored) for short in names.values()] == [
        ("one", str(file)),
        ("two", "inside.safetensors"),
    ]
    assert remove(workspace, "one").path == file
    assert [*read_short_names(workspace)] == ["two"]
    assert "# the last line" in workspace.config_path.read_text()
    add(workspace, "one", file)
    assert [*read_short_names(workspace)] == ["two", "one"]


@pytest.mark.parametrize(
    "name", ["pretrained", "random", "hf", "file", "random:0", "hf:a", "a/b", "", "x.pth", "-x"]
)
def test_names_that_mean_something_else(workspace: Workspace, file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name weights; expected up to 80 letters"):
        add(workspace, name, file)
    assert "weights." not in workspace.config_path.read_text()


def test_a_name_that_is_taken(workspace: Workspace, file: Path, tmp_path: Path) -> None:
    add(workspace, "one", file)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, other)
    with pytest.raises(WeightsError, match=r"the short name one is taken by .*em_finetuned"):
        add(workspace, "one", other)
    with pytest.raises(WeightsError, match="holds the same weights as the short name one"):
        add(workspace, "two", file)
    assert [*read_short_names(workspace)] == ["one"]


def test_a_file_that_changed_or_is_gone(workspace: Workspace, file: Path) -> None:
    add(workspace, "one", file)
    assert [item.state for item in list_weights(workspace)] == ["unchanged"]
    change(file)
    with pytest.raises(
        WeightsError, match=r"the weights one changed since they were added: .*em_f"
    ):
        find(workspace, "one")
    assert [item.state for item in list_weights(workspace)] == ["changed"]
    # By its path it is what it is: another file.
    assert find(workspace, str(file)).label.startswith("file:em_finetuned.safetensors@")
    file.unlink()
    with pytest.raises(WeightsError, match="the file of the short name one is not there"):
        find(workspace, "one")
    assert [item.state for item in list_weights(workspace)] == ["missing"]


def test_a_name_with_a_typing_mistake(workspace: Workspace, file: Path) -> None:
    add(workspace, "finetuned", file)
    with pytest.raises(WeightsError, match=r"did you mean finetuned\? short names here: finetuned"):
        find(workspace, "finetund")
    with pytest.raises(WeightsError, match=r"no short name 'finetund'; did you mean finetuned\?"):
        remove(workspace, "finetund")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[weights]\none = "w.pth"', "has a path and no hash of its bytes; let `emcache weights a"),
        ('[weights.one]\npath = "w.pth"', "has a path and no hash of its bytes"),
        ("[weights]\none = 3", "`weights.one` in .* is not a table with a path and a sha256"),
        ("[weights.one]\npath = 3\nsha256 = 4", "is not a table with a path and a sha256"),
        ("weights = 3", "`weights` in .* is not a table"),
        ("[weights]\npretrained = 3", "'pretrained' cannot name weights"),
    ],
)
def test_entries_written_by_hand(workspace: Workspace, text: str, said: str) -> None:
    workspace.config_path.write_text(text)
    with pytest.raises((WorkspaceError, UsageError), match=said):
        find(workspace, "one")
    # Whoever names no file needs none of it.
    find(workspace, "random:0")


def test_a_hand_written_path_gets_its_hash(workspace: Workspace, file: Path) -> None:
    workspace.config_path.write_text(f'# mine\n[weights]\none = "{file}"\n')
    add(workspace, "one", file)
    assert find(workspace, "one").label == "one"
    assert "# mine" in workspace.config_path.read_text()


def test_weights_that_do_not_fit_get_no_name(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, file)
    with pytest.raises(WeightsError, match=r"other.safetensors does not fit tiny: cls_token is mi"):
        add_weights(workspace, "one", str(file), "tiny", Quiet())
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        add(workspace, "one", file)
    with pytest.raises(WeightsError, match="there is no weights file or folder"):
        add(workspace, "one", tmp_path / "nowhere")
    assert not read_short_names(workspace)


def train(workspace: Workspace, weights: str) -> Record:
    request = FeatureRequest("tiny", weights, 84)
    protocol = find_protocol("paper").with_changes({"head": "linear", "max_epochs": 1})
    options = {"seeds": [0], "protocol": protocol, "device": "cpu"}
    (record,) = run_training(
        workspace, TrainingRequest(datasets=["cells"], features=request, **options), Quiet()
    )
    return record


def test_a_run_finds_its_weights_again(
    cells: Workspace, cells_root: Path, file: Path, tmp_path: Path
) -> None:
    run = train(cells, str(file))
    inputs, out = [cells_root / "images"], tmp_path / "out"
    predict(cells, run.id, inputs, out, PredictionOptions(device="cpu"), Quiet())
    # Moved, and known by a short name since.
    moved = file.rename(tmp_path / "moved.safetensors")
    with pytest.raises(
        WeightsError, match=r"em_finetuned.safetensors, which is not there any more"
    ):
        predict(cells, run.id, inputs, tmp_path / "b", PredictionOptions(device="cpu"), Quiet())
    add(cells, "finetuned", moved)
    predict(cells, run.id, inputs, tmp_path / "c", PredictionOptions(device="cpu"), Quiet())
    assert len(list((tmp_path / "c").glob("*.png"))) >= 10
    evaluate_run(cells, run.id, ["cells"], SETTING, Quiet())
    # A run by a short name finds the file as long as it is what it was, with the name or without.
    named = train(cells, "finetuned")
    assert named.config["weights"] == run.config["weights"]
    remove(cells, "finetuned")
    # Nor is a file needed by any one name: it is where it was last.
    predict(cells, run.id, inputs, tmp_path / "d", PredictionOptions(device="cpu"), Quiet())


def test_a_name_given_to_other_weights_finds_no_old_features(
    cells: Workspace, file: Path, tmp_path: Path
) -> None:
    add(cells, "one", file)
    options = ExtractOptions("tiny", "one", longest_edge=84)
    run_extraction(plan_extraction(cells, Selection("cells", None), options, Quiet()), Quiet())
    dataset, request = load_dataset(cells, "cells"), FeatureRequest("tiny", "one")
    assert choose_feature_set(cells, dataset, request) is not None
    change(file)
    with pytest.raises(WeightsError, match="the weights one changed since they were added"):
        choose_feature_set(cells, dataset, request)
    save_file(STATE, file)
    # Where the file is gone, the tokens are still there.
    kept = file.rename(tmp_path / "kept.safetensors")
    assert choose_feature_set(cells, dataset, request) is not None
    remove(cells, "one")
    assert choose_feature_set(cells, dataset, request) is not None
    change(kept)
    add(cells, "one", kept)
    assert choose_feature_set(cells, dataset, request) is None


def test_a_study_names_weights_of_the_workspace(
    workspace: Workspace, file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        '[[grid]]\nbackbones = ["tiny"]\ntrain_on = ["a"]\nseeds = "0"\nweights = "one"\n'
    )
    assert read_study(study).cells[0].weights == str(tmp_path / "one")
    assert read_study(study, ["one"]).cells[0].weights == "one"
    study.write_text(study.read_text().replace('"one"', '"hf:org/name"'))
    assert read_study(study).cells[0].weights == "hf:org/name"


def test_no_half_written_name(workspace: Workspace, file: Path) -> None:
    """What is wrong is found before the file is written."""
    before = workspace.config_path.read_bytes()
    for name, path in (("hf", file), ("one", file.parent / "nowhere")):
        with pytest.raises(EmcacheError):
            add(workspace, name, path)
    assert workspace.config_path.read_bytes() == before

"""CLIPSeg through transformers: found, loaded, and the same map as the library's own."""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.errors import EmcacheError, RecordError, UsageError, WeightsError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.models.clipseg import find_clipseg, load_clipseg
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import HEAD_FILE, TrainingRequest
from emcache.training.protocol import find_protocol
from emcache.training.run import train


def save_small(folder: Path, seed: int = 0) -> Path:
    """A CLIPSeg of random weights with an alphabet for a vocabulary, as transformers saves it."""
    torch.manual_seed(seed)
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    vocabulary = {
        word: place
        for place, word in enumerate(
            [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        )
    }
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4}
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    config = CLIPSegConfig(
        text_config={**sizes, **ends, "num_hidden_layers": 2, "vocab_size": len(vocabulary),
                     "max_position_embeddings": 16},
        vision_config={**sizes, "num_hidden_layers": 3, "image_size": 64, "patch_size": 16},
        projection_dim=32,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("clipseg"))


def run(workspace: Workspace, folder: Path, **fields: object) -> Record:
    request = TrainingRequest(
        datasets=["cells"],
        regime="zero-shot",
        features=FeatureRequest(weights=str(folder), longest_edge=70),
        protocol=find_protocol("zero-shot").with_changes({"prompt": "cell", **fields}),
        save_predictions=True,
    )
    (record,) = train(workspace, request, Quiet())
    return record


def test_the_map_is_that_of_transformers(folder: Path) -> None:
    head = load_clipseg(folder, "cell", 0.5)
    theirs = CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = tokenizer(["cell"] * 2, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**prompts, pixel_values=images).logits
        found = head(images, (64, 64))
    assert torch.allclose(found[:, 1] - found[:, 0], expected, atol=1e-5)
    assert expected.std() > 0
    # One slice alone, of another shape.
    with torch.inference_mode():
        assert head(torch.randn(1, 3, 70, 42), (75, 45)).shape == (1, 2, 75, 45)


def test_other_prompts_and_thresholds_give_other_masks(folder: Path) -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        half, high, other = (
            load_clipseg(folder, prompt, threshold)(images, (64, 64))
            for prompt, threshold in (("cell", 0.5), ("cell", 0.8), ("nucleus", 0.5))
        )
    assert torch.allclose(half[:, 1] - high[:, 1], torch.tensor(math.log(4.0)), atol=1e-5)
    assert not torch.allclose(half, other)


def test_a_run_is_recorded_scored_again_and_predicts(
    cells: Workspace, folder: Path, tmp_path: Path
) -> None:
    record = run(cells, folder, threshold=0.45)
    config = record.config
    assert record.kind == "zero-shot"
    assert (config["regime"], config["backbone"]) == ("zero-shot", "clipseg")
    assert config["weights"].startswith(f"file:{folder.name}@")
    assert config["protocol"] == "zero-shot[threshold=0.45, prompt=cell]"
    assert (config["annotated_slices"], config["labelled_pixels"]) == (0, 0)
    assert config["trainable_parameters"] == 0
    assert not record.has(HEAD_FILE)
    own = pl.read_parquet(record.file("slice_metrics.parquet"))
    assert own["slices_from_training"].null_count() == own.height
    evaluated = evaluate_run(cells, record.id, ["cells:test"], EvaluationOptions(), Quiet())
    assert pl.read_parquet(evaluated.file("slice_metrics.parquet")).equals(own)
    item = next(s for s in load_dataset(cells, "cells").labelled if s.split == "test")
    predict(cells, record.id, [item.image.path], tmp_path / "out", PredictionOptions(), Quiet())
    mask = np.asarray(Image.open(tmp_path / "out" / f"{item.image.path.stem}.png"))
    assert mask.shape == (item.height, item.width)


def test_a_model_that_moved_is_named_and_another_is_refused(
    cells: Workspace, folder: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    save_small(there)
    record = run(cells, there)
    here = there.rename(tmp_path / "here")
    with pytest.raises(WeightsError, match="there is no folder"):
        evaluate_run(cells, record.id, ["cells:test"], EvaluationOptions(), Quiet())
    moved = EvaluationOptions(weights=str(here))
    evaluate_run(cells, record.id, ["cells:test"], moved, Quiet())
    other = save_small(tmp_path / "other", seed=1)
    with pytest.raises(RecordError, match="weights_sha256"):
        evaluate_run(
            cells, record.id, ["cells:test"], EvaluationOptions(weights=str(other)), Quiet()
        )
    image = load_dataset(cells, "cells").labelled[0].image.path
    with pytest.raises(RecordError, match="is not the one it had"):
        predict(
            cells, record.id, [image], tmp_path / "out",
            PredictionOptions(weights=str(other)), Quiet(),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "words"), [("  ", "there is no prompt"), ("a" * 40, "the model reads 16")]
)
def test_prompts_that_cannot_be(folder: Path, prompt: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_clipseg(folder, prompt, 0.5)


def test_folders_that_are_no_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no folder"):
        find_clipseg(str(tmp_path / "nothing"))
    with pytest.raises(WeightsError, match="holds no CLIPSeg"):
        find_clipseg(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="cannot be read as a CLIPSeg"):
        load_clipseg(tmp_path, "cell", 0.5)
    assert find_clipseg(str(folder)).sha256 == find_clipseg(str(folder)).sha256


def test_without_transformers_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EmcacheError, match=r"pip install 'emcache\[clipseg\]'"):
        load_clipseg(folder, "cell", 0.5)


def test_a_model_without_its_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    """As a plain CLIP has none, and transformers would fill it with random numbers."""
    shutil.copytree(folder, tmp_path / "part")
    state = load_file(folder / "model.safetensors")
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
    assert 0 < len(rest) < len(state)
    save_file(rest, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks \d+ of the model's tensors \(decoder\."):
        load_clipseg(tmp_path / "part", "cell", 0.5)


def test_a_folder_that_was_named_from_elsewhere_is_found_again(
    cells: Workspace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    record = run(cells, Path(folder.name))
    monkeypatch.chdir(tmp_path)
    evaluate_run(cells, record.id, ["cells:test"], EvaluationOptions(), Quiet())

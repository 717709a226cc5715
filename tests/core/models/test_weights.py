import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import emcache.models.weights.files
import emcache.storage.file_index
from emcache.errors import UsageError, WeightsError
from emcache.models.backbones.base import build_backbone, random_backbone
from emcache.models.backbones.registry import TINY, BackboneSpec
from emcache.models.loading import describe_loaded, fit_weights, load_backbone
from emcache.models.weights import find_weights, is_untrained, read_weights_file, state_sha256
from emcache.models.weights.files import choose, locate
from emcache.storage.file_index import FileIndex
from emcache.storage.hashing import file_sha256


@pytest.fixture
def index(tmp_path: Path) -> FileIndex:
    return FileIndex(tmp_path / "index.json")


def test_random_weights_are_keyed_by_their_bytes(index: FileIndex) -> None:
    weights = find_weights("random:3", TINY, index)
    assert weights.sha256 == state_sha256(random_backbone(TINY, 3).model.state_dict())
    assert weights.sha256 != find_weights("random:4", TINY, index).sha256
    assert is_untrained(weights.label)


def test_state_hash_sees_names_shapes_and_bytes() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    hashes = {
        state_sha256(state)
        for state in (
            base,
            {**base, "a": torch.zeros(3, 2)},
            {**base, "a": torch.zeros(2, 3).half()},
            {**base, "b": torch.full((1,), 2.0)},
            {"a": base["a"], "c": base["b"]},
        )
    }
    assert len(hashes) == 5
    assert state_sha256({"b": base["b"], "a": base["a"]}) == state_sha256(base)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
def test_files(tmp_path: Path, index: FileIndex, name: str) -> None:
    state = random_backbone(TINY, 1).model.state_dict()
    file = tmp_path / name
    if name.endswith("safetensors"):
        save_file(state, file)
    else:
        torch.save({"model": state}, file)
    weights = find_weights(str(file), TINY, index)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights.sha256 == digest
    assert weights.label == f"file:{name}@{digest[:8]}"
    assert not is_untrained(weights.label)
    read = read_weights_file(file)
    assert state_sha256(read) == state_sha256(state)


class _Trap:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"model": _Trap(sprung)}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Trap(sprung)))
    for name in ("trap.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"{name} cannot be read as weights"):
            read_weights_file(tmp_path / name)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} cannot be read as weights"):
        read_weights_file(tmp_path / name)


def test_a_file_without_plain_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no plain table of tensors"):
        read_weights_file(tmp_path / "w.pth")


def test_words_that_mean_nothing(index: FileIndex, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no seed; expected random:SEED"):
        find_weights("random", TINY, index)
    with pytest.raises(WeightsError, match=r"there is no weights file nowhere\.pth"):
        find_weights("nowhere.pth", TINY, index)
    with pytest.raises(WeightsError, match="there are no pretrained weights of tiny"):
        find_weights("pretrained", TINY, index)


STATE = random_backbone(TINY, 1).model.state_dict()
CPU = torch.device("cpu")


def write_shards(folder: Path, stem: str = "model", **changes: Any) -> Path:
    """The small backbone in three shards, with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(STATE)
    places = {}
    for number in range(3):
        file = f"{stem}-{number + 1:05}-of-00003.safetensors"
        save_file({name: STATE[name] for name in names[number::3]}, folder / file)
        places |= dict.fromkeys(names[number::3], file)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**places, **changes}}))
    return index


def loaded(path: Path, index: FileIndex) -> dict[str, Tensor]:
    backbone = load_backbone(TINY, find_weights(str(path), TINY, index), CPU)
    state: dict[str, Tensor] = backbone.model.state_dict()
    return state


def test_shards_with_their_index_and_in_their_folder(tmp_path: Path, index: FileIndex) -> None:
    path = write_shards(tmp_path / "dinov2-tiny")
    for named in (path, path.parent):
        assert all(torch.equal(tensor, STATE[k]) for k, tensor in loaded(named, index).items())
    whole = find_weights(str(path.parent), TINY, index)
    assert whole.label == f"file:dinov2-tiny@{whole.sha256[:8]}"
    assert find_weights(str(path), TINY, index).sha256 == whole.sha256
    # Every shard is part of the hash.
    for file in sorted(path.parent.glob("*.safetensors")):
        before = file.read_bytes()
        file.write_bytes(before[:-4] + bytes(4))
        assert find_weights(str(path), TINY, index).sha256 != whole.sha256, file.name
        file.write_bytes(before)
    assert find_weights(str(path), TINY, index).sha256 == whole.sha256


def test_a_shard_that_is_not_there_is_named(tmp_path: Path, index: FileIndex) -> None:
    path = write_shards(tmp_path)
    lost = tmp_path / "model-00002-of-00003.safetensors"
    lost.unlink()
    said = re.escape(f"{lost} is not there, which model.safetensors.index.json names as shard")
    for named in (path, tmp_path):
        with pytest.raises(WeightsError, match=said):
            find_weights(str(named), TINY, index)
    with pytest.raises(WeightsError, match="is one shard of several; name the folder"):
        find_weights(str(tmp_path / "model-00001-of-00003.safetensors"), TINY, index)
    path.unlink()
    with pytest.raises(WeightsError, match=r"holds the shard model-00001.* and no index of it"):
        find_weights(str(tmp_path), TINY, index)


@pytest.mark.parametrize(
    "outside", ["../w.safetensors", "/etc/passwd", "..", "a/w.safetensors", "w.json", "w\\x.bin", 3]
)
def test_an_index_leads_nowhere_else(tmp_path: Path, index: FileIndex, outside: object) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    path = write_shards(tmp_path / "inside", cls_token=outside)
    with pytest.raises(WeightsError, match="as a shard; expected the name of a file of tensors in"):
        find_weights(str(path), TINY, index)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 9999]
)
def test_what_is_no_index(tmp_path: Path, index: FileIndex, text: str) -> None:
    path = write_shards(tmp_path)
    path.write_text(text)
    with pytest.raises(WeightsError, match="is not an index of shards"):
        find_weights(str(path), TINY, index)


def test_shards_hold_what_their_index_says(tmp_path: Path, index: FileIndex) -> None:
    path = write_shards(tmp_path, another="model-00002-of-00003.safetensors")
    with pytest.raises(WeightsError, match=r"00002-of-00003\.safetensors does not hold 'another'"):
        loaded(path, index)
    path = write_shards(tmp_path, cls_token="model-00001-of-00003.safetensors")
    content = json.loads(path.read_text())
    del content["weight_map"]["norm.bias"]
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"holds more: 'norm\.bias'"):
        loaded(path, index)


@pytest.mark.parametrize(
    ("names", "family", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json"], "timm", "model.safetensors"),
        (["pytorch_model.bin", "tf_model.h5", "README.md"], "timm", "pytorch_model.bin"),
        (
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "pytorch_model.bin",
            ],
            "timm",
            "model.safetensors.index.json",
        ),
        (["dinov2_vits14_pretrain.pth", "notes.txt"], "timm", "dinov2_vits14_pretrain.pth"),
        (["model.safetensors", "optimizer.pt", "rng_state_0.pth"], "timm", "model.safetensors"),
        (["model.safetensors", "open_clip_model.safetensors"], "timm", "model.safetensors"),
        (
            ["model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
            "open_clip",
            "open_clip_model.safetensors",
        ),
        (["model.safetensors", "pytorch_model.bin"], "open_clip", "model.safetensors"),
    ],
)
def test_the_one_set_of_weights_in_a_folder(names: list[str], family: str, chosen: str) -> None:
    assert choose(names, family, "it") == chosen


@pytest.mark.parametrize(
    "names",
    [
        ["student.pth", "teacher.pth"],
        ["model.safetensors", "teacher.pth"],
        ["model.safetensors", "model.safetensors.index.json"],
    ],
)
def test_two_candidates_are_both_named(names: list[str]) -> None:
    with pytest.raises(WeightsError, match=f"holds both {names[0]} and {names[1]}, which need not"):
        choose(names, "timm", "it")


def test_a_folder_without_weights(tmp_path: Path, index: FileIndex) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(WeightsError, match=r"holds no weights; expected model\.safetensors"):
        find_weights(str(tmp_path), TINY, index)


def test_a_snapshot_of_the_hub_is_called_by_its_repository(
    tmp_path: Path, index: FileIndex
) -> None:
    snapshot = tmp_path / "models--facebook--dinov2-tiny" / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    blob = tmp_path / "models--facebook--dinov2-tiny" / "blobs" / "0123"
    blob.parent.mkdir()
    save_file(STATE, blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    weights = find_weights(str(snapshot), TINY, index)
    assert weights.label == f"file:dinov2-tiny@{file_sha256(blob)[:8]}"
    assert all(torch.equal(tensor, STATE[k]) for k, tensor in loaded(snapshot, index).items())


def test_tensors_beside_the_weights_are_named(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 0.1}
    head = {"head.weight": torch.ones(2), "mask_token": torch.ones(2)}
    torch.save({"model": STATE | head, "optimizer": optimizer, "epoch": 3}, file)
    _, found = fit_weights(TINY, locate(file, "tiny"), "these")
    assert {*found.used} == STATE.keys()
    assert found.spare == {
        "head.weight": "head of a task",
        "mask_token": "mask token",
        "optimizer.state.0.exp_avg": "beside the table of weights",
    }
    (said,) = describe_loaded("these", found)
    assert said == (
        f"Weights these: {len(STATE)} of {len(STATE) + 3} tensors make the backbone; left out: "
        f"head of a task (head.weight); mask token (mask_token); beside the table of weights "
        f"(optimizer.state.0.exp_avg)."
    )


def test_positions_of_another_grid_are_resampled_and_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    save_file({**STATE, "pos_embed": torch.randn(1, 1 + 16, 64)}, file)
    _, found = fit_weights(TINY, locate(file, "tiny"), "these")
    assert describe_loaded("these", found) == [
        "Weights these: pos_embed of 17 positions was resampled to 101."
    ]


def test_patches_of_another_size_are_refused() -> None:
    patches = torch.randn(64, 3, 16, 16)
    with pytest.raises(
        WeightsError, match=r"has shape \(64, 3, 16, 16\) instead of \(64, 3, 14, 14"
    ):
        build_backbone(TINY).load({**STATE, "patch_embed.proj.weight": patches}, "these")


def test_no_file_is_hashed_twice(
    tmp_path: Path, index: FileIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shards(tmp_path)
    read: list[str] = []

    def count(file: Path) -> str:
        read.append(file.name)
        return file_sha256(file)

    monkeypatch.setattr(emcache.models.weights.files, "file_sha256", count)
    # A file that was written within the clock's grain could change unseen.
    monkeypatch.setattr(emcache.storage.file_index, "is_settled", lambda _: True)
    monkeypatch.setattr(emcache.models.weights.files, "is_settled", lambda _: True)
    loaded(path, index)
    loaded(path, index)
    assert sorted(read) == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


def test_files_that_change_between_hashing_and_loading(tmp_path: Path, index: FileIndex) -> None:
    path = write_shards(tmp_path)
    weights = find_weights(str(path), TINY, index)
    shard = tmp_path / "model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4] + bytes(4))
    with pytest.raises(WeightsError, match="changed after they were hashed"):
        load_backbone(TINY, weights, CPU)


def test_a_label_finds_the_file_where_it_was(tmp_path: Path, index: FileIndex) -> None:
    file = tmp_path / "w.safetensors"
    save_file(STATE, file)
    weights = find_weights(str(file), TINY, index)
    index.save()
    again = FileIndex(tmp_path / "index.json")
    found = find_weights(weights.label, TINY, again)
    assert (found.label, found.sha256, found.files) == (
        weights.label,
        weights.sha256,
        weights.files,
    )
    save_file({**STATE, "cls_token": STATE["cls_token"] + 1}, file)
    with pytest.raises(
        WeightsError, match=r"known by their name and hash only; .* has changed since"
    ):
        find_weights(weights.label, TINY, again)
    file.unlink()
    with pytest.raises(
        WeightsError, match=r"w\.safetensors, which is not there any more: say where"
    ):
        find_weights(weights.label, TINY, again)
    with pytest.raises(WeightsError, match="known by their name and hash only: say where"):
        find_weights("file:other.pth@01234567", TINY, again)


def test_openclip_and_timm_choose_their_own_names(tmp_path: Path) -> None:
    for name in ("model", "open_clip_model"):
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    clip = BackboneSpec("c", "open_clip", "c", 14, 32, None)
    assert locate(tmp_path, clip.family).path.name == "open_clip_model.safetensors"
    assert locate(tmp_path, TINY.family).path.name == "model.safetensors"

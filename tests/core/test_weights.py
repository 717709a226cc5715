import hashlib
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from emcache.backbones.build import random_backbone
from emcache.backbones.registry import TINY, BackboneSpec, HubFile, find_backbone
from emcache.errors import UsageError, WeightsError
from emcache.file_index import FileIndex
from emcache.weights import find_weights, is_untrained, read_weights_file, state_sha256


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


class _Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download asks for."""

    content = b""
    requests: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if self.path.split("?")[0] != "/timm/tiny.test/resolve/main/model.safetensors":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if body:
            self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    """A hub on the loopback, and a client that knows no other."""
    content = save(random_backbone(TINY, 8).model.state_dict())
    handler = type("Hub", (_Hub,), {"content": content, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield handler
    server.shutdown()
    server.server_close()


HUB_SPEC = BackboneSpec("tiny", "tiny", "tiny", 14, 64, HubFile("timm/tiny.test"))


def test_pretrained_weights_come_from_the_hub_once(hub: type[_Hub], index: FileIndex) -> None:
    weights = find_weights("pretrained", HUB_SPEC, index)
    assert weights.label == "pretrained"
    assert weights.sha256 == hashlib.sha256(hub.content).hexdigest()
    assert weights.file is not None
    assert state_sha256(read_weights_file(weights.file)) == state_sha256(
        random_backbone(TINY, 8).model.state_dict()
    )
    asked = len(hub.requests)
    assert any(request.startswith("GET") for request in hub.requests)
    assert find_weights("pretrained", HUB_SPEC, index).sha256 == weights.sha256
    assert len(hub.requests) == asked


def test_a_hub_without_the_weights(hub: type[_Hub], index: FileIndex) -> None:
    with pytest.raises(WeightsError, match=r"download model\.safetensors of timm/vit_small"):
        find_weights("pretrained", find_backbone("dinov2-small"), index)

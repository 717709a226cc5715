"""Weights from the hub, which is a server on the loopback here."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from safetensors.torch import save

from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import UsageError, WeightsError
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY, BackboneSpec, HubFile, find_backbone
from emcache.models.clipseg import find_clipseg
from emcache.models.weights import are_at_hand, find_weights, read_weights_file, state_sha256
from emcache.progress import Quiet
from emcache.storage.file_index import FileIndex
from emcache.storage.workspace import Workspace

STATE = random_backbone(TINY, 8).model.state_dict()
COMMIT, OLDER = "a" * 40, "b1" * 20
NAMES = sorted(STATE)
SHARDS = {
    f"model-{n + 1:05}-of-00002.safetensors": save({name: STATE[name] for name in NAMES[n::2]})
    for n in range(2)
}
INDEX = {name: list(SHARDS)[NAMES.index(name) % 2] for name in NAMES}


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as its client asks for."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {
        "timm/tiny.test": {"model.safetensors": save(STATE)},
        "org/whole": {
            "config.json": b"{}",
            "model.safetensors": save(STATE),
            "pytorch_model.bin": b"never asked for",
            "onnx/model.bin": b"never asked for",
        },
        "org/sharded": {
            "model.safetensors.index.json": json.dumps({"weight_map": INDEX}).encode(),
            **SHARDS,
        },
        "org/clipseg": {
            "config.json": b"{}",
            "vocab.json": b"{}",
            "model.safetensors": b"weights",
            "pytorch_model.bin": b"never asked for",
        },
        "org/clipseg-of-old": {"config.json": b"{}", "pytorch_model.bin": b"weights"},
        "org/two": {"student.pth": b"", "teacher.pth": b""},
        "org/none": {"README.md": b""},
    }
    revisions: ClassVar[dict[str, str]] = {
        "main": COMMIT,
        "v1": OLDER,
        COMMIT: COMMIT,
        OLDER: OLDER,
        "refs/pr/1": OLDER,
    }
    requests: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0].replace("%2F", "/")
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/1|[^/]+)/(.+)", path)
        found = listing or file
        repository = found[1] if found else ""
        if repository == "org/gated":
            return self._refuse(403, "GatedRepo")
        if repository not in self.repositories:
            return self._refuse(404, "RepoNotFound")
        assert found is not None
        if found[2] not in self.revisions:
            return self._refuse(404, "RevisionNotFound")
        commit, files = self.revisions[found[2]], self.repositories[repository]
        if listing:
            siblings = [{"rfilename": name} for name in files]
            content = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
        elif found[3] in files:
            content = files[found[3]]
        else:
            return self._refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on the loopback, and a client that knows no other."""
    handler = type("Hub", (Hub,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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


@pytest.fixture
def index(tmp_path: Path) -> FileIndex:
    return FileIndex(tmp_path / "index.json")


HUB_SPEC = BackboneSpec("tiny", "tiny", "tiny", 14, 64, HubFile("timm/tiny.test"))


def test_pretrained_weights_come_from_the_hub_once(hub: type[Hub], index: FileIndex) -> None:
    weights = find_weights("pretrained", HUB_SPEC, index)
    assert (weights.label, weights.revision) == ("pretrained", COMMIT)
    content = hub.repositories["timm/tiny.test"]["model.safetensors"]
    assert weights.sha256 == hashlib.sha256(content).hexdigest()
    assert weights.files is not None
    assert state_sha256(read_weights_file(weights.files.path)) == state_sha256(STATE)
    asked = len(hub.requests)
    assert any(request.startswith("GET") for request in hub.requests)
    assert find_weights("pretrained", HUB_SPEC, index).sha256 == weights.sha256
    assert len(hub.requests) == asked


def test_a_hub_without_the_weights(hub: type[Hub], index: FileIndex) -> None:
    with pytest.raises(WeightsError, match="the hub has no repository timm/vit_small"):
        find_weights("pretrained", find_backbone("dinov2-small"), index)


@pytest.mark.parametrize("repository", ["org/whole", "org/sharded"])
@pytest.mark.parametrize(
    ("revision", "commit"),
    [("", COMMIT), ("@v1", OLDER), (f"@{OLDER}", OLDER), ("@refs/pr/1", OLDER)],
)
def test_any_repository(
    hub: type[Hub], index: FileIndex, repository: str, revision: str, commit: str
) -> None:
    text = f"hf:{repository}{revision}"
    assert not are_at_hand(text, TINY, Workspace(Path("unused")))
    weights = find_weights(text, TINY, index)
    assert weights.label == f"hf:{repository}@{commit[:8]}"
    assert weights.revision == commit
    backbone = random_backbone(TINY, 0)
    assert weights.files is not None
    state = {k: t for file in weights.files.shards for k, t in read_weights_file(file).items()}
    backbone.load(state, "these")
    assert state_sha256(backbone.model.state_dict()) == state_sha256(STATE)
    assert not any("pytorch_model" in request or "onnx" in request for request in hub.requests)
    # What is cached is used without asking, by what was asked for, by label and by commit.
    asked = len(hub.requests)
    for again in (text, weights.label, f"hf:{repository}@{commit}"):
        assert are_at_hand(again, TINY, Workspace(Path("unused")))
        assert find_weights(again, TINY, index) == weights
    assert len(hub.requests) == asked


def test_a_shard_that_the_cache_has_lost_is_fetched_again(hub: type[Hub], index: FileIndex) -> None:
    weights = find_weights("hf:org/sharded", TINY, index)
    assert weights.files is not None
    lost = list(weights.files.shards)[1]
    lost.resolve().unlink()
    lost.unlink()
    asked = len(hub.requests)
    assert find_weights("hf:org/sharded", TINY, index).sha256 == weights.sha256
    fetched = [request for request in hub.requests[asked:] if request.startswith("GET /org")]
    assert [lost.name in request for request in fetched] == [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:org/missing", "the hub has no repository org/missing, or shows it only to some"),
        ("hf:org/whole@v9", "the hub's repository org/whole has no revision 'v9'"),
        ("hf:org/gated", "the hub gives org/gated only to those who accepted its licence"),
        ("hf:org/two", "the repository org/two holds both student.pth and teacher.pth"),
        ("hf:org/none@v1", "the repository org/none at v1 holds no weights"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    hub: type[Hub], index: FileIndex, text: str, said: str
) -> None:
    with pytest.raises(WeightsError, match=re.escape(said)):
        find_weights(text, TINY, index)


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:a/b/c", "hf:org/x@", "hf:@main", "hf:org/x@../../etc", "hf:org/x@/etc", "hf:../x"],
)
def test_what_names_no_repository(index: FileIndex, text: str) -> None:
    with pytest.raises(UsageError, match="names no repository of the hub; expected hf:REPOSITORY"):
        find_weights(text, TINY, index)


def test_a_hub_out_of_reach(
    index: FileIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        WeightsError, match=r"the weights of org/whole cannot be fetched from the hub \("
    ):
        find_weights("hf:org/whole", TINY, index)


def test_the_commit_is_recorded(hub: type[Hub], cells: Workspace) -> None:
    options = ExtractOptions("tiny", "hf:org/whole", longest_edge=84)
    job = plan_extraction(cells, Selection("cells", None), options, Quiet())
    assert job.description()["weights"] == "hf:org/whole@aaaaaaaa"
    assert job.description()["weights_revision"] == COMMIT
    assert "-hf-org-whole-aaaaaaaa-" in job.name


def test_a_clipseg_comes_with_its_small_files_and_its_weights_once(hub: type[Hub]) -> None:
    found = find_clipseg("hf:org/clipseg")
    assert {path.name for path in found.folder.iterdir()} == {
        "config.json",
        "vocab.json",
        "model.safetensors",
    }
    assert found.label == f"hf:org/clipseg@{COMMIT[:8]}"
    assert not any("pytorch_model" in request for request in hub.requests)
    hub.requests.clear()
    assert find_clipseg("hf:org/clipseg") == found
    assert hub.requests == [], "a copy in the cache is used without asking"
    of_old = find_clipseg("hf:org/clipseg-of-old")
    assert (of_old.folder / "pytorch_model.bin").is_file()
    with pytest.raises(WeightsError, match="holds no CLIPSeg"):
        find_clipseg("hf:org/none")
    with pytest.raises(WeightsError, match="the hub has no repository org/nothing"):
        find_clipseg("hf:org/nothing")

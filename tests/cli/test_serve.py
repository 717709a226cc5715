"""The workspace in a browser: what it shows, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest
from emcache_bench.synthetic import STYLES, write_domain
from pages import chromium

from emcache.storage.workspace import find_workspace
from emcache_cli.serving.server import Served, make_server

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "84")
SHORT = ("--seeds", "0", "--epochs", "2", "--learning-rate", "1e-2", "--head", "linear")


class Client:
    """Asks a server as a browser does, or as something else would."""

    def __init__(self, served: Served) -> None:
        parts = urlsplit(served.address)
        self.address = served.address
        self.port = parts.port
        self.token = parts.query.removeprefix("token=")

    def ask(
        self, path: str, method: str = "GET", *, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        cookie = f"emcache-{self.port}={self.token if token is None else token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers={"Cookie": cookie, **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()

    def json(self, path: str) -> object:
        status, _, text = self.ask(path)
        assert status == 200, text
        return json.loads(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory, run_anywhere) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    write_domain(folder / "cells", STYLES["sharp"], slices=10, size=84, seed=3)
    globs = ("--images", "images/*.png", "--masks", "masks/*.png")
    for words in (
        ("init", "."),
        ("dataset", "add", "cells", "--layout", "folder", "--root", "cells", *globs),
        ("train-head", "cells", *TINY, *SHORT),
    ):
        done = run_anywhere(*words, cwd=folder)
        assert done.code == 0, done
    return folder


@pytest.fixture(scope="module")
def client(root) -> Iterator[Client]:
    served = make_server(find_workspace(root), 0, "cpu")
    thread = threading.Thread(target=served.run)
    thread.start()
    yield Client(served)
    served.server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def before(root: Path) -> dict[str, tuple[int, int]]:
    """Every file that is not the warehouse, which the server brings up to date as a query does."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and "warehouse" not in path.name
    }


def test_it_shows_what_there_is_and_changes_nothing(client, root):
    files = before(root)
    held = client.json("/api/workspace")
    assert held["datasets"] == ["cells"]
    assert len(held["runs"]) == 1
    listed = client.json("/api/datasets/cells/slices?start=8&count=5")
    assert (listed["among"], listed["found"], len(listed["slices"])) == (10, 10, 2)
    tests = client.json("/api/datasets/cells/slices?text=test")
    assert 0 < tests["found"] < 10
    assert {item["split"] for item in tests["slices"]} == {"test"}
    table = client.json("/api/tables/leaderboard")
    assert table["rows"][0][table["columns"].index("train_on")] == "cells"
    assert table["count"] == len(table["rows"])
    status, _, chart = client.ask("/charts/iou")
    assert status == 200
    assert "vegaEmbed" in chart
    (features,) = client.json("/api/features")
    names = [("slice", f"cells/{item['id']}") for item in listed["slices"]]
    words = urlencode([*names, ("features", features["name"]), ("run", held["runs"][0])])
    status, _, page = client.ask(f"/explore?{words}")
    assert status == 200
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page, re.DOTALL)[1])
    assert [f"cells/{item['id']}" for item in facts["slices"]] == [name for _, name in names]
    assert facts["slices"][0]["predictions"][0]["run"] == held["runs"][0]
    assert facts["components"] > 0
    assert before(root) == files


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"token": ""}, 403),
        ({"token": "x" * 32}, 403),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "attacker.example:{port}"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"method": "POST"}, 405),
        ({"method": "DELETE"}, 405),
        ({"method": "OPTIONS"}, 405),
        ({"Host": "localhost:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"method": "HEAD"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/workspace", "/static/workspace.js"])
def test_only_whom_it_knows_is_answered(client, path, how, status):
    filled = {key: value.format(port=client.port) for key, value in how.items()}
    found, headers, text = client.ask(path, **filled)
    assert found == status, text
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    if status != 200:
        assert "cells" not in text
        assert client.token not in text


def test_a_token_in_the_address_becomes_a_cookie(client):
    address = f"/?token={client.token}&a=b"
    status, headers, _ = client.ask(address, token="")
    assert (status, headers["location"]) == (303, "/?a=b")
    assert re.search(r"HttpOnly.*SameSite=strict", headers["set-cookie"])
    assert client.ask(f"/?token={client.token[:-1]}", token="")[0] == 403
    # Another host gets no cookie either, whatever it knows.
    assert client.ask(address, token="", Host="attacker.example")[0] == 403


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/datasets/none/slices", "none"),
        ("/api/datasets/cells/slices?start=-1", "start='-1' is no number"),
        ("/api/tables/none", "none"),
        ("/charts/none", "there is no chart 'none'"),
        ("/charts/gap", "no gap"),
        ("/explore", "found 0 slices; expected 1 to 48"),
        ("/explore?slice=cells/nix", "there is no slice 'nix'"),
        ("/explore?slice=cells/0&features=..", "is no feature set's name"),
        ("/explore?slice=cells/0&features=a/b", "is no feature set's name"),
        ("/explore?slice=cells/0&run=..", ".."),
    ],
)
def test_what_is_not_there_is_a_sentence(client, path, said):
    status, _, text = client.ask(path)
    assert status == 422, text
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("path", ["/emcache.toml", "/static/../page.py", "/static/x", "/runs"])
def test_no_other_file_is_served(client, path):
    assert client.ask(quote(path))[0] == 404


def test_a_port_that_is_taken_is_a_sentence(root, fails):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = fails("serve", "--port", port, cwd=root)
    assert f"port {port} is taken; choose another --port, or 0 for any that is free." in result.err


def test_a_missing_package_is_a_sentence(root, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "emcache_cli.serving.server", raising=False)
    monkeypatch.delattr("emcache_cli.serving.server", raising=False)
    said = fails("serve", "--port", 0, cwd=root).err
    assert "uvicorn is not installed; install it with `pip install 'emcache[serve]'`." in said


def test_ctrl_c_ends_it(root):
    command = [str(Path(sys.executable).with_name("emcache")), "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = re.search(r"http://\S+", process.stderr.readline())[0]
    parts = urlsplit(address)
    for _ in range(100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", parts.port)) == 0:
                break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert "Traceback" not in said
    assert process.returncode in (0, 130)


@pytest.mark.browser
def test_tables_and_slices_in_a_browser(client, browser, tmp_path):
    done = chromium(browser, tmp_path / "profile", "--dump-dom", client.address)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert 'data-ready="true"' in done.stdout
    assert "iou_fg_mean" in done.stdout
    shown = chromium(
        browser, tmp_path / "profile", "--dump-dom", f"{client.address}#/dataset/cells"
    )
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert shown.stdout.count('type="checkbox"') == 10

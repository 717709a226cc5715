"""The tables of docs/collapse.md, from the files of benchmarks/collapse.

::

    python benchmarks/collapse_tables.py

writes them between the page's markers. ``collapse_export.py`` makes the files from a warehouse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

FOLDER = Path(__file__).parent / "collapse"
PAGE = Path(__file__).parents[1] / "docs" / "collapse.md"

LUCCHI, WRONG, VNC = "lucchi", "lucchi-wrong", "vnc"
_BOTH, _WRONG_BOTH = "lucchi + vnc", "lucchi-wrong-train + vnc"
_LARGE_BOTH = ("lucchi++ + vnc", "lucchi-string-train + vnc")
_SHORT, _LONG = 15, 60
_USUAL: Mapping[str, Any] = {
    "regime": "frozen",
    "untrained": False,
    "longest_edge": 266,
    "epochs": _SHORT,
    "sampling": "natural",
}
_QUERY = (
    "select seed, n_slices, iou_fg from run_metrics where train_on = '{train_on}' and eval_on = "
    "'{eval_on}' and split = 'test' and regime = '{regime}' and sampling = 'natural' and "
    "longest_edge = 266 and protocol like '%max_epochs={epochs}]' and weights not like 'random%'"
)
_PAPER = "the paper's Table 8, DINOv2-L"
_LATER = "the reference's own later run, DINOv2-L"


def write_page() -> None:
    """Put the tables where the page has their markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda match, table=table: f"{match[1]}{table}{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        if found != 1:
            raise SystemExit(f"{PAGE} has {found} places for the table {name}; expected one.")
    PAGE.write_text(text, encoding="utf-8")


def tables() -> dict[str, str]:
    """Every table of the page by the name of its marker, as Markdown."""
    scores = read_scores()
    return {
        "headline": _headline(scores),
        "lora": _lora(scores),
        "vnc": _vnc(scores),
        "doubts": _doubts(scores),
        "transfer": _transfer(scores),
        "gaps": _gaps(pl.read_csv(FOLDER / "gaps.csv")),
        "distances": _distances(pl.read_csv(FOLDER / "distances.csv")),
        "claims": _claims(scores),
        "all": _everything(scores),
    }


def read_scores() -> pl.DataFrame:
    """``scores.csv``, with the number of epochs and whether the weights are untrained."""
    return pl.read_csv(FOLDER / "scores.csv").with_columns(
        epochs=pl.col("protocol").str.extract(r"max_epochs=(\d+)").cast(pl.Int64),
        untrained=pl.col("weights").str.starts_with("random:"),
    )


def pick(scores: pl.DataFrame, train_on: str, eval_on: str, **given: object) -> dict[str, Any]:
    """The one row of a training and a set of test slices.

    Raises:
        LookupError: There is none, or more than one.
    """
    wanted = {**_USUAL, **given, "train_on": train_on, "eval_on": eval_on}
    found = scores.filter(pl.col(name) == value for name, value in wanted.items())
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows are {wanted}; expected one")
    return found.row(0, named=True)


def _score(row: Mapping[str, Any]) -> str:
    return f"{row['iou']:.3f} ({_over_seeds(row)})"


def _over_seeds(row: Mapping[str, Any]) -> str:
    if row["n_runs"] == 1:
        return "one run"
    return f"{row['low_over_seeds']:.2f} to {row['high_over_seeds']:.2f}"


def _markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _headline(scores: pl.DataFrame) -> str:
    head = ["trained on", "pairs of Lucchi++ in training", "sampling", "runs"]
    head += ["Lucchi++", "Lucchi++, test masks in string order", "VNC"]
    rows: list[list[object]] = []
    for words, train_on, pairs, sampling in (
        ("Lucchi++", LUCCHI, "right", "natural"),
        ("VNC", VNC, "", "natural"),
        ("both", _BOTH, "right", "natural"),
        ("both", _WRONG_BOTH, "string order", "natural"),
        ("both", _BOTH, "right", "balanced"),
        ("both", _WRONG_BOTH, "string order", "balanced"),
    ):
        found = [
            pick(scores, train_on, test_of(train_on, name), sampling=sampling)
            for name in (LUCCHI, WRONG, VNC)
        ]
        rows.append([words, pairs, sampling, found[0]["n_runs"], *map(_score, found)])
    rows += [
        [f"both, {_PAPER}", "", "natural", 5, "0.007", "", "0.661"],
        [f"both, {_PAPER}", "", "balanced", 5, "0.019", "", "0.732"],
        [f"both, {_LATER}", "", "natural", 5, "0.729", "", "0.761"],
        [f"both, {_LATER}", "", "balanced", 5, "0.689", "", "0.762"],
    ]
    return _markdown(head, rows)


def test_of(train_on: str, name: str) -> str:
    """The test slices of a training by the name they are scored under.

    A training on wrong pairs scores the test slices of its own data set, which are rightly paired.
    """
    own = train_on.split(" + ")
    for candidate in own:
        if candidate.removesuffix("-wrong-train") == name:
            return candidate
        if name == VNC and candidate.startswith(VNC):
            return candidate
    return name


def _lora(scores: pl.DataFrame) -> str:
    head = ["trained on", "pairs of Lucchi++ in training", "runs"]
    head += ["Lucchi++", "Lucchi++, test masks in string order", "VNC"]
    rows = []
    for words, train_on, pairs in (
        ("Lucchi++", LUCCHI, "right"),
        ("VNC", VNC, ""),
        ("both", _BOTH, "right"),
        ("both", _WRONG_BOTH, "string order"),
    ):
        found = [
            pick(scores, train_on, test_of(train_on, name), regime="lora")
            for name in (LUCCHI, WRONG, VNC)
        ]
        rows.append([words, pairs, found[0]["n_runs"], *map(_score, found)])
    return _markdown(head, rows)


def _vnc(scores: pl.DataFrame) -> str:
    rows: list[list[object]] = []
    for words, right, given in (
        ("as above", _BOTH, {}),
        ("60 epochs, nothing stops early", None, {"epochs": _LONG}),
        ("balanced", _BOTH, {"sampling": "balanced"}),
        ("with LoRA", _BOTH, {"regime": "lora"}),
    ):
        wrong = pick(scores, _WRONG_BOTH, VNC, **given)
        cell = "" if right is None else _score(pick(scores, right, VNC, **given))
        rows.append([words, wrong["n_runs"], cell, _score(wrong), _each(wrong)])
    large = [_at_1022(train_on, VNC) for train_on in _LARGE_BOTH]
    rows.append(["1022 px, on a GPU", 3, *map(_range, large), _listed(large[1])])
    head = ["", "runs", "VNC, right pairs", "VNC, string order in training"]
    return _markdown([*head, "its runs one by one"], rows)


def _each(row: Mapping[str, Any]) -> str:
    """The scores of a row's runs."""
    runs = pl.read_csv(FOLDER / "runs.csv").filter(
        pl.col(name) == row[name]
        for name in ("regime", "weights", "longest_edge", "protocol", "train_on", "sampling")
    )
    return _listed(runs.filter(pl.col("eval_on") == row["eval_on"])["iou_fg"].to_list())


def _listed(scores: Iterable[float]) -> str:
    return ", ".join(f"{iou:.3f}" for iou in sorted(scores))


def _at_1022(train_on: str, eval_on: str) -> list[float]:
    """Scores of the runs on a GPU at the study's size."""
    rows = pl.read_csv(FOLDER.parent / "collapse_1022px.csv").filter(
        pl.col("regime") == "frozen", pl.col("train_on") == train_on, pl.col("eval_on") == eval_on
    )
    return rows["iou"].sort().to_list()


def _range(scores: list[float]) -> str:
    return f"{sum(scores) / len(scores):.3f} (runs {scores[0]:.2f} to {scores[-1]:.2f})"


def _doubts(scores: pl.DataFrame) -> str:
    rows: list[list[object]] = []
    for words, vnc, given in (
        ("as above", VNC, {}),
        ("leakage: a block of VNC is tested", "vnc-block", {}),
        ("the checkpoint: untrained weights", VNC, {"untrained": True}),
    ):
        right, wrong = f"{LUCCHI} + {vnc}", f"lucchi-wrong-train + {vnc}"
        found = [pick(scores, right, LUCCHI, **given)]
        found += [pick(scores, wrong, "lucchi-wrong-train", **given)]
        found += [pick(scores, right, vnc, **given), pick(scores, wrong, vnc, **given)]
        rows.append([words, found[0]["n_runs"], *map(_score, found)])
    own = ("lucchi++", "lucchi-string-train")
    large = [_at_1022(both, name) for both, name in zip(_LARGE_BOTH, own, strict=True)]
    large += [_at_1022(both, VNC) for both in _LARGE_BOTH]
    rows.append(["the resolution: 1022 px, every slice, on a GPU", 3, *map(_range, large)])
    head = ["", "runs", "Lucchi++, right pairs", "Lucchi++, string order in training"]
    return _markdown([*head, "VNC, right pairs", "VNC, string order in training"], rows)


def _transfer(scores: pl.DataFrame) -> str:
    rows = []
    for regime, edge in (("frozen", 266), ("frozen", 518), ("lora", 266)):
        for train_on in (LUCCHI, VNC, _BOTH):
            try:
                found = [
                    pick(scores, train_on, name, regime=regime, longest_edge=edge)
                    for name in (LUCCHI, VNC)
                ]
            except LookupError:
                # At 518 px VNC alone is scored on Lucchi++, and Lucchi++ alone is not trained.
                continue
            words = train_on.replace(LUCCHI, "Lucchi++").replace(VNC, "VNC")
            rows.append([regime, f"{edge} px", words, found[0]["n_runs"], *map(_score, found)])
    return _markdown(["regime", "size", "trained on", "runs", "Lucchi++", "VNC"], rows)


def _gaps(gaps: pl.DataFrame) -> str:
    names = {
        "lucchi-all:test": "Lucchi++ test",
        "lucchi-all:train": "Lucchi++ train",
        "vnc": "VNC stack 1",
        "vnc:stack2": "VNC stack 2",
    }
    chosen = gaps.filter(
        pl.col("level") == "slice",
        pl.col("class").is_null(),
        pl.col("domain_a").is_in(list(names)),
        pl.col("domain_b").is_in(list(names)),
    )
    rows = []
    for keys, group in chosen.group_by(
        ["regime", "adapted_on", "domain_a", "domain_b"], maintain_order=True
    ):
        regime, adapted_on, one, other = map(str, keys)
        if regime == "lora" and adapted_on != _BOTH:
            continue
        mean = {name: group[name].mean() for name in group.columns if group[name].dtype.is_float()}
        interval = f"{mean['frechet_low']:.3g} to {mean['frechet_high']:.3g}"
        if regime == "lora":
            interval = f"{group['frechet'].min():.3g} to {group['frechet'].max():.3g} (3 runs)"
        rows.append(
            [
                regime,
                f"{names[one]}, {names[other]}",
                f"{group['n_a'][0]}, {group['n_b'][0]}",
                f"{mean['frechet']:.3g}",
                interval,
                f"{mean['frechet_at_n']:.3g}",
                f"{mean['frechet_within_a']:.3g} and {mean['frechet_within_b']:.3g}",
                f"{mean['probe_auroc']:.2f}",
            ]
        )
    head = ["features", "between", "N", "Frechet distance", "interval", "at one N"]
    return _markdown([*head, "within each, at that N", "probe, AUROC"], rows)


def _distances(distances: pl.DataFrame) -> str:
    rows = []
    for row in distances.iter_rows(named=True):
        medians = [f"{row[f'median_{kind}']:.3g}" for kind in ("stack", "tissue", "microscope")]
        rates = [f"{100 * row[f'false_alarms_{kind}']:.0f} %" for kind in ("stack", "tissue")]
        rows.append([row["distance"], *medians, f"{row['auroc_stack']:.2f}", *rates])
    first = distances.row(0, named=True)
    counts = [f"{first[f'n_{kind}']} pairs" for kind in ("stack", "tissue", "microscope")]
    head = ["distance between blocks of ten slices", f"one stack ({counts[0]})"]
    head += [f"one tissue ({counts[1]})", f"two microscopes ({counts[2]})"]
    head += ["microscopes further apart than one stack (AUROC)"]
    return _markdown([*head, "false alarms, one stack", "false alarms, one tissue"], rows)


def _claims(scores: pl.DataFrame) -> str:
    rows = []
    for words, train_on, eval_on, regime in (
        ("Rightly paired, one head serves both: Lucchi++", _BOTH, LUCCHI, "frozen"),
        ("where a head for Lucchi++ alone scores", LUCCHI, LUCCHI, "frozen"),
        ("and VNC", _BOTH, VNC, "frozen"),
        ("where a head for VNC alone scores", VNC, VNC, "frozen"),
        ("With LoRA: Lucchi++", _BOTH, LUCCHI, "lora"),
        ("where one for Lucchi++ alone scores", LUCCHI, LUCCHI, "lora"),
        ("and VNC", _BOTH, VNC, "lora"),
        ("where one for VNC alone scores", VNC, VNC, "lora"),
        ("String order in training and test brings Lucchi++ down to", _WRONG_BOTH, WRONG, "frozen"),
        ("and with LoRA to", _WRONG_BOTH, WRONG, "lora"),
        ("with VNC at", _WRONG_BOTH, VNC, "lora"),
        ("String order in the test alone brings a sound head down to", _BOTH, WRONG, "frozen"),
        ("String order in training alone to", _WRONG_BOTH, "lucchi-wrong-train", "frozen"),
        ("and VNC to", _WRONG_BOTH, VNC, "frozen"),
        ("A head for VNC scores on Lucchi++, which it never saw,", VNC, LUCCHI, "frozen"),
        ("and one for Lucchi++ on VNC", LUCCHI, VNC, "frozen"),
    ):
        row = pick(scores, train_on, eval_on, regime=regime)
        query = _QUERY.format(train_on=train_on, eval_on=eval_on, regime=regime, epochs=_SHORT)
        slices = f"{row['low_over_slices']:.2f} to {row['high_over_slices']:.2f}"
        n = f"{row['n_runs']} runs, {row['n_slices']} slices"
        rows.append(
            [words, f"{row['iou']:.3f}", n, _over_seeds(row), slices, f'`emcache query "{query}"`']
        )
    return _markdown(["claim", "IoU", "N", "over seeds", "over slices", "command"], rows)


def _everything(scores: pl.DataFrame) -> str:
    rows = [
        [
            row["regime"],
            "untrained" if row["untrained"] else "pretrained",
            row["longest_edge"],
            row["epochs"],
            row["train_on"],
            row["sampling"],
            row["eval_on"],
            row["n_runs"],
            row["n_slices"],
            f"{row['iou']:.3f}",
            _over_seeds(row),
            f"{row['low_over_slices']:.2f} to {row['high_over_slices']:.2f}",
            "yes" if row["audit_accepted"] else "",
        ]
        for row in scores.iter_rows(named=True)
    ]
    head = ["regime", "weights", "edge", "epochs", "trained on", "sampling", "tested on", "runs"]
    head += ["slices", "IoU", "over seeds", "over slices", "failed audit accepted"]
    return _markdown(head, rows)


if __name__ == "__main__":
    write_page()

"""Tables of pages in docs/, from rows that studies left here.

    python benchmarks/page_tables.py           # whether the pages have them
    python benchmarks/page_tables.py --write   # put them there

``alignment.csv`` and ``tokens.csv`` are rows of the named query ``alignment`` over the records of
the studies of the same names, and ``ladder.csv`` is of the query ``ladder``; a new run of one
replaces its file. ``few_label.csv`` is of ``label-efficiency``, ``methods.csv`` of ``methods``, and
``alignment_differences.py`` and ``cache_sizes.py`` write the files of their names;
``last_blocks.csv`` has the runs of a study of ten lines, which docs/ladder.md shows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
PAGES = tuple(
    HERE.parent / "docs" / f"{name}.md"
    for name in ("alignment", "tokens", "ladder", "few-label", "methods", "smaller")
)
_CELLS = {
    "VNC alone": ("vnc", "alone"),
    "Lucchi++ alone": ("lucchi", "alone"),
    "VNC, scored on Lucchi++": ("lucchi", "transfer"),
    "Lucchi++, scored on VNC": ("vnc", "transfer"),
    "both: VNC": ("vnc", "together"),
    "both: Lucchi++": ("lucchi", "together"),
}
_METHODS = (
    *("none", "standardise", "batch-norm", "quantile", "coral", "whiten"),
    *("percentile", "clahe", "histogram:vnc"),
)
_MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(?:\|.*\n|\n(?=\|))*")


def tables() -> dict[str, str]:
    """Every table by the name in its mark."""
    found = {}
    rows = _described(pl.read_csv(HERE / "alignment.csv"))
    for name, head, tokens in (
        ("deconv", "deconv", "last"),
        ("linear", "linear", "last"),
        ("shifted", "linear", "shift:2"),
    ):
        found[f"alignment-{name}"] = _alignment(rows.filter(head=head, tokens=tokens))
    differences = _described(pl.read_csv(HERE / "alignment_differences.csv"))
    found["alignment-differences"] = _differences(differences)
    found["tokens"] = _tokens(_described(pl.read_csv(HERE / "tokens.csv")))
    found["few-label"] = _few_label(pl.read_csv(HERE / "few_label.csv"))
    found["ladder"] = _ladder(pl.read_csv(HERE / "ladder.csv"))
    found["last-blocks"] = _last_blocks(pl.read_csv(HERE / "last_blocks.csv"))
    tokens = pl.read_csv(HERE / "cache_sizes_tokens.csv")
    found["smaller"] = _smaller(tokens, pl.read_csv(HERE / "cache_sizes.csv"))
    found["methods"] = _methods(pl.read_csv(HERE / "methods.csv"))
    return found


def _described(rows: pl.DataFrame) -> pl.DataFrame:
    """With ``head`` and ``tokens``, from what the protocol says of them."""
    head = pl.col("protocol").str.extract(r"head=([\w-]+)").fill_null("deconv")
    shift = pl.col("protocol").str.extract(r"tokens=(shift:\d+)")
    layers = pl.col("protocol").str.extract(r"layers=([\w+]+)")
    larger = pl.when(pl.col("longest_edge") > 266).then(pl.format("{} px", "longest_edge"))
    return rows.with_columns(
        head=head.replace({"bn-linear": "linear"}),
        tokens=pl.coalesce(shift, layers, larger, pl.lit("last")),
    )


def _alignment(rows: pl.DataFrame) -> str:
    lines = [f"| method | {' | '.join(_CELLS)} |", f"|{' --- |' * (len(_CELLS) + 1)}"]
    for method in _METHODS:
        own = rows.filter(aligned_by=method)
        if own.is_empty():
            continue
        cells = [_cell(own.filter(eval_on=on, setting=s)["iou_fg"]) for on, s in _CELLS.values()]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _differences(rows: pl.DataFrame) -> str:
    """What alignment changes, with intervals over seeds, and over seeds and blocks of slices."""
    columns = {
        "together less alone: VNC": ("together less alone", "vnc"),
        "together less alone: Lucchi++": ("together less alone", "lucchi"),
        "VNC, scored on Lucchi++": ("transfer with less without", "lucchi"),
        "Lucchi++, scored on VNC": ("transfer with less without", "vnc"),
    }
    lines = [f"| head | method | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 2)}"]
    for head in ("deconv", "linear"):
        for method in _METHODS:
            own = rows.filter(head=head, aligned_by=method, tokens="last", sampling="natural")
            own = own.filter(~pl.col("protocol").str.contains("batch="))
            cells = [
                _difference(own.filter(comparison=comparison, eval_on=on))
                for comparison, on in columns.values()
            ]
            if any(cells):
                lines.append(f"| `{head}` | `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _difference(rows: pl.DataFrame) -> str:
    """The change, its interval over seeds, and that over seeds and blocks in brackets."""
    if rows.is_empty():
        return ""
    (row,) = rows.rows(named=True)
    text = f"{row['change']:+.3f} ({row['low_seeds']:+.3f} to {row['high_seeds']:+.3f})"
    if row["low_blocks"] is None:
        return text
    return f"{text} [{row['low_blocks']:+.3f} to {row['high_blocks']:+.3f}]"


def _tokens(rows: pl.DataFrame) -> str:
    lines = ["| head | tokens | VNC | Lucchi++ |", "| --- | --- | --- | --- |"]
    for head in ("deconv", "deconv-skip", "linear"):
        for tokens in ("last", "last4", "3+6+9+12", "shift:2", "532 px"):
            own = rows.filter(head=head, tokens=tokens)
            if own.is_empty():
                continue
            cells = [_cell(own.filter(eval_on=on)["iou_fg"]) for on in ("vnc", "lucchi")]
            lines.append(f"| `{head}` | {tokens} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ladder(rows: pl.DataFrame) -> str:
    """Scores, and what training on VNC took: parameters in millions, seconds and GB of memory."""
    columns = {name: cell for name, cell in _CELLS.items() if cell[1] != "transfer"}
    lines = [
        f"| what is trained | parameters, M | relative time | memory, GB | {' | '.join(columns)} |",
        f"|{' --- |' * (len(columns) + 4)}",
    ]
    order = rows.group_by("rung").agg(pl.col("trainable_parameters").min(), pl.col("regime").min())
    for rung in order.sort("trainable_parameters", "rung")["rung"]:
        own = rows.filter(rung=rung)
        alone = own.filter(setting="alone", eval_on="vnc")
        plain = rows.filter(setting="alone", eval_on="vnc", rung="frozen")
        took = ["", ""]
        if not alone.is_empty():
            seconds = alone["train_seconds"].mean() / plain["train_seconds"].mean()
            took = [f"{seconds:.1f}", f"{alone['memory_gb'].mean():.1f}"]
        millions = f"{own['trainable_parameters'].min() / 1e6:.2f}"
        cells = [
            _cell(own.filter(eval_on=on, setting=setting)["iou_fg"])
            for on, setting in columns.values()
        ]
        lines.append(f"| {' | '.join([rung, millions, *took, *cells])} |")
    return "\n".join(lines) + "\n"


_KINDS = ("few labels", "from scratch", "frozen backbone", "LoRA", "all weights")


def _methods(rows: pl.DataFrame) -> str:
    """Scores of every method on two datasets, and what each was given and took."""
    given = "labelled pixels | seconds"
    lines = [
        f"| what is trained | method | VNC: IoU | {given} | Lucchi++: IoU | {given} |",
        f"|{' --- |' * 8}",
    ]
    order = rows.group_by("kind", "method", "protocol").agg(pl.col("iou_fg").mean())
    for kind in _KINDS:
        for row in order.filter(kind=kind).sort("iou_fg").iter_rows(named=True):
            own = rows.filter(kind=kind, method=row["method"], protocol=row["protocol"])
            cells = []
            for name in ("vnc", "lucchi"):
                part = own.filter(eval_on=name)
                cells.append(_cell(part["iou_fg"]))
                if part.is_empty():
                    cells += ["", ""]
                else:
                    cells.append(f"{part['labelled_pixels'].mean():,.0f}")
                    seconds = part["train_seconds"].mean()
                    cells.append(f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1g}")
            lines.append(
                f"| {kind} | {_words(row['method'], row['protocol'])} | {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def _last_blocks(rows: pl.DataFrame) -> str:
    """Scores by how many of the last blocks have adapters."""
    lines = [
        "| adapted blocks | trained parameters, M | VNC | Lucchi++ |",
        "| --- | --- | --- | --- |",
    ]
    for blocks in sorted(rows["last_blocks"].unique()):
        own = rows.filter(last_blocks=blocks)
        cells = [_cell(own.filter(eval_on=name)["iou_fg"]) for name in ("vnc", "lucchi")]
        parameters = f"{own['trainable_parameters'].mean() / 1e6:.2f}"
        lines.append(f"| last {blocks} | {parameters} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _smaller(tokens: pl.DataFrame, scores: pl.DataFrame) -> str:
    """Bytes, scores, neighbours and distance of every way to store tokens."""
    plain = tokens.filter(way="float16").row(0, named=True)
    head = "bytes | nearest neighbours | linear head | the study's head"
    lines = [
        f"| stored | distance | VNC: {head} | Lucchi++: {head} |",
        f"|{' --- |' * 10}",
    ]
    for row in tokens.iter_rows(named=True):
        cells = [f"{row['frechet'] / plain['frechet']:.4f}"]
        for name in ("vnc", "lucchi"):
            size, own = row[f"bytes_{name}"], scores.filter(way=row["way"], dataset=name)
            cells.append("" if size is None else f"{size / plain[f'bytes_{name}']:.2f}")
            cells.append(f"{row[f'same_neighbour_{name}']:.3f}")
            cells += [_cell(own.filter(head=head)["iou_fg"]) for head in ("linear", "deconv")]
        lines.append(f"| {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _words(method: str, protocol: str) -> str:
    """A method, and of one that is fitted what it was given."""
    if not protocol.startswith("few-label"):
        return {"deconv": "the study's head", "bn-linear": "linear head", "unet": "U-Net"}[method]
    given = re.sub(r"head=[\w-]+(, )?", "", protocol.removeprefix("few-label").strip("[]"))
    return f"`{method}`, {given.replace('_', ' ').replace('=', ' ')}"


_SIZES = (1, 2, 4, 8)


def _few_label(rows: pl.DataFrame) -> str:
    """Scores of each method by the number of annotated slices; the last is of all."""
    lines = []
    for name, title in (("vnc", "VNC"), ("lucchi", "Lucchi++")):
        heads = " | ".join(f"{size} slices" for size in _SIZES[1:])
        lines.append(f"| {title} | 1 slice | {heads} | all |")
        lines.append(f"|{' --- |' * (len(_SIZES) + 2)}")
        own = rows.filter(eval_on=name)
        for (method, protocol), part in sorted(own.group_by("method", "protocol"), key=_order):
            given = re.sub(r"head=[\w-]+(, )?", "", protocol.removeprefix("few-label").strip("[]"))
            words = "trained linear head"
            if not method.startswith("frozen"):
                words = f"`{method}`, {given.replace('=', ' ')}"
            cells = [_cell(part.filter(annotated_slices=size)["iou_fg"]) for size in _SIZES]
            rest = part.filter(pl.col("annotated_slices") > _SIZES[-1])["iou_fg"]
            lines.append(f"| {words} | {' | '.join([*cells, _cell(rest)])} |")
        lines.append("")
    return "\n".join(lines)


def _order(group: tuple[tuple[object, ...], pl.DataFrame]) -> tuple[int, str]:
    method = str(group[0][0])
    known = ("prototype", "knn", "logistic", "forest", "forest-filters", "filters", "boosting")
    return (known.index(method) if method in known else len(known), str(group[0][1]))


def _cell(scores: pl.Series) -> str:
    """Mean, spread over seeds, and how many there are."""
    if scores.is_empty():
        return ""
    if len(scores) == 1:
        return f"{scores[0]:.3f} (1)"
    return f"{scores.mean():.3f} ± {scores.std():.3f} ({len(scores)})"


def with_tables(page: str) -> str:
    """A page with the tables of today behind their marks."""
    known = tables()
    return _MARK.sub(lambda found: found[1] + known[found[2]], page)


if __name__ == "__main__":
    for path in PAGES:
        before = path.read_text()
        after = with_tables(before)
        if "--write" in sys.argv[1:]:
            path.write_text(after)
        elif before != after:
            sys.exit(f"{path.name} has other tables; write them with --write")

"""Tables of docs/alignment.md and docs/tokens.md, from the rows that studies left in benchmarks/.

    python benchmarks/page_tables.py           # whether the pages have them
    python benchmarks/page_tables.py --write   # put them there

``benchmarks/alignment.csv`` and ``benchmarks/tokens.csv`` are rows of the named query ``alignment``
over the records of the studies of the same names; a new run of one replaces its file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
PAGES = (HERE.parent / "docs" / "alignment.md", HERE.parent / "docs" / "tokens.md")
_CELLS = {
    "VNC alone": ("vnc", "alone"),
    "Lucchi++ alone": ("lucchi", "alone"),
    "VNC, scored on Lucchi++": ("lucchi", "transfer"),
    "Lucchi++, scored on VNC": ("vnc", "transfer"),
    "both: VNC": ("vnc", "together"),
    "both: Lucchi++": ("lucchi", "together"),
}
_METHODS = ("none", "standardise", "batch-norm", "quantile", "coral", "whiten")
_MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(?:\|.*\n)*")


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
    found["tokens"] = _tokens(_described(pl.read_csv(HERE / "tokens.csv")))
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
    lines = [f"| `--align` | {' | '.join(_CELLS)} |", f"|{' --- |' * (len(_CELLS) + 1)}"]
    for method in _METHODS:
        own = rows.filter(aligned_by=method)
        if own.is_empty():
            continue
        cells = [_cell(own.filter(eval_on=on, setting=s)["iou_fg"]) for on, s in _CELLS.values()]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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

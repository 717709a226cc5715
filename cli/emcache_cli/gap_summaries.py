"""Gaps for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from emcache_cli.options import Format


def gap_rows(rows: Sequence[Mapping[str, Any]], chosen: Format | None) -> list[dict[str, Any]]:
    """Every column for a program; for a person the distances with what to read them beside."""
    return [_in_words(row) if _for_people(chosen) else dict(row) for row in rows]


def familiarity_rows(
    rows: Sequence[Mapping[str, Any]], chosen: Format | None
) -> list[dict[str, Any]]:
    """Every slice for a program; for a person a row for each selection, without training slices."""
    if not _for_people(chosen):
        return [dict(row) for row in rows]
    summed = []
    for domain in dict.fromkeys(row["domain"] for row in rows):
        own = [row for row in rows if row["domain"] == domain]
        new = [row for row in own if not row["learned_from"]]
        distances = [row["distance"] for row in new]
        summed.append(
            {
                "domain": domain,
                "new slices": len(new),
                "outside": sum(row["outside"] for row in new),
                "training slices": len(own) - len(new),
                "nearest": ", ".join(dict.fromkeys(row["nearest"] for row in new)),
                "distance": f"{min(distances):.3g} to {max(distances):.3g}" if new else None,
                "lowest p": f"{min(row['p_value'] for row in new):.3f}" if new else None,
            }
        )
    return summed


def _for_people(chosen: Format | None) -> bool:
    return chosen in (Format.TABLE, Format.MARKDOWN) or (chosen is None and sys.stdout.isatty())


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    interval = "too few blocks"
    if row["frechet_low"] is not None:
        interval = f"{row['frechet_low']:.4g} to {row['frechet_high']:.4g}"
    probe = "too few slices to tell"
    if row["probe_auroc"] is not None:
        probe = f"AUROC {row['probe_auroc']:.3f}, p = {row['probe_p_value']:.3g}"
    at_n = "too few slices"
    if row["n_yardstick"] is not None:
        at_n = (
            f"{row['frechet_at_n']:.4g} (within {row['frechet_within_a']:.4g} and "
            f"{row['frechet_within_b']:.4g}) at N = {row['n_yardstick']}"
        )
    infinity = row["frechet_infinity"]
    return {
        "domain_a": row["domain_a"],
        "domain_b": row["domain_b"],
        "regime": row["regime"],
        **({} if row.get("align") is None else {"align": row["align"]}),
        "level": row["level"] if row["class"] is None else f"{row['level']}, {row['class']}",
        "N": f"{row['n_a']}, {row['n_b']} of D = {row['dim']}",
        "effective_rank": f"{row['effective_rank']:.1f}",
        "frechet": f"{row['frechet']:.4g}",
        "95 % interval": interval,
        "at equal N": at_n,
        "at infinite N": "not estimable" if infinity is None else f"{infinity:.4g}",
        "kernel": None if row["kernel"] is None else f"{row['kernel']:.4g}",
        "probe": probe,
    }

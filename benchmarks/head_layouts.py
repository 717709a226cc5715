"""The head's step by layout and arithmetic, as Markdown: seconds, and the share of the floor.

    python benchmarks/head_layouts.py [EDGE ...]

"Before" is with PyTorch's batch norm and GELU in place of the pass that does both. What processors
without some instructions would choose between is shown by telling the libraries to do without:

    ONEDNN_MAX_CPU_ISA=AVX512_CORE                                      no bfloat16
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
        NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=                      no AVX-512
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

import torch
from emcache_bench.floor import BOTH_WAYS, Parts, Piece, made_up_masks, made_up_tokens
from emcache_bench.head_worker import PATCH, Ours
from emcache_bench.timing import Rounds, interleave

from emcache.freed import kept_memory
from emcache.models import norm_gelu
from emcache.models.arithmetic import Precision
from emcache.models.device import pick_device

_LAYOUTS = {
    "channels first": torch.contiguous_format,
    "channels last": torch.channels_last,
}


def without_our_pass(step: Callable[[], object]) -> Callable[[], None]:
    """The step with PyTorch's batch norm and GELU."""

    def run() -> None:
        with mock.patch.object(norm_gelu, "_suits", return_value=False):
            step()

    return run


def measure(edge: int, layout: torch.memory_format, precision: Precision) -> list[float]:
    """Seconds before and now, and both shares; the least of all rounds."""
    device = pick_device("cpu")
    tokens, masks = made_up_tokens(edge // PATCH), made_up_masks(edge, device)
    ours = Ours(tokens, masks, device, precision, layout)
    works = Parts(Piece(ours.step, ours.head, BOTH_WAYS), device, precision).works()
    del works["square"]
    works["before"] = without_our_pass(ours.step)
    least = {
        name: min(seconds)
        for name, seconds in interleave(works, Rounds(5, 5), device, warm_up=2).items()
    }
    floor = least["products"] + least["memory"]
    before, now = least["before"], least["whole"]
    return [before, now, floor / before, floor / now]


def main(edges: list[int]) -> None:
    """Print the table."""
    print("| | layout, arithmetic | before | now | share of the floor before | now |")
    print("| --- | --- | --- | --- | --- | --- |")
    with kept_memory():
        for edge in edges:
            for layout, memory_format in _LAYOUTS.items():
                for precision in Precision:
                    figures = measure(edge, memory_format, precision)
                    shown = " | ".join(f"{figure:.3f}" for figure in figures)
                    print(f"| {edge} px | {layout}, {precision} | {shown} |", flush=True)


if __name__ == "__main__":
    main([int(edge) for edge in sys.argv[1:]] or [266, 518])

"""One training step of the study's head: as the reference configures it, and as emcache does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch

from emcache.models.arithmetic import Precision, pick_precision
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.setting import Setting
from emcache_bench.timing import Rounds, Times, in_turn, quotients
from emcache_bench.workers import Worker

# How far losses and lengths of gradients of the first steps may be apart, as a share of their size:
# bfloat16 keeps 8 bits, and they agree to a few times that.
_TOLERANCE = {Precision.BFLOAT16: 2**-6, Precision.FLOAT32: 1e-3}
_PATCH = 14
_SMALL, _LARGE = 266, 1022
_EMULATED = "bfloat16 is no faster here, so both sides compute in float32"


def measure_head_steps(setting: Setting) -> Iterator[Measurement]:
    """Steps at 266 px, and at 1022 px unless it must be quick."""
    precision = pick_precision("auto", setting.device)
    fast = precision is Precision.BFLOAT16
    target = Target(3.0, at_least=True) if fast else None
    for edge in [_SMALL] if setting.quick else [_SMALL, _LARGE]:
        rounds = setting.rounds() if edge < _LARGE else setting.rounds(2, 8)
        ways = ["reference", "ours"]
        if setting.device.type == "cpu" and edge == _SMALL and not setting.quick:
            ways.append("reference-kept")
        times, far = _take_turns(ways, edge, setting.device, rounds, target)
        # A loss that is not a number is never near another.
        sound = all(share < _TOLERANCE[precision] for share in far)
        note = "" if fast else _EMULATED
        yield of_rounds(
            f"head-step-{edge}",
            f"step as the reference configures it / ours, {edge} px, D = 384, batch 2",
            quotients(times["reference"], times["ours"]),
            target,
            {"reference": times["reference"], "ours": times["ours"]},
            device=setting.device.type,
            note=note if sound else f"losses and gradients differ by {max(far):.2g} of their size",
            sound=sound,
        )
        if "reference-kept" in ways:
            yield of_rounds(
                f"head-step-{edge}-same-memory",
                "the same, freed memory kept by the process on both sides",
                quotients(times["reference-kept"], times["ours"]),
                None,
                {"reference": times["reference-kept"], "ours": times["ours"]},
            )


def _take_turns(
    ways: Sequence[str], edge: int, device: torch.device, rounds: Rounds, target: Target | None
) -> tuple[Times, list[float]]:
    """Make steps in turns, more of them while it is open whether the target is reached.

    Returns:
        Seconds of the steps that count, by the ways' names; and for every step how far the losses
        of the reference and ours, and the lengths of their gradients, were apart, as shares of
        their size.
    """
    seconds: Times = {way: [] for way in ways}

    def settled() -> bool:
        return is_settled([(quotients(seconds["reference"], seconds["ours"]), target)])

    apart = []
    with ExitStack() as stack:
        workers = {
            way: stack.enter_context(
                Worker("emcache_bench.head_worker", way, edge // _PATCH, device)
            )
            for way in ways
        }
        for number in rounds.numbers(settled):
            answers = {way: workers[way].ask() for way in in_turn(workers, number)}
            reference, ours = answers["reference"], answers["ours"]
            apart += [abs(ours[what] / reference[what] - 1) for what in ("loss", "gradient")]
            if number >= 0:
                for way, answer in answers.items():
                    seconds[way].append(answer["seconds"])
    return seconds, apart

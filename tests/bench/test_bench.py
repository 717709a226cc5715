"""Benchmarks: what a ratio is, that both sides do the same work, and what is kept of it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import emcache_bench.epochs
import emcache_bench.extraction
import emcache_bench.head_step
import emcache_bench.head_worker
import numpy as np
import polars as pl
import pytest
import torch
from emcache_bench import floor, of_warehouse
from emcache_bench.growth import GrowthPoint, growth_ratios
from emcache_bench.head_worker import DIM, PATCH, Ours, Reference
from emcache_bench.memory import oversized_features, steps_under_limit
from emcache_bench.of_warehouse import _absolute
from emcache_bench.ratio import LEAD, Measurement, Target, is_settled, of_rounds
from emcache_bench.run import LIBRARY, BenchOptions, Suite, machine_kind, run_benchmarks
from emcache_bench.setting import MadeUpData, Setting
from emcache_bench.timing import Rounds, interleave, quotients
from emcache_bench.workers import Worker

import emcache.models.arithmetic
from emcache.cache.recipe import place_slices, plan_shards
from emcache.errors import TrainingError, UsageError
from emcache.findings import Verdict
from emcache.models.device import advise_on_memory
from emcache.models.heads import build_head
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids, read_record
from emcache.training.batches import StreamedExamples

CPU = torch.device("cpu")


def ratio(value: float, target: Target | None, *, sound: bool = True) -> Measurement:
    return of_rounds("x", "a / b", [value - 1, value, value + 2], target, {}, sound=sound)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target(3.0, at_least=True), 3.0, Verdict.PASS),
        (Target(3.0, at_least=True), 2.9, Verdict.FAIL),
        (Target(1.05, at_least=False), 1.05, Verdict.PASS),
        (Target(1.05, at_least=False), 1.06, Verdict.FAIL),
        (None, 0.1, Verdict.NA),
    ],
)
def test_a_verdict_is_that_of_the_median(target, value, verdict):
    found = ratio(value, target)
    assert (found.ratio, found.low, found.high) == (value, value - 1, value + 2)
    assert found.verdict is verdict


def test_sides_that_did_not_do_the_same_work_fail():
    assert ratio(9.0, Target(3.0, at_least=True), sound=False).verdict is Verdict.FAIL
    assert ratio(9.0, None, sound=False).verdict is Verdict.FAIL


def test_works_take_turns_and_the_warm_up_does_not_count():
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = interleave(works, Rounds(3, 3), CPU)
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert quotients([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(("settled_at", "taken"), [(0, 3), (3, 3), (5, 5), (8, 8), (1000, 9)])
def test_rounds_go_on_while_a_verdict_is_open(settled_at, taken):
    calls: list[int] = []
    times = interleave(
        {"a": lambda: calls.append(1)},
        Rounds(3, 9),
        CPU,
        lambda times: len(times["a"]) >= settled_at,
    )
    assert len(times["a"]) == taken == len(calls) - 1


def test_a_verdict_is_settled_when_one_side_leads_by_six_rounds():
    least, most = Target(1.0, at_least=True), Target(1.0, at_least=False)
    sides = [2.0] * (LEAD - 1) + [0.5]
    assert not is_settled([([2.0] * (LEAD - 1), least)])
    assert not is_settled([(sides, least)])
    for target in (least, most):
        assert is_settled([([*sides, 2.0, 2.0], target)])
        assert is_settled([([0.5] * LEAD, target)])
    assert is_settled([([0.5, 2.0], None)])
    assert not is_settled([([0.5] * LEAD, least), (sides, least)])
    assert is_settled([])


def test_noise_does_not_change_a_settled_verdict():
    """Seven of ten rounds on the right side: the verdict is wrong in about one run of 160."""
    random = np.random.default_rng(0)
    target = Target(1.0, at_least=True)
    wrong = 0
    for _ in range(2000):
        ratios: list[float] = []
        while not is_settled([(ratios, target)]):
            ratios.append(1.1 if random.random() < 0.7 else 0.9)
        wrong += of_rounds("x", "a / b", ratios, target, {}).verdict is not Verdict.PASS
    assert 2 <= wrong <= 30


def test_growth_compares_time_per_slice_at_the_two_largest_sizes():
    points = [
        GrowthPoint("an epoch", n, seconds) for n, seconds in ((1000, 33.0), (10, 7.0), (100, 3.0))
    ]
    (found,) = growth_ratios(points)
    assert found.name == "growth-an-epoch"
    assert found.ratio == pytest.approx(1.1)
    assert found.verdict is Verdict.PASS
    slow = [*points[1:], GrowthPoint("an epoch", 1000, 60.0)]
    assert next(iter(growth_ratios(slow))).verdict is Verdict.FAIL


# The step of the head


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_our_step_is_the_references_step(layout, monkeypatch):
    """Loss and every gradient, in whichever layout, within the arithmetic's own precision."""
    monkeypatch.setattr(emcache_bench.head_worker, "pick_layout", lambda *_: layout)
    monkeypatch.setattr(emcache.models.arithmetic, "computes_bfloat16", lambda device: False)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 3, 4, DIM, generator=generator).half()
    masks = (torch.rand(2, 3 * PATCH, 4 * PATCH, generator=generator) < 0.3).to(torch.uint8)
    ours, theirs = Ours(tokens, masks, CPU), Reference(tokens, masks, CPU)
    for _ in range(3):
        assert float(ours.step()) == pytest.approx(float(theirs.step()), rel=1e-4)
    first, second = Ours(tokens, masks, CPU), Reference(tokens, masks, CPU)
    first.step(), second.step()
    pairs = zip(first.head.named_parameters(), second.head.named_parameters(), strict=True)
    for (name, a), (_, b) in pairs:
        assert a.grad is not None, name
        assert torch.linalg.norm(a.grad - b.grad) <= 1e-3 * torch.linalg.norm(b.grad) + 1e-9, name


def test_a_head_computes_in_its_layout():
    tokens = torch.randn(1, 5, 6, 16).permute(0, 3, 1, 2)
    seen: list[bool] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        head = build_head("deconv", 16, 0, layout=layout).eval()
        head.blocks.register_forward_hook(
            lambda block, given, made, layout=layout: seen.append(
                made.is_contiguous(memory_format=layout)
            )
        )
        head(tokens, (70, 84))
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("loss", "sound"), [(0.5, True), (0.50001, True), (0.51, False), (float("nan"), False)]
)
def test_steps_with_other_losses_fail(loss, sound, monkeypatch, tmp_path):
    """A third step whose loss is another one, or no number."""

    class Stub:
        def __init__(self, module, way, *arguments):
            self.ours, self.steps = way == "ours", 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def ask(self):
            self.steps += 1
            found = loss if self.ours and self.steps == 3 else 0.5
            return {"seconds": 1.0 if self.ours else 4.0, "loss": found, "gradient": 1.0}

    monkeypatch.setattr(emcache_bench.head_step, "Worker", Stub)
    monkeypatch.setattr(emcache.models.arithmetic, "computes_bfloat16", lambda device: False)
    (found,) = LIBRARY.measures["head-step"](setting(tmp_path))
    assert (found.ratio, found.sound) == (4.0, sound)
    assert found.verdict is (Verdict.NA if sound else Verdict.FAIL)


# Which way round


@pytest.fixture
def timed(monkeypatch):
    """Every work is done once, and takes the seconds that it is given."""

    def give(module: str, seconds: dict[str, float]) -> None:
        def interleave(works, rounds, device, settled=None, warm_up=1):
            assert works.keys() == seconds.keys()
            for work in works.values():
                work()
            times = {name: [seconds[name]] * rounds.least for name in works}
            assert settled is None or settled(times) in (True, False)
            return times

        monkeypatch.setattr(f"emcache_bench.{module}.interleave", interleave)
        monkeypatch.setattr(
            f"emcache_bench.{module}.MadeUpData",
            partial(MadeUpData, backbone="tiny"),
            raising=False,
        )

    return give


def test_epochs_are_divided_the_right_way_round(timed, monkeypatch, tmp_path):
    monkeypatch.setattr(emcache_bench.epochs, "_EDGE", 42)
    timed("epochs", {"bare": 1.0, "ram": 2.0, "disk": 4.0, "fly": 9.0, "backbone": 2.0})
    found = {m.name: m for m in LIBRARY.measures["epochs"](setting(tmp_path))}
    assert {name: m.ratio for name, m in found.items()} == {
        "cached-epoch-ram": 0.5,
        "cached-epoch-disk": 0.25,
        # 9 / 2 against (2 + 1) / 1.
        "on-the-fly-share": 1.5,
    }
    assert all(m.sound for m in found.values())


def test_epochs_of_other_tokens_fail(timed, monkeypatch, tmp_path):
    monkeypatch.setattr(emcache_bench.epochs, "_EDGE", 42)
    timed("epochs", dict.fromkeys(("bare", "ram", "disk", "fly", "backbone"), 1.0))
    real = StreamedExamples.steps

    def other(self, order):
        for step in real(self, order):
            yield [batch._replace(inputs=batch.inputs + 1) for batch in step]

    monkeypatch.setattr(StreamedExamples, "steps", other)
    assert {m.verdict for m in LIBRARY.measures["epochs"](setting(tmp_path))} == {Verdict.FAIL}


def test_an_extraction_is_divided_the_right_way_round(timed, monkeypatch, tmp_path):
    timed("extraction", {"forward": 3.0, "extraction": 4.0})
    monkeypatch.setattr(emcache_bench.extraction, "_SIDE", 84)
    (found,) = LIBRARY.measures["extraction"](setting(tmp_path))
    assert (found.ratio, found.sound) == (0.75, True)


def test_a_distance_is_divided_the_right_way_round(timed, tmp_path):
    timed("distance", {"sqrtm": 60.0, "emcache": 1.0})
    (found,) = LIBRARY.measures["frechet"](setting(tmp_path))
    assert (found.ratio, found.verdict) == (60.0, Verdict.PASS)


# Memory


KEPT = """
import os, psutil, sys, torch
from contextlib import nullcontext
from emcache.freed import kept_memory
def held():
    return psutil.Process().memory_info().rss >> 20
def use():
    # Four times 64 MiB, written to, and free again: above 32 MiB, the most that the C library's
    # threshold adapts to, it gives back at once what it was not asked to keep.
    tensors = [torch.ones(1 << 24) for _ in range(4)]
use()
before = held()
with kept_memory() if sys.argv[1] == "kept" else nullcontext():
    with kept_memory() if sys.argv[1] == "kept" else nullcontext():
        use()
    use()
    print(held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there does it do anything")
def test_freed_memory_is_kept_within():
    def held(way: str) -> int:
        command = [sys.executable, "-c", KEPT, way]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert held("lost") < 64
    assert held("kept") > 192


def test_a_failed_allocation_becomes_advice():
    with (
        pytest.raises(TrainingError, match=r"training needs more memory than there is; buy some\."),
        advise_on_memory(TrainingError, "training", "buy some"),
    ):
        torch.empty(1 << 52)
    with (
        pytest.raises(RuntimeError, match="shape"),
        advise_on_memory(TrainingError, "training", "buy some"),
    ):
        torch.ones(2, 3).matmul(torch.ones(2, 3))


def test_a_feature_set_larger_than_a_limit_can_be_made(tmp_path):
    limit = 1 << 16
    features = oversized_features(tmp_path, limit, 28, 64)
    assert features.feature_set.token_bytes >= 10 * limit
    assert features.feature_set.tokens(0).shape == (2, 2, 64)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's RLIMIT_DATA")
def test_training_from_ten_times_the_memory(tmp_path):
    """It works from disk at most of the speed; what would keep all examples dies."""
    limit = 384 << 20
    features = oversized_features(tmp_path, limit, 126, 1536)
    assert features.feature_set.token_bytes >= 10 * limit
    times, sound = steps_under_limit(features, limit, 3)
    ratios = quotients(times["ram"], times["disk"])
    assert sorted(ratios)[1] >= 0.8, ratios
    assert sound
    rounds = len(features.feature_set.slices) // 12
    greedy = ("ram", features.feature_set.folder, features.labels.key, limit, rounds)
    with (
        Worker("emcache_bench.memory_worker", *greedy) as worker,
        pytest.raises(RuntimeError, match="ended with code"),
    ):
        worker.ask()


# Files


def test_ten_thousand_slices_are_at_most_two_thousand_files():
    """The largest backbone at the default size, one array of tokens and two of labels."""
    ids = [str(number) for number in range(10_000)]
    places = place_slices(ids, ids, [(73, 73)] * len(ids))
    shards = plan_shards(places, 1536, "float16")
    masks = -(-len(ids) // 64)
    assert len(shards) + 2 * masks + 20 <= 2000


@pytest.mark.slow
def test_ten_thousand_slices_on_disk(tmp_path):
    data = MadeUpData(tmp_path, 10_000, 28, 28, CPU, "tiny")
    folder = data.features.feature_set.folder
    assert len(data.features.feature_set.slices) == 10_000
    assert sum(path.is_file() for path in folder.rglob("*")) <= 2000


# Running and keeping


def setting(tmp_path, *, quick: bool = True) -> Setting:
    return Setting(tmp_path, CPU, quick, Quiet())


SUITE = Suite(
    {
        "good": lambda setting: [ratio(4.0, Target(3.0, at_least=True))],
        "bad": lambda setting: [ratio(2.0, Target(3.0, at_least=True)), ratio(2.0, None)],
    },
    frozenset(),
    (lambda setting: [GrowthPoint("stage", n, float(n)) for n in (10, 100)],),
)


def test_what_was_measured_is_kept(workspace):
    result = run_benchmarks(workspace, SUITE, BenchOptions(quick=True), Quiet())
    assert [str(m.verdict) for m in result.measurements] == ["pass", "fail", "n/a", "pass"]
    assert result.record is not None
    record = read_record(result.record.folder)
    assert record.config["machine"] == machine_kind()
    rows = pl.read_parquet(record.file("benchmarks.parquet"))
    assert rows["ratio"].to_list() == [m.ratio for m in result.measurements]
    growth = pl.read_parquet(record.file("benchmark_growth.parquet"))
    assert growth.rows() == [("stage", 10, 10.0), ("stage", 100, 100.0)]


def test_only_what_is_named_is_measured():
    result = run_benchmarks(None, SUITE, BenchOptions(only=["good"]), Quiet())
    assert len(result.measurements) == 1
    assert result.record is None
    with pytest.raises(UsageError, match="no benchmark 'god'; known: good, bad, growth"):
        run_benchmarks(None, SUITE, BenchOptions(only=["god"]), Quiet())


def test_nothing_measured_is_nothing_kept(workspace):
    """The limit of memory is not measured quickly, and an empty record would be a damaged one."""
    options = BenchOptions(quick=True, only=["memory"])
    with pytest.raises(UsageError, match="memory cannot be measured with --quick; known: head-"):
        run_benchmarks(workspace, LIBRARY, options, Quiet())
    assert list_record_ids(workspace.runs) == []


def test_a_feature_set_takes_little_more_than_its_tokens(tmp_path):
    (found,) = LIBRARY.measures["size"](setting(tmp_path))
    assert found.verdict is Verdict.PASS, found


def test_made_up_data_of_any_number_of_slices(tmp_path):
    for count in (2, 3):
        data = MadeUpData(tmp_path / str(count), count, 42, 42, CPU, "tiny")
        assert len(data.features.feature_set.slices) == count


def test_a_worker_that_dies_is_said():
    with (
        Worker("emcache_bench.no_such_worker") as worker,
        pytest.raises(RuntimeError, match="no_such_worker ended with code 1"),
    ):
        worker.ask()


def test_of_absolute_values_the_best_round_counts():
    for target, best in (
        (Target(500.0, at_least=True), 900.0),
        (Target(1.0, at_least=False), 300.0),
    ):
        measured = _absolute("x", "a", [400.0, 900.0, 300.0], target, "s", {})
        assert (measured.ratio, measured.low, measured.high) == (best, 300.0, 900.0)


def test_the_leaderboard_is_asked_until_it_was_fast_enough(tmp_path, monkeypatch):
    seconds = iter([9.0, 3.0, 2.0, 2.0, 1.5, 0.9, 0.1])
    monkeypatch.setattr(of_warehouse, "_RUNS", 10)
    monkeypatch.setattr(of_warehouse, "_seconds_of_leaderboard", lambda *_: next(seconds))
    (measured,) = of_warehouse.measure_leaderboard(
        Setting(tmp_path, CPU, quick=True, reporter=Quiet())
    )
    assert measured.verdict is Verdict.PASS
    assert (measured.ratio, measured.high) == (0.9, 3.0)
    # The first does not count, and nothing was asked after it was fast enough.
    assert next(seconds) == 0.1


def test_the_floor_is_that_of_the_least_times(tmp_path, monkeypatch):
    times = {
        "whole": [4.0, 2.0],
        "products": [1.0, 9.0],
        "memory": [0.6, 0.5],
        "square": [1.0, 1.0],
    }
    monkeypatch.setattr(floor, "interleave", lambda *_: times)
    monkeypatch.setattr(floor, "_head", lambda *_: None)
    monkeypatch.setattr(floor, "Parts", lambda *_: SimpleNamespace(works=dict, flop=1.0))
    share, _ = floor._measure(
        "head-step", floor.Parts(), Setting(tmp_path, CPU, quick=True, reporter=Quiet())
    )
    assert share.ratio == (1.0 + 0.5) / 2.0

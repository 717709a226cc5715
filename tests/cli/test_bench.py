"""``emcache bench`` as a user sees it."""

from __future__ import annotations

import json

import pytest
from emcache_bench.ratio import Target, of_rounds
from emcache_bench.run import GROWTH, Suite

import emcache_cli.benchmarking
from emcache_cli.bench import NAMES
from emcache_cli.benchmarking import SUITE


@pytest.fixture
def stub_suite(monkeypatch):
    """Benchmarks that take no time."""

    def suite(ratio: float) -> None:
        def measure(setting):
            yield of_rounds(
                "fast", "theirs / ours", [ratio], Target(2.0, at_least=True), {"ours": [0.5]}
            )

        monkeypatch.setattr(
            emcache_cli.benchmarking, "SUITE", Suite({"some": measure}, frozenset(), ())
        )

    return suite


def test_one_real_benchmark_and_its_chart(run, tmp_path):
    run("init", ".")
    result = run("bench", "--quick", "--only", "size")
    assert result.code == 0, result
    (row,) = result.json
    assert {"name", "ratio", "target", "verdict"} <= row.keys()
    assert (row["target"], row["verdict"]) == ("<= 1.05", "pass")
    assert "Kept as record" in result.err
    assert run("chart", "bench", "--out", "bench.html").code == 0
    assert (tmp_path / "bench.html").stat().st_size > 500_000


def test_a_missed_target_is_exit_code_1_and_raw_times_are_kept(run, stub_suite):
    stub_suite(1.5)
    result = run("bench", "--only", "some")
    assert result.code == 1
    assert json.loads(result.out)[0] == {
        "name": "fast",
        "ratio": 1.5,
        "target": ">= 2",
        "verdict": "fail",
        "low": 1.5,
        "high": 1.5,
        "unit": "ratio",
        "device": "cpu",
        "question": "theirs / ours",
        "note": "",
        "times": [{"what": "ours", "seconds": [0.5]}],
    }
    assert "in no workspace" in result.err


@pytest.mark.parametrize("style", ["table", "markdown", "csv", "jsonl"])
def test_every_format_has_the_verdict(style, run, stub_suite):
    stub_suite(3.0)
    result = run("bench", "--only", "some", "--format", style)
    assert result.code == 0
    assert "fast" in result.out
    assert "pass" in result.out


def test_the_help_names_what_there_is():
    assert [*SUITE.measures, GROWTH] == NAMES.split(", ")


def test_a_mistyped_name_and_device_are_said(fails):
    assert "no benchmark 'sise'; known: help, head-step" in fails("bench", "--only", "sise").err
    assert "no device 'gpu'" in fails("bench", "--device", "gpu").err
    assert "nowhere" in fails("bench", "--only", "size", "--workspace", "nowhere").err

"""Which of several ways a machine is faster in: measured once, kept, and asked for."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from emcache.models import layouts, threads, timings
from emcache.models.arithmetic import Precision
from emcache.models.device import pick_device
from emcache.models.layouts import pick_layout, time_layouts
from emcache.models.measured import timing_facts
from emcache.models.measured import timings as every_timing
from emcache.models.timings import Choice, Timed, measure

CPU = torch.device("cpu")


def two_ways(device: torch.device) -> dict[str, Callable[[], object]]:
    return {"usual": lambda: None, "other": lambda: None}


CHOICE = Choice("a choice", "usual", two_ways)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """File of a user whose machine nobody has measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    timings._kept.cache_clear()
    yield tmp_path / "cache" / "emcache" / "timings.json"
    timings._kept.cache_clear()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, store: Path) -> list[torch.device]:
    """Every measurement is noted, and is a hundredth of a second longer than the one before."""
    calls: list[torch.device] = []

    def count(works: object, device: torch.device) -> dict[str, float]:
        calls.append(device)
        return {"usual": 0.03, "other": 0.01 * len(calls)}

    monkeypatch.setattr(timings, "measure", count)
    return calls


def test_another_way_must_be_clearly_faster() -> None:
    assert Timed({"usual": 1.0, "other": 0.9}, "usual").fastest == "other"
    assert Timed({"usual": 1.0, "other": 0.98}, "usual").fastest == "usual"
    assert Timed({"usual": 0.1, "other": 0.3}, "usual").fastest == "usual"
    assert Timed({"a": 0.3, "usual": 1.0, "b": 0.2}, "usual").fastest == "b"


def test_the_best_round_of_each_way_counts() -> None:
    waits = iter([0.2, 0.2, 0.05, 0.02, *[0.03] * 10])
    taken = measure({"slow": lambda: time.sleep(next(waits)), "fast": lambda: None}, CPU)
    # The first round does not count.
    assert 0.02 <= taken["slow"] < 0.2
    assert taken["fast"] < taken["slow"]


def test_a_machine_is_measured_once(measured: list[torch.device], store: Path) -> None:
    first = CHOICE.time(CPU)
    # As in another process.
    timings._kept.cache_clear()
    assert CHOICE.time(CPU) == first == Timed({"usual": 0.03, "other": 0.01}, "usual")
    assert len(measured) == 1
    assert list(json.loads(store.read_bytes()).values()) == [{"usual": 0.03, "other": 0.01}]


def test_it_is_measured_again_when_it_is_asked_for(
    measured: list[torch.device], store: Path
) -> None:
    CHOICE.time(CPU)
    # A home folder may be that of many machines.
    others = {**json.loads(store.read_bytes()), "another": {"usual": 1.0}}
    store.write_text(json.dumps(others))
    assert CHOICE.time(CPU, again=True).seconds["other"] == 0.02
    assert CHOICE.time(CPU).seconds["other"] == 0.02
    assert len(measured) == 2
    assert json.loads(store.read_bytes())["another"] == {"usual": 1.0}


def test_everything_that_matters_is_measured_anew(
    measured: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    CHOICE.time(CPU)
    Choice("another choice", "usual", two_ways).time(CPU)
    assert len(measured) == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    CHOICE.time(CPU)
    assert len(measured) == 3
    monkeypatch.setattr(torch, "__version__", "99.0")
    CHOICE.time(CPU)
    assert len(measured) == 4
    monkeypatch.undo()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": {"b": null}}', b"\x00"])
def test_a_damaged_file_is_measured_anew(
    measured: list[torch.device], store: Path, content: bytes
) -> None:
    store.parent.mkdir(parents=True)
    store.write_bytes(content)
    assert CHOICE.time(CPU).seconds["other"] == 0.01
    assert len(json.loads(store.read_bytes())) == 1


def test_where_nothing_can_be_kept_it_is_measured_by_each_process(
    measured: list[torch.device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert CHOICE.time(CPU) == CHOICE.time(CPU)
    assert len(measured) == 1


# Layouts


@pytest.mark.parametrize("precision", Precision)
def test_both_layouts_are_timed(store: Path, precision: Precision) -> None:
    timed = time_layouts(CPU, precision)
    assert timed is not None
    assert set(timed.seconds) == {"channels-last", "channels-first"}
    assert all(0 < seconds < 10 for seconds in timed.seconds.values())
    assert pick_layout(CPU, precision) is layouts._LAYOUTS[timed.fastest]


@pytest.mark.parametrize(
    ("first", "layout"), [(0.9, torch.contiguous_format), (0.98, torch.channels_last)]
)
def test_the_layout_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, first: float, layout: torch.memory_format
) -> None:
    timed = Timed({"channels-last": 1.0, "channels-first": first}, "channels-last")
    monkeypatch.setattr(layouts, "time_layouts", lambda *_: timed)
    assert pick_layout(CPU, Precision.FLOAT32) is layout


def test_other_devices_have_their_channels_first() -> None:
    assert pick_layout(torch.device("mps"), Precision.FLOAT32) is torch.contiguous_format


# Threads


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch, store: Path) -> Iterator[None]:
    """PyTorch sees more cores than it may use, and nobody has chosen."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_usual", 8)
    monkeypatch.setattr(threads, "_numbers", lambda: [1, 4, 8])
    monkeypatch.setattr(threads, "_THREADS", Choice("threads", "8", threads._works))
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def fastest(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    seconds = {str(count): 0.1 if str(count) == number else 1.0 for count in (1, 4, 8)}
    monkeypatch.setattr(
        timings,
        "measure",
        lambda works, device: seconds if "8" in works else measure(works, device),
    )


def test_as_many_threads_as_are_fastest(
    monkeypatch: pytest.MonkeyPatch, many_threads: None
) -> None:
    fastest(monkeypatch, "4")
    assert pick_device("cpu") == CPU
    assert torch.get_num_threads() == 4
    # What was measured is found again, by the usual number of threads.
    found = every_timing(CPU)["threads"]
    assert found is not None
    assert found.fastest == "4"
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_choice_by_the_environment_stays(
    monkeypatch: pytest.MonkeyPatch, many_threads: None, name: str
) -> None:
    fastest(monkeypatch, "4")
    monkeypatch.setenv(name, "8")
    pick_device("cpu")
    assert torch.get_num_threads() == 8
    assert timing_facts(CPU)["threads_seconds"] is None


def test_a_choice_by_the_program_stays(monkeypatch: pytest.MonkeyPatch, many_threads: None) -> None:
    fastest(monkeypatch, "4")
    torch.set_num_threads(3)
    pick_device("cpu")
    assert torch.get_num_threads() == 3


def test_every_number_of_threads_is_timed(many_threads: None) -> None:
    timed = threads.time_threads()
    assert timed is not None
    assert set(timed.seconds) == {"1", "4", "8"}
    assert torch.get_num_threads() == 8


def test_numbers_are_those_of_pytorch_and_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    monkeypatch.setattr(threads, "_usual", 64)
    threads._numbers.cache_clear()
    assert threads._numbers() == [3, 32, 64]
    threads._numbers.cache_clear()


def test_a_record_says_what_was_measured(store: Path) -> None:
    facts = timing_facts(CPU)
    assert list(facts) == ["threads_seconds", "arithmetic_seconds", "layout_seconds"]
    assert set(facts["layout_seconds"]) == {"channels-last", "channels-first"}
    elsewhere = timing_facts(torch.device("cuda"))
    assert torch.cuda.is_available() or set(elsewhere.values()) == {None}

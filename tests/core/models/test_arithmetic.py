"""Which arithmetic a machine is faster in: measured, kept, and asked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import UsageError
from emcache.models import arithmetic
from emcache.models.arithmetic import (
    Precision,
    Timing,
    known_timing,
    measure,
    measure_again,
    pick_precision,
)
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

CPU = torch.device("cpu")
FASTER = Timing(0.03, 0.01)
SLOWER = Timing(0.01, 0.03)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[torch.device]:
    """A device with bfloat16 of its own that nobody has measured; every measurement is noted."""
    calls: list[torch.device] = []

    def count(device: torch.device) -> Timing:
        calls.append(device)
        return Timing(0.03, 0.01 * len(calls))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(arithmetic, "measure", count)
    arithmetic._kept_timing.cache_clear()
    yield calls
    arithmetic._kept_timing.cache_clear()


def test_bfloat16_must_be_clearly_faster() -> None:
    assert Timing(1.0, 0.9).faster is Precision.BFLOAT16
    assert Timing(1.0, 0.98).faster is Precision.FLOAT32
    assert SLOWER.faster is Precision.FLOAT32


def test_a_measurement_takes_both_and_little_time() -> None:
    timing = measure(CPU)
    assert 0 < timing.float32 < 1
    assert 0 < timing.bfloat16 < 10


def test_a_machine_is_measured_once(measured: list[torch.device], tmp_path: Path) -> None:
    first = known_timing(CPU)
    # As in another process.
    arithmetic._kept_timing.cache_clear()
    assert known_timing(CPU) == first
    assert len(measured) == 1
    assert pick_precision("auto", CPU) is Precision.BFLOAT16
    kept = json.loads((tmp_path / "cache" / "emcache" / "arithmetic.json").read_bytes())
    assert list(kept.values()) == [[0.03, 0.01]]


def test_it_is_measured_again_when_it_is_asked_for(
    measured: list[torch.device], tmp_path: Path
) -> None:
    known_timing(CPU)
    path = tmp_path / "cache" / "emcache" / "arithmetic.json"
    kept = json.loads(path.read_bytes())
    # A home folder may be that of many machines.
    path.write_text(json.dumps({**kept, "another": [1.0, 2.0]}))
    assert measure_again(CPU) == Timing(0.03, 0.02)
    assert known_timing(CPU) == Timing(0.03, 0.02)
    assert len(measured) == 2
    assert json.loads(path.read_bytes())["another"] == [1.0, 2.0]


def test_another_version_of_pytorch_is_measured_anew(
    measured: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = known_timing(CPU)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert known_timing(CPU) != first
    monkeypatch.undo()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\x00"])
def test_a_damaged_file_is_measured_anew(
    measured: list[torch.device], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "cache" / "emcache" / "arithmetic.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert known_timing(CPU) == Timing(0.03, 0.01)
    assert len(json.loads(path.read_bytes())) == 1


def test_where_nothing_can_be_kept_it_is_measured_by_each_process(
    measured: list[torch.device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert known_timing(CPU) == known_timing(CPU) == Timing(0.03, 0.01)
    assert len(measured) == 1


def test_without_bfloat16_nothing_is_measured(
    measured: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda device: False)
    assert known_timing(CPU) is None
    assert pick_precision("auto", CPU) is Precision.FLOAT32
    assert not measured


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown precision 'half'; expected auto, float32"):
        pick_precision("half", CPU)


def job(workspace: Workspace, listener: Quiet, precision: str = "auto") -> Job:
    options = ExtractOptions("tiny", "random:0", 56, precision=precision, device="cpu")
    return plan_extraction(workspace, Selection("cells", None), options, listener)


@pytest.mark.parametrize("whole", [True, False], ids=["finished", "unfinished"])
def test_tokens_of_a_machine_that_is_faster_in_the_other_are_used_as_they_are(
    cells: Workspace, listener: Quiet, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr("emcache.models.arithmetic.known_timing", lambda device: FASTER)
    made = job(cells, listener)
    assert made.recipe.precision == "bfloat16"
    run_extraction(made, Quiet())
    if not whole:
        folder = cells.cache / made.name
        folder.rename(folder.with_name(f"{made.name}.partial"))
    monkeypatch.setattr("emcache.models.arithmetic.known_timing", lambda device: SLOWER)
    assert job(cells, listener).fingerprint == made.fingerprint
    assert (
        f"{made.name} was computed in bfloat16 and is used as it is; this machine is faster in "
        f"float32, and --precision float32 makes such tokens." in listener.lines
    )
    listener.lines.clear()
    # Whoever asks for one gets it, and then there are both: each machine finds its own.
    asked = job(cells, listener, "float32")
    assert asked.fingerprint != made.fingerprint
    run_extraction(asked, Quiet())
    assert job(cells, listener).fingerprint == asked.fingerprint
    assert not listener.lines
    assert replace(asked.recipe, precision="bfloat16") == made.recipe

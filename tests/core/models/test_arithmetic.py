"""Which arithmetic is computed in."""

from dataclasses import replace

import pytest
import torch

from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import UsageError
from emcache.models import arithmetic
from emcache.models.arithmetic import Precision, pick_precision, time_precisions
from emcache.models.timings import Timed
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

CPU = torch.device("cpu")
FASTER = Timed({"float32": 0.03, "bfloat16": 0.01}, "float32")
SLOWER = Timed({"float32": 0.01, "bfloat16": 0.03}, "float32")


def test_the_arithmetic_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "time_precisions", lambda device: FASTER)
    assert pick_precision("auto", CPU) is Precision.BFLOAT16
    assert pick_precision("float32", CPU) is Precision.FLOAT32
    monkeypatch.setattr(arithmetic, "time_precisions", lambda device: SLOWER)
    assert pick_precision("auto", CPU) is Precision.FLOAT32


def test_without_bfloat16_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda device: False)
    monkeypatch.setattr(arithmetic, "products", None)
    assert time_precisions(CPU) is None
    assert pick_precision("auto", CPU) is Precision.FLOAT32


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
    monkeypatch.setattr("emcache.models.arithmetic.time_precisions", lambda device: FASTER)
    made = job(cells, listener)
    assert made.recipe.precision == "bfloat16"
    run_extraction(made, Quiet())
    if not whole:
        folder = cells.cache / made.name
        folder.rename(folder.with_name(f"{made.name}.partial"))
    monkeypatch.setattr("emcache.models.arithmetic.time_precisions", lambda device: SLOWER)
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

"""Penalties on hidden tokens: what they come to, and what they do to a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from emcache_bench.synthetic import STYLES, write_domain

from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.errors import UsageError
from emcache.evaluation.trained_run import find_run
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.penalties import Discrepancy, DomainClassifier
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train
from emcache.training.sampling import Sampling


def tokens(seed: int, shift: float, count: int = 40) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def test_mmd_is_the_mean_of_kernels() -> None:
    one, other = tokens(0, 0.0), tokens(1, 1.0, 30)
    both = torch.cat([one, other])
    datasets = torch.tensor([0] * 40 + [1] * 30)
    found = float(Discrepancy(1.0, int).of(both, datasets))
    x = both.double().numpy()
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    median = np.quantile(squared, 0.5, method="lower")
    kernel = np.mean([np.exp(-squared / (b * median)) for b in (0.25, 0.5, 1, 2, 4)], axis=0)
    expected = kernel[:40, :40].mean() + kernel[40:, 40:].mean() - 2 * kernel[:40, 40:].mean()
    assert found == pytest.approx(expected, rel=1e-3)
    assert float(Discrepancy(1.0, int).of(one, datasets[:40])) == 0
    assert float(Discrepancy(1.0, int).of(torch.cat([one, one]), datasets[:1].repeat(80))) == 0


def test_the_head_gets_the_gradient_with_its_sign_reversed() -> None:
    penalty = DomainClassifier(1.0, int, 6, 2)
    given = torch.cat([tokens(0, 0.0), tokens(1, 1.0)]).requires_grad_()
    datasets = torch.tensor([0] * 40 + [1] * 40)
    penalty.of(given, datasets).backward()
    plain = given.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(penalty.layers(plain), datasets)
    (gradient,) = torch.autograd.grad(loss, plain, retain_graph=True)
    torch.testing.assert_close(given.grad, -gradient)
    own = torch.autograd.grad(loss, list(penalty.parameters()))
    for parameter, expected in zip(penalty.parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_a_step_weighs_the_penalty_and_tells_datasets_by_position() -> None:
    penalty = Discrepancy(0.5, lambda position: position // 10)
    maps = torch.randn(2, 6, 4, 4)
    there = penalty([((3, 12), maps)])
    flat = maps.flatten(2).transpose(1, 2).reshape(-1, 6)
    owners = torch.tensor([0] * 16 + [1] * 16)
    torch.testing.assert_close(there, 0.5 * penalty.of(flat, owners))
    # The same in two batches, as slices of two sizes are.
    torch.testing.assert_close(penalty([((3,), maps[:1]), ((12,), maps[1:])]), there)
    assert float(penalty([((3, 4), maps)])) == 0


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=120, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    return cells


def trained(
    workspace: Workspace,
    *names: str,
    regime: str = "frozen",
    sampling: Sampling = Sampling.BALANCED,
    **changes: object,
) -> Record:
    protocol = Protocol(learning_rate=0.002, max_epochs=4).with_changes(changes)
    request = TrainingRequest(
        datasets=names,
        regime=regime,
        features=FeatureRequest("tiny", "random:0", 70),
        protocol=protocol,
        sampling=sampling,
        precision="float32",
        device="cpu",
    )
    (record,) = train(workspace, request, Quiet())
    return record


def state(workspace: Workspace, record: Record) -> dict[str, torch.Tensor]:
    return find_run(workspace, record.id).load_head(torch.device("cpu")).state_dict()


@pytest.mark.parametrize(
    "penalty", ["mmd", pytest.param("gradient-reversal", marks=pytest.mark.slow)]
)
def test_a_penalty_changes_the_head_and_stands_on_the_record(two: Workspace, penalty: str) -> None:
    plain = trained(two, "cells", "other", max_epochs=1)
    record = trained(two, "cells", "other", penalty=penalty, penalty_weight=1.0, max_epochs=1)
    assert f"penalty={penalty}, penalty_weight=1.0" in record.config["protocol"]
    ours, theirs = state(two, record), state(two, plain)
    assert not torch.equal(ours["stem.0.weight"], theirs["stem.0.weight"])
    assert set(ours) == set(theirs)  # nothing of the classifier is kept
    nothing = trained(two, "cells", "other", penalty=penalty, penalty_weight=1e-30, max_epochs=1)
    torch.testing.assert_close(state(two, nothing)["stem.0.weight"], theirs["stem.0.weight"])


@pytest.mark.parametrize(
    "penalty", [pytest.param("mmd", marks=pytest.mark.slow), "gradient-reversal"]
)
def test_steps_may_draw_from_one_dataset_alone(two: Workspace, penalty: str) -> None:
    record = trained(
        two, "cells", "other", sampling=Sampling.NATURAL, penalty=penalty, batch=1, max_epochs=1
    )
    assert record.config["epochs_run"] >= 1


def test_adapters_are_trained_with_a_penalty(two: Workspace) -> None:
    record = trained(two, "cells", "other", regime="lora", penalty="mmd", max_epochs=1)
    assert record.config["regime"] == "lora"


# The one with weights of its own shows what the other would.
@pytest.mark.parametrize(
    "penalty", [pytest.param("mmd", marks=pytest.mark.slow), "gradient-reversal"]
)
def test_a_training_that_was_interrupted_goes_on_the_same(
    two: Workspace, monkeypatch: pytest.MonkeyPatch, penalty: str
) -> None:
    changes = {"penalty": penalty, "penalty_weight": 1.0, "max_epochs": 2}
    whole = trained(two, "cells", "other", **changes)
    import emcache.training.trainer as trainer

    real, passed = trainer.validate, []

    def interrupted(*given):
        passed.append(None)
        if len(passed) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(trainer, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(two, "cells", "other", **changes)
    monkeypatch.setattr(trainer, "validate", real)
    again = trained(two, "cells", "other", **changes)
    ours, theirs = state(two, whole), state(two, again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_penalties_that_would_do_nothing(two: Workspace) -> None:
    with pytest.raises(UsageError, match="makes several datasets alike, and cells is one"):
        trained(two, "cells", penalty="mmd")
    with pytest.raises(UsageError, match="a linear head has no hidden tokens"):
        trained(two, "cells", "other", penalty="mmd", head="linear")
    with pytest.raises(UsageError, match="penalty cannot be 'mdm'"):
        Protocol().with_changes({"penalty": "mdm"})

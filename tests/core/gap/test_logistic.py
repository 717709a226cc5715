import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from emcache.gap.logistic import fit_many


@pytest.mark.parametrize(
    ("vectors", "axes", "apart"),
    [(30, 4, 0.0), (30, 4, 1.0), (40, 39, 0.5), (25, 60, 8.0), (200, 12, 0.2)],
    ids=["nothing to find", "something", "as many axes", "far apart", "many"],
)
def test_each_is_scikit_learns(vectors: int, axes: int, apart: float) -> None:
    """At its own tightest tolerance, with weights of classes and vectors left out."""
    rng = np.random.default_rng(vectors + axes)
    data = rng.standard_normal((vectors, axes)) * np.linspace(3, 0.01, axes)
    labels = rng.integers(0, 2, (vectors, 7)).astype(float)
    data[:, 0] += apart * labels[:, 0]
    weights = rng.uniform(0.2, 2, labels.shape) * (rng.random(labels.shape) < 0.8)
    ridge = 10.0 ** rng.uniform(-2, 1, 7)
    decisions = fit_many(data, labels, weights, ridge)
    for model in range(7):
        # Their penalty is half the squared length divided by C.
        expected = LogisticRegression(C=1 / ridge[model], solver="newton-cholesky", tol=1e-12)
        expected.fit(data, labels[:, model], weights[:, model])
        wanted = expected.decision_function(data)
        error = np.abs(decisions[:, model] - wanted).max()
        assert error < 1e-4 * max(1, np.abs(wanted).max())


def test_models_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20, 5))
    labels = rng.integers(0, 2, (20, 3)).astype(float)
    together = fit_many(data, labels, np.ones((20, 3)), np.ones(3))
    for model in range(3):
        one = slice(model, model + 1)
        alone = fit_many(data, labels[:, one], np.ones((20, 1)), np.ones(1))
        np.testing.assert_allclose(together[:, one], alone, atol=1e-5)


def test_vectors_that_are_all_the_same_say_nothing() -> None:
    labels = np.array([[0.0], [1.0], [1.0], [0.0]])
    decision = fit_many(np.zeros((4, 2)), labels, np.ones((4, 1)), np.ones(1))
    np.testing.assert_allclose(decision, 0, atol=1e-9)


@pytest.mark.parametrize("seed", [5, 15, 18])
def test_a_step_that_goes_too_far_is_halved(seed: int) -> None:
    """A few vectors a hundred times as far as the rest, where plain Newton diverges."""
    rng = np.random.default_rng(seed)
    vectors, axes = rng.integers(4, 12), rng.integers(1, 4)
    data = rng.standard_normal((vectors, axes)) * rng.choice([1, 30, 100], size=(vectors, 1))
    labels = rng.integers(0, 2, (vectors, 1)).astype(float)
    weights = rng.choice([0.01, 1, 100], size=(vectors, 1)).astype(float)
    ridge = np.array([10.0 ** rng.integers(-6, 0)])
    decision = fit_many(data, labels, weights, ridge)[:, 0]
    expected = LogisticRegression(C=1 / ridge[0], solver="newton-cholesky", tol=1e-12)
    expected.fit(data, labels[:, 0], weights[:, 0])
    np.testing.assert_allclose(decision, expected.decision_function(data), rtol=1e-3, atol=1e-3)

"""Many logistic regressions on the same vectors at once.

A probe asks for a thousand of them that differ in labels and held-out slices alone. One by one,
what surrounds each solver takes far longer than its arithmetic; together they are a few matrix
products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

_MOST_STEPS = 100
_MOST_INNER = 200
_TOLERANCE = 1e-9
_LEAST_STEP = 1e-8
_SUFFICIENT = 1e-4


def fit_many(
    data: Float64[np.ndarray, "vector axis"],
    labels: Float64[np.ndarray, "vector model"],
    weights: Float64[np.ndarray, "vector model"],
    ridge: Float64[np.ndarray, " model"],
) -> Float64[np.ndarray, "vector model"]:
    """Decision values of L2-penalised logistic regressions, by Newton's method.

    Each minimises the weighted sum of log losses and half its ridge times the squared length of its
    coefficients; the intercept is free. Newton's equations are solved by conjugate gradients
    (Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.1).

    Args:
        data: In axes that are about uncorrelated, as principal ones: they make the preconditioner.
        labels: 0 or 1.
        weights: Of each vector in each model; 0 leaves it out.
        ridge: Above 0.

    Returns:
        For every vector, those left out included; above 0 is label 1.
    """
    # A column of ones is the intercept, which is not penalised.
    design = np.column_stack([data, np.ones(len(data))])
    penalty = np.concatenate([np.tile(ridge, (data.shape[1], 1)), np.zeros((1, len(ridge)))])
    whole = _Problems(design, labels, weights, penalty)
    found = np.zeros(penalty.shape)
    at_start = _length(whole.gradient(found))
    active = np.flatnonzero(at_start > 0)
    for _ in range(_MOST_STEPS):
        if not len(active):
            break
        some, now = whole.some(active), found[:, active]
        gradient = some.gradient(now)
        step = _newton_step(some, now, gradient)
        found[:, active], moved = _search(some, now, step, gradient)
        active = active[(_length(gradient) > _TOLERANCE * at_start[active]) & moved]
    decision: Float64[np.ndarray, "vector model"] = design @ found
    return decision


_OfVectors = Float64[np.ndarray, "vector model"]
_Coefficients = Float64[np.ndarray, "coefficient model"]
_OfModels = Float64[np.ndarray, " model"]


@dataclass(frozen=True, slots=True)
class _Problems:
    """Regressions on the same vectors, a column each."""

    design: Float64[np.ndarray, "vector coefficient"]
    labels: _OfVectors
    weights: _OfVectors
    penalty: _Coefficients

    def some(self, which: Int64[np.ndarray, " some"]) -> _Problems:
        """Those of these numbers."""
        own = (values[:, which] for values in (self.labels, self.weights, self.penalty))
        return _Problems(self.design, *own)

    def gradient(self, found: _Coefficients) -> _Coefficients:
        """Of the loss, by the coefficients."""
        residual = self.weights * (_sigmoid(self.design @ found) - self.labels)
        gradient: _Coefficients = self.design.T @ residual + self.penalty * found
        return gradient

    def loss(self, decision: _OfVectors, found: _Coefficients) -> _OfModels:
        """Of coefficients, whose decision values are known."""
        losses = self.weights * (np.logaddexp(0, decision) - self.labels * decision)
        total: _OfModels = losses.sum(axis=0) + 0.5 * (self.penalty * found**2).sum(axis=0)
        return total


def _length(columns: Float64[np.ndarray, "row model"]) -> _OfModels:
    length: _OfModels = np.sqrt((columns**2).sum(axis=0))
    return length


def _sigmoid(values: _OfVectors) -> _OfVectors:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _newton_step(
    problems: _Problems, found: _Coefficients, gradient: _Coefficients
) -> _Coefficients:
    """Solve Newton's equations, each model's to a tolerance that falls with its gradient."""
    design, penalty = problems.design, problems.penalty
    share = _sigmoid(design @ found)
    curvature = problems.weights * share * (1 - share)
    diagonal = np.maximum((design**2).T @ curvature + penalty, np.finfo(float).tiny)
    step, residual = np.zeros_like(gradient), -gradient
    goal = np.minimum(0.1, np.sqrt(_length(gradient))) * _length(gradient)
    direction = residual / diagonal
    product = (residual * direction).sum(axis=0)
    for _ in range(_MOST_INNER):
        image = design.T @ (curvature * (design @ direction)) + penalty * direction
        bend = (direction * image).sum(axis=0)
        unsolved = (_length(residual) > goal) & (bend > 0)
        if not unsolved.any():
            break
        far = np.where(unsolved, product / np.where(unsolved, bend, 1), 0)
        step, residual = step + far * direction, residual - far * image
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum(axis=0)
        ratio = np.where(unsolved, product / np.where(before > 0, before, 1), 0)
        direction = scaled + ratio * direction
    return step


def _search(
    problems: _Problems, found: _Coefficients, step: _Coefficients, gradient: _Coefficients
) -> tuple[_Coefficients, Bool[np.ndarray, " model"]]:
    """Halve each model's step until its loss falls enough; where it went, and whether it moved."""
    decision, towards = problems.design @ found, problems.design @ step
    before = problems.loss(decision, found)
    slope = (gradient * step).sum(axis=0)
    # Rounding of the loss itself must not look like a rise.
    slack = 1e-12 * np.abs(before)
    size = np.ones(found.shape[1])
    while True:
        after = problems.loss(decision + size * towards, found + size * step)
        high = (after > before + _SUFFICIENT * size * slope + slack) & (size > _LEAST_STEP)
        if not high.any():
            break
        size = np.where(high, size / 2, size)
    return found + size * step, size > _LEAST_STEP

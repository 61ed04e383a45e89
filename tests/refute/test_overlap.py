"""Balance, propensity shares and effective rows are what their formulas say, whatever the units and the block of rows."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.analyses.refute import overlap
from millrace.run.errors import WrongQuestion


def world(n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(1e6, 3, n), rng.random(n) < 0.3, rng.exponential(2, n)])
    score = 0.3 * (x[:, 0] - 1e6) / 3 + 0.8 * x[:, 1] - 0.2
    propensity = 1 / (1 + np.exp(-score))
    return x, (rng.random(n) < propensity).astype(float), propensity


def test_differences_are_the_plain_formula():
    x, t, _ = world()
    treated, others = x[t == 1], x[t == 0]
    wanted = (treated.mean(0) - others.mean(0)) / np.sqrt((treated.var(0) + others.var(0)) / 2)
    assert overlap.smd(x, t) == pytest.approx(wanted, rel=1e-6)
    share = treated[:, 1].mean(), others[:, 1].mean()
    binary = (share[0] - share[1]) / np.sqrt((share[0] * (1 - share[0]) + share[1] * (1 - share[1])) / 2)
    assert overlap.smd(x, t)[1] == pytest.approx(binary, rel=1e-9)


def test_right_weights_bring_balance_and_cost_effective_rows():
    x, t, propensity = world()
    weights = t / propensity + (1 - t) / (1 - propensity)
    found = overlap.measure(x, t, ["a", "b", "c"], propensity=propensity, weights=weights)
    assert np.abs(found.before[:2]).min() > 0.2 and np.abs(found.after).max() < 0.05
    w = weights[t == 1]
    assert found.ess[0] == pytest.approx(w.sum() ** 2 / (w @ w)) and found.ess_share < 1
    assert found.outside == np.mean((propensity < 0.05) | (propensity > 0.95))
    assert found.histogram is not None and found.histogram.sum(axis=1) == pytest.approx([1, 1])
    assert found.rows == (int(t.sum()), int((1 - t).sum()))


def test_both_sides_of_an_adjustment_have_one_scale():
    """A weight that shrinks an arm's spread must not blow up its difference."""
    x, t, _ = world()
    weights = np.exp(-((x[:, 0] - 1e6) ** 2))
    plain = np.sqrt((x[t == 1].var(0) + x[t == 0].var(0)) / 2)
    apart = np.average(x[t == 1], axis=0, weights=weights[t == 1]) - np.average(
        x[t == 0], axis=0, weights=weights[t == 0]
    )
    assert overlap.smd(x, t, weights) == pytest.approx(apart / plain, rel=1e-5)


def test_repeated_rows_are_weights():
    x, t, _ = world(500)
    times = np.random.default_rng(1).integers(0, 4, 500)
    again = np.repeat(np.arange(500), times)
    base = times.astype(float)
    assert overlap.smd(x, t, base=base) == pytest.approx(overlap.smd(x[again], t[again]), rel=1e-6)
    assert overlap.correlation(x, x[:, 2], base) == pytest.approx(overlap.correlation(x[again], x[again, 2]), rel=1e-6)


def test_units_and_places_of_a_confounder_do_not_matter():
    x, t, _ = world(3_000)
    other = x * [1e3, 1, 1e-4] + [5, 0, 7]
    assert overlap.smd(other, t) == pytest.approx(overlap.smd(x, t), rel=1e-6)


def test_a_continuous_treatment_has_correlations():
    x, _, _ = world()
    t = 0.5 * (x[:, 0] - 1e6) + np.random.default_rng(2).normal(size=len(x))
    found = overlap.measure(x, t, ["a", "b", "c"], binary=False)
    assert found.kind == "correlation" and found.outside is None and found.histogram is None
    assert found.before == pytest.approx([np.corrcoef(x[:, j], t)[0, 1] for j in range(3)], rel=1e-6)
    assert overlap.correlation(np.ones((50, 1)), np.arange(50.0))[0] == 0


def test_a_column_that_does_not_vary_is_balanced_or_cannot_be():
    t = np.repeat([1.0, 0.0], 50)
    x = np.column_stack([np.full(100, 0.1), t])
    assert overlap.smd(x, t).tolist() == [0.0, np.inf]


@pytest.mark.parametrize(
    "wrong",
    [{"names": ["a"]}, {"weights": np.full(100, -1.0)}, {"propensity": np.full(100, np.nan)}, {"weights": np.ones(3)},
     {"weights": np.repeat([1.0, 0.0], 50)}],
)  # fmt: skip
def test_wrong_input_is_an_error(wrong):
    t = np.repeat([1.0, 0.0], 50)
    with pytest.raises(WrongQuestion):
        overlap.measure(np.random.default_rng(0).normal(size=(100, 2)), t, **{"names": ["a", "b"], **wrong})

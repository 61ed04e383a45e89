"""The wild cluster bootstrap is what refitting made-up outcomes gives, and holds its level where cluster-robust errors do not."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from millrace.analyses.refute.kernels import wild as kernel
from millrace.analyses.refute.kernels.wild import wild
from millrace.analyses.refute.study import Study
from millrace.run.errors import WrongQuestion


def study(seed: int, groups: int, *, weighted: bool = False, effect: float = 0.0, rows: int = 20) -> Study:
    """Treatment and errors that rows of a cluster share; clusters of unequal size, not in order."""
    rng = np.random.default_rng(seed)
    n = groups * rows
    codes = np.concatenate(
        [np.arange(groups), rng.choice(groups, n - groups, p=np.arange(1, groups + 1) / (groups * (groups + 1) / 2))]
    )
    codes = rng.permutation(codes)
    w = rng.normal(size=(n, 2)) + rng.normal(size=(groups, 2))[codes]
    t = (rng.normal(size=groups)[codes] + rng.normal(size=n) > 0).astype(float)
    y = effect * t + w[:, 0] + rng.normal(size=groups)[codes] * (1 + t) + rng.normal(size=n)
    weights = rng.uniform(0.5, 2, n) if weighted else None
    return Study(t, y, w, None if weights is None else weights / weights.mean(), codes.astype(np.int64))


def fitted(its: Study, y: np.ndarray) -> tuple[float, float]:
    x = sm.add_constant(np.column_stack([its.treatment, its.confounders]))
    weights = np.ones(its.rows) if its.weights is None else its.weights
    fit = sm.WLS(y, x, weights=weights).fit(cov_type="cluster", cov_kwds={"groups": its.clusters})
    return float(fit.params[1]), float(fit.bse[1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("null", [0.0, 0.7])
def test_p_is_that_of_refitting_outcomes_made_under_the_hypothesis(weighted: bool, null: float) -> None:
    its = study(3, 15, weighted=weighted, effect=0.5)
    effect, se = fitted(its, its.outcome)
    draws, _ = kernel.drawn(15, 40, 1)
    weights = np.ones(its.rows) if its.weights is None else its.weights
    z = sm.add_constant(its.confounders)
    restricted = sm.WLS(its.outcome - null * its.treatment, z, weights=weights).fit()
    made = null * its.treatment + restricted.fittedvalues + draws[:, its.clusters] * restricted.resid
    pairs = np.array([fitted(its, y) for y in made])
    t = np.abs(pairs[:, 0] - null) / pairs[:, 1]
    wanted = (1 + (t >= abs(effect - null) / se).sum()) / 41
    assert kernel.p_value(kernel.gather(its), draws, effect, se, null) == pytest.approx(wanted)
    found = wild(its, simulations=40, seed=1)
    assert (found.effect, found.se) == pytest.approx((effect, se), rel=1e-9)


def test_the_interval_holds_what_is_not_rejected() -> None:
    its = study(5, 14, effect=0.5)
    found = wild(its, simulations=399)
    gathered, (draws, _) = kernel.gather(its), kernel.drawn(14, 399, 0)
    width = found.high - found.low
    for null, inside in ((found.low + 1e-3 * width, True), (found.low - 1e-3 * width, False),
                         (found.high - 1e-3 * width, True), (found.high + 1e-3 * width, False)):  # fmt: skip
        assert (kernel.p_value(gathered, draws, found.effect, found.se, null) > 0.05) == inside
    assert found.low < found.effect < found.high


def test_few_clusters_try_all_signs_or_draw_webbs_six_values() -> None:
    assert kernel.drawn(6, 999, 0)[0].shape == (63, 6)
    webb, how = kernel.drawn(11, 999, 0)
    assert how == "Webb's six" and len(np.unique(webb)) == 6
    assert abs(webb.mean()) < 0.05 and abs(webb.var() - 1) < 0.05
    assert kernel.drawn(40, 999, 0)[1] == "signs"
    more = kernel.drawn(40, 1999, 0)[0]
    assert np.array_equal(more[:999], kernel.drawn(40, 999, 0)[0])


def test_its_level_holds_with_ten_clusters_where_robust_errors_do_not() -> None:
    from scipy import special

    worlds, wrong, robust = 300, 0, 0
    for seed in range(worlds):
        found = wild(study(seed, 10, rows=12), simulations=199)
        wrong += found.p <= 0.05
        robust += 2 * special.ndtr(-abs(found.effect / found.se)) <= 0.05
    assert wrong / worlds < 0.10
    assert robust / worlds > 1.5 * max(wrong, 1) / worlds


def test_what_it_cannot_do_is_said() -> None:
    its = study(0, 10)
    with pytest.raises(WrongQuestion, match="needs clusters"):
        wild(Study(its.treatment, its.outcome, its.confounders))
    with pytest.raises(WrongQuestion, match="3 clusters are too few"):
        wild(Study(its.treatment, its.outcome, its.confounders, clusters=its.clusters % 3))

"""Sensitivity figures are the published ones, and what they promise holds on data that can be refitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import rosenbaum
from millrace.analyses.refute import sensitivity as s
from millrace.run.errors import WrongQuestion

# Cinelli and Hazlett (2020), table 1: exposure to violence and attitudes to peace, Darfur.
EFFECT, SE, DF = 0.09731582, 0.02325654, 783
FEMALE = (0.009082, 0.109030)
# Morton et al. (1982): blood lead of 33 children of exposed workers and of their controls; bounds in Rosenbaum (2002), table 4.1.
EXPOSED = [38, 23, 41, 18, 37, 36, 23, 62, 31, 34, 24, 14, 21, 17, 16, 20, 15, 10, 45, 39, 22, 35, 49, 48, 44, 35, 43, 39, 34, 13,
           73, 25, 27]  # fmt: skip
CONTROL = [16, 18, 18, 24, 19, 11, 10, 15, 16, 18, 18, 13, 19, 10, 16, 16, 24, 13, 9, 14, 21, 19, 7, 18, 19, 12, 11, 22, 25, 16,
           13, 11, 13]  # fmt: skip


def least_squares(columns: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Coefficients (the constant first), their classical errors, degrees of freedom."""
    x = np.column_stack([np.ones(len(y)), columns])
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ (x.T @ y)
    df = len(y) - x.shape[1]
    return b, np.sqrt(np.diag(inverse) * ((y - x @ b) ** 2).sum() / df), df


def world(seed: int, n: int = 400, p: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, p)) @ (np.eye(p) + 0.4 * rng.normal(size=(p, p))) + 7
    t = w @ rng.normal(size=p) * 0.4 + rng.normal(size=n)
    return w, t, 0.6 * t + w @ rng.normal(size=p) * 0.5 + rng.normal(size=n)


# -- published -----------------------------------------------------------------------------------------------------
def test_darfur_is_as_published():
    t = EFFECT / SE
    assert s.partial_r2(t, DF) == pytest.approx(0.0219, abs=5e-5)
    assert s.robustness_value(t, DF) == pytest.approx(0.1388, abs=5e-5)
    assert s.robustness_value(t, DF, alpha=0.05) == pytest.approx(0.0763, abs=5e-5)


@pytest.mark.parametrize(
    ("k", "bounds", "estimate", "se", "t", "interval"),
    [
        (1, (0.0092, 0.1246), 0.0752, 0.0219, 3.4389, (0.0323, 0.1182)),
        (2, (0.0183, 0.2493), 0.0529, 0.0204, 2.6002, (0.0130, 0.0929)),
        (3, (0.0275, 0.3741), 0.0304, 0.0187, 1.6281, (-0.0063, 0.0670)),
    ],
)
def test_a_confounder_k_times_as_strong_as_female_does_what_was_published(k, bounds, estimate, se, t, interval):
    found = s.benchmark("female", FEMALE, EFFECT, SE, DF, k)
    assert (found.bound_treatment, found.bound_outcome) == pytest.approx(bounds, abs=1e-4)
    assert (found.estimate, found.se) == pytest.approx((estimate, se), abs=6e-5)
    assert found.t == pytest.approx(t, abs=2e-3)
    assert (found.low, found.high) == pytest.approx(interval, abs=6e-5)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "point", "limit"),
    [
        (3.9, 1.8, 8.7, 7.26, 3.0),
        (0.5, 0.3, 0.8, 3.41, 1.81),
        (0.8, 0.71, 0.91, 1.81, 1.43),
        (1.2, 0.9, 1.6, 1.69, 1.0),
    ],
)
def test_e_values_are_as_published(ratio, low, high, point, limit):
    found = s.e_value(ratio, low, high)
    assert (found.point, found.limit) == pytest.approx((point, limit), abs=5e-3)


def test_e_values_of_differences_and_odds_go_through_the_risk_ratio():
    found = s.e_value_of_effect(-0.42 * 3, 0.14 * 3, 3.0)
    assert found.ratio == pytest.approx(np.exp(0.91 * -0.42)) and found.high == pytest.approx(np.exp(-0.3822 + 0.2492))
    assert found.point == pytest.approx(2.2915, abs=1e-4) and found.limit == pytest.approx(1.5453, abs=1e-4)
    assert s.e_value_of_odds(1.8, 1.2, 2.6, rare=True).point == pytest.approx(3.0)
    assert s.e_value_of_odds(4.0).point == pytest.approx(2 + np.sqrt(2))
    with pytest.raises(WrongQuestion):
        s.e_value(-1.0)
    with pytest.raises(WrongQuestion):
        s.e_value_of_effect(1.0, 0.1, 0.0)


def test_rosenbaums_bounds_of_blood_lead_are_as_published():
    differences = np.array(EXPOSED, float) - CONTROL
    found = rosenbaum.bounds(differences, gammas=np.array([1, 2, 3, 4, 4.25, 5]))
    assert found.statistic == 527 and not found.exact and found.direction == "above 0"
    assert (
        found.p_high[1:] == pytest.approx([0.0018, 0.0136, 0.0388, 0.0468, 0.0740], abs=5e-5) and found.p_high[0] < 1e-4
    )
    assert 4.25 < found.gamma < 5


# -- what the figures promise --------------------------------------------------------------------------------------
def test_leaving_out_a_confounder_moves_the_estimate_by_the_bias_formula():
    """The identity behind all of it: hide a column, compute its two shares, and the formulas give back the full fit."""
    w, t, y = world(1)
    full, full_se, _ = least_squares(np.column_stack([t, w]), y)
    short, short_se, df = least_squares(np.column_stack([t, w[:, :-1]]), y)
    to_y, y_se, y_df = least_squares(np.column_stack([w[:, -1], t, w[:, :-1]]), y)
    to_t, t_se, t_df = least_squares(np.column_stack([w[:, -1], w[:, :-1]]), t)
    shares = s.partial_r2(to_t[1] / t_se[1], t_df), s.partial_r2(to_y[1] / y_se[1], y_df)
    assert abs(full[1] - short[1]) == pytest.approx(s.bias(short_se[1], df, *shares), rel=1e-9)
    assert full_se[1] == pytest.approx(s.adjusted_se(short_se[1], df, *shares), rel=1e-9)


@pytest.mark.parametrize("q", [1.0, 0.5])
@pytest.mark.parametrize(("t", "df"), [(4.18, 783), (2.5, 40), (1.2, 200), (60.0, 50), (900.0, 100)])
def test_robustness_values_are_where_the_estimate_and_its_interval_reach_the_point(t, df, q):
    rv = s.robustness_value(t, df, q)
    assert s.adjusted_estimate(t, 1.0, df, rv, rv) == pytest.approx((1 - q) * t, abs=1e-6 * t)
    rv_alpha = s.robustness_value(t, df, q, 0.05)
    assert 0 <= rv_alpha <= rv
    # The definition: the least share such that some confounder with both shares up to it is enough.
    grid = np.linspace(0, rv_alpha * (1 - 1e-6), 400)
    least = s.critical(df - 1) * s.adjusted_se(1.0, df, rv_alpha * (1 - 1e-6), grid)
    left = s.adjusted_estimate(t, 1.0, df, rv_alpha * (1 - 1e-6), grid) - (1 - q) * t
    assert rv_alpha == 0 or np.all(left > least)
    grid = np.linspace(0, min(1.0, rv_alpha * (1 + 1e-6)), 4001)
    share = min(rv_alpha * (1 + 1e-6), 1 - 1e-12)
    left = (
        s.adjusted_estimate(t, 1.0, df, share, grid)
        - (1 - q) * t
        - s.critical(df - 1) * s.adjusted_se(1.0, df, share, grid)
    )
    assert left.min() <= 1e-3 * t


@settings(deadline=None)
@given(st.floats(0.001, 0.95), st.floats(0.001, 0.95), st.floats(0.5, 40), st.integers(10, 100_000))
def test_strength_is_on_the_scale_of_the_robustness_value(a, b, t, df):
    left = float(s.adjusted_estimate(t, 1.0, df, a, b))
    gap = s.robustness_value(t, df) - s.strength(a, b)
    assert abs(gap) < 1e-9 or (gap > 0) == (left > 0)
    assert min(a, b) - 1e-12 <= s.strength(a, b) <= max(a, b) + 1e-12


def test_shares_of_all_confounders_come_from_the_gram_matrix():
    w, t, y = world(2, n=300, p=5)
    columns = np.column_stack([w, t, y]) - np.column_stack([w, t, y]).mean(axis=0)
    with_t, with_y = s.partial_r2_of_all(columns.T @ columns, 300)
    b, se, df = least_squares(w, t)
    assert with_t == pytest.approx(s.partial_r2(b[1:] / se[1:], df), rel=1e-9)
    b, se, df = least_squares(np.column_stack([w, t]), y)
    assert with_y == pytest.approx(s.partial_r2(b[1:6] / se[1:6], df), rel=1e-9)
    group = s.partial_r2_of_all(columns.T @ columns, 300, [[0, 3], [1], [2, 4]])[1][0]

    def rss(x: np.ndarray) -> float:
        x = np.column_stack([np.ones(len(y)), x])
        return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum())

    assert group == pytest.approx(
        1 - rss(np.column_stack([w, t])) / rss(np.column_stack([w[:, [1, 2, 4]], t])), rel=1e-9
    )


def test_columns_that_others_make_up_are_an_error_not_a_figure():
    w, t, y = world(3)
    columns = np.column_stack([w, w[:, 0] + w[:, 1], t, y])
    columns -= columns.mean(axis=0)
    with pytest.raises(WrongQuestion, match="collinear"):
        s.partial_r2_of_all(columns.T @ columns, len(y))
    with pytest.raises(WrongQuestion, match="does not vary"):
        s.partial_r2_of_all(np.diag([1.0, 0.0, 1.0, 1.0]), 50)
    with pytest.raises(WrongQuestion, match="too few"):
        s.partial_r2_of_all(np.eye(10), 5)


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_at_the_tipping_multiple_the_effect_is_gone(alpha):
    k = s.tipping_multiple(FEMALE, EFFECT, SE, DF, alpha)
    assert k is not None
    found = s.benchmark("female", FEMALE, EFFECT, SE, DF, k)
    assert (found.estimate if alpha is None else found.low) == pytest.approx(0, abs=1e-9)


def test_without_a_possible_confounder_there_is_no_multiple():
    assert s.tipping_multiple((0.0, 0.3), EFFECT, SE, DF) is None
    assert s.tipping_multiple(FEMALE, 0.01, SE, DF, 0.05) == 0.0
    assert np.isnan(s.benchmark("x", (0.6, 0.1), EFFECT, SE, DF, 3).estimate)
    strong = s.tipping_multiple((0.9, 0.9), EFFECT, SE, DF)
    assert strong is None or 0 < strong < 1


@pytest.mark.parametrize("t", [4.18, -4.18, 12.0])
def test_tipping_lines_lie_where_the_grid_changes_sign(t):
    lines = s.contours(t, 1.0, DF, most=(0.6, 0.6), size=41)
    to_zero = s.tipping_line(lines.r2_treatment, t, 1.0, DF)
    lost = s.tipping_line(lines.r2_treatment, t, 1.0, DF, alpha=0.05)
    toward = np.sign(t) * lines.estimate
    assert np.array_equal(
        toward <= 1e-12, lines.r2_outcome[:, None] >= np.where(np.isnan(to_zero), 9, to_zero)[None, :] - 1e-12
    )
    holds = (lines.low <= 0) & (lines.high >= 0)
    beyond = toward < 0
    enough = lines.r2_outcome[:, None] >= np.where(np.isnan(lost), 9, lost)[None, :] - 1e-12
    assert np.array_equal(holds | beyond, enough)


def test_the_tipping_curve_crosses_where_it_says():
    curve = s.tipping_curve(EFFECT, SE, DF)
    assert np.interp(curve.tips, curve.strength, curve.estimate) == pytest.approx(0, abs=1e-4)
    assert np.interp(curve.tips_alpha, curve.strength, curve.low) == pytest.approx(0, abs=1e-4)


def test_risk_ratios_on_the_tipping_curve_meet_at_the_e_value():
    e = s.e_value(3.9).point
    assert s.tipping_ratios(3.9, np.array([e]))[0] == pytest.approx(e)
    assert np.isnan(s.tipping_ratios(3.9, np.array([3.5]))[0])


# -- pairs ---------------------------------------------------------------------------------------------------------
def test_exact_bounds_are_the_sum_over_all_signs():
    differences = np.array([3.0, -1.0, 2.0, 2.0, 5.0, 0.0, 4.0, -2.0, 1.5])
    ranks = rosenbaum.midranks(np.abs(differences))[differences != 0]
    signs = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1
    statistic = float(ranks[differences[differences != 0] > 0].sum())
    for gamma in (1.0, 2.5):
        p = gamma / (1 + gamma)
        chance = p ** signs.sum(axis=1) * (1 - p) ** (len(ranks) - signs.sum(axis=1))
        wanted = chance[signs @ ranks >= statistic - 1e-9].sum()
        found = rosenbaum.bounds(differences, gammas=np.array([gamma]))
        assert found.exact and found.p_high[0] == pytest.approx(wanted, rel=1e-9)


def test_bounds_without_hidden_bias_are_wilcoxons_and_turn_with_the_sign():
    from scipy import stats

    d = np.random.default_rng(0).normal(0.5, 1, 80)
    found = rosenbaum.bounds(d, gammas=np.array([1.0, 2.0]))
    wanted = stats.wilcoxon(d, alternative="greater", method="asymptotic", correction=False).pvalue
    assert found.p_high[0] == pytest.approx(wanted, rel=1e-9) == found.p_low[0]
    turned = rosenbaum.bounds(-d, gammas=np.array([1.0, 2.0]))
    assert turned.gamma == found.gamma and turned.direction == "below 0"
    ranks = rosenbaum.midranks(np.abs(d))
    assert rosenbaum.normal_tail(ranks, found.statistic, found.gamma / (1 + found.gamma)) == pytest.approx(0.05)
    assert rosenbaum.bounds(np.array([1.0, -1.0, 1.0, -1.0])).gamma == 1.0
    with pytest.raises(WrongQuestion):
        rosenbaum.bounds(np.zeros(4))

"""Blocks are whole and alike in size, their estimates are HC3's, and Cochran's Q has the size that it says."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from millrace.analyses.refute import blocks
from millrace.run.errors import WrongQuestion


def world(n: int, seed: int, p: int = 4, drift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, p)) * np.arange(1, p + 1) + 100
    t = (w[:, 0] - 100) * 0.4 + rng.normal(size=n)
    y = (0.5 + drift * (np.arange(n) / n - 0.5)) * t + w @ np.ones(p) * 0.5 + rng.normal(size=n) * (1 + 0.5 * np.abs(t))
    return t, y, w


# -- cuts ----------------------------------------------------------------------------------------------------------
def test_rows_in_order_are_cut_into_ranges_of_like_size():
    found = blocks.cut(1_003)
    assert np.all(np.diff(found.codes) >= 0) and found.names == ("1 of 5", "2 of 5", "3 of 5", "4 of 5", "5 of 5")
    assert np.ptp(np.bincount(found.codes)) <= 1


def test_a_column_with_an_order_keeps_equal_values_together():
    time = np.random.default_rng(0).integers(2000, 2013, 5_000)
    found = blocks.cut(5_000, column=time, kind="order", name="year")
    for year in np.unique(time):
        assert len(np.unique(found.codes[time == year])) == 1
    firsts = [time[found.codes == k].min() for k in range(5)]
    assert firsts == sorted(firsts) and found.how == "ranges of `year`"


def test_groups_are_blocks_and_many_groups_are_put_together_evenly():
    region = np.array(["north", "south", "west"])[np.random.default_rng(0).integers(0, 3, 500)]
    found = blocks.cut(500, column=region, name="region")
    assert found.names == ("north", "south", "west") and np.array_equal(np.array(found.names)[found.codes], region)
    shop = np.random.default_rng(1).integers(0, 60, 5_000)
    found = blocks.cut(5_000, column=shop, name="shop")
    assert len(found.names) == 5 and np.bincount(found.codes).min() > 900
    assert all(len(np.unique(found.codes[shop == s])) == 1 for s in range(60))


def test_clusters_stay_whole():
    clusters = np.random.default_rng(0).integers(0, 40, 900)
    codes = blocks.cut(900, clusters=clusters).codes
    assert all(len(np.unique(codes[clusters == c])) == 1 for c in range(40))


def test_clusters_in_any_order_make_blocks_of_enough_clusters():
    for clusters in (np.arange(900) % 60, np.arange(900) // 15):
        found = blocks.cut(900, clusters=clusters)
        assert found.clusters == (12,) * 5 and np.ptp(np.bincount(found.codes)) <= 15
    in_time = blocks.cut(900, column=np.arange(900)[::-1], kind="order", name="day", clusters=np.arange(900) // 15)
    assert in_time.codes[0] == 4 and in_time.codes[-1] == 0
    assert len(blocks.cut(900, clusters=np.arange(900) % 30).names) == 2
    few = blocks.cut(900, clusters=np.arange(900) % 8)
    assert "4 clusters" in blocks.hindrance(few, np.random.default_rng(0).normal(size=900), 3)
    region = np.repeat(["a", "b", "c"], 300)
    assert blocks.cut(900, column=region, clusters=np.arange(900) // 15).clusters == (20, 20, 20)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(WrongQuestion, match="only one block"):
        blocks.cut(50, column=np.zeros(50), name="region")
    with pytest.raises(WrongQuestion, match="at least 2"):
        blocks.cut(50, blocks=1)
    cut = blocks.cut(100)
    t = np.r_[np.zeros(20), np.ones(80)]
    assert "the treatment is the same" in blocks.hindrance(cut, t, 3)
    assert "20 rows, too few" in blocks.hindrance(cut, np.arange(100.0), 30)
    assert blocks.hindrance(cut, np.arange(100.0) % 2, 3) == ""


# -- a block's estimate --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
def test_the_estimate_of_a_block_is_statsmodels_with_hc3(weighted, monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 97)
    t, y, w = world(400, 1)
    weights = np.random.default_rng(3).exponential(1, 400) if weighted else np.ones(400)
    fit = sm.WLS(y, sm.add_constant(np.column_stack([t, w])), weights=weights).fit(cov_type="HC3")
    effect, se = blocks.least_squares(t, y, w, weights=weights if weighted else None)
    assert effect == pytest.approx(fit.params[1], rel=1e-9) and se == pytest.approx(fit.bse[1], rel=1e-9)


def test_errors_of_many_clusters_are_statsmodels():
    t, y, w = world(400, 2)
    clusters = np.arange(400) // 3
    fit = sm.OLS(y, sm.add_constant(np.column_stack([t, w]))).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert blocks.least_squares(t, y, w, clusters=clusters) == pytest.approx((fit.params[1], fit.bse[1]), rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_few_clusters_are_those_of_leaving_each_out(weighted):
    t, y, w = world(400, 2)
    clusters = np.random.default_rng(5).integers(0, 40, 400)
    weights = np.random.default_rng(3).exponential(1, 400) if weighted else np.ones(400)
    x = sm.add_constant(np.column_stack([t, w]))
    whole = sm.WLS(y, x, weights=weights).fit().params[1]
    each = [
        sm.WLS(y[clusters != g], x[clusters != g], weights=weights[clusters != g]).fit().params[1] for g in range(40)
    ]
    effect, se = blocks.least_squares(t, y, w, weights=weights if weighted else None, clusters=clusters)
    wanted = np.sqrt(39 / 40 * ((np.array(each) - whole) ** 2).sum())
    assert (effect, se) == pytest.approx((whole, wanted), rel=1e-8)
    alone = np.column_stack([w, clusters == 7])  # a column that one cluster knows alone
    assert np.isfinite(blocks.least_squares(t, y, alone, clusters=clusters)).all()


def test_columns_that_do_not_vary_in_a_block_are_left_out_by_themselves():
    t, y, w = world(300, 3)
    more = np.column_stack([w, np.zeros(300), np.full(300, 0.1), w[:, 0] - 2 * w[:, 1]])
    assert blocks.least_squares(t, y, more) == pytest.approx(blocks.least_squares(t, y, w), rel=1e-7)
    assert np.isnan(blocks.least_squares(w[:, 0] * 2, y, w)).all()
    assert blocks.least_squares(t, y, w[:, :0])[0] == pytest.approx(np.polyfit(t, y, 1)[0])


# -- together ------------------------------------------------------------------------------------------------------
def test_cochrans_q_is_its_formula_in_any_unit():
    effects, errors = np.array([1.0, 1.5, 0.8, 1.1]), np.array([0.2, 0.3, 0.1, 0.2])
    mean = np.average(effects, weights=errors**-2)
    found = blocks.cochran(effects, errors)
    assert found.q == pytest.approx((((effects - mean) / errors) ** 2).sum()) and found.df == 3
    assert found.mean == pytest.approx(mean) and found.se == pytest.approx((errors**-2).sum() ** -0.5)
    tiny = blocks.cochran(effects * 1e-200, errors * 1e-200)
    assert tiny.p_value == pytest.approx(found.p_value)
    with pytest.raises(WrongQuestion):
        blocks.cochran(np.array([1.0, np.nan]), np.array([1.0, 1.0]))


def rejected(worlds: int, drift: float) -> float:
    hits = 0
    for seed in range(worlds):
        t, y, w = world(500, seed, drift=drift)
        cut = blocks.cut(500)
        parts = [cut.codes == k for k in range(5)]
        found = blocks.gather(cut, [blocks.least_squares(t[i], y[i], w[i]) for i in parts])
        hits += blocks.cochran(found.effects, found.errors).p_value < 0.05
    return hits / worlds


def test_q_rejects_rarely_without_and_often_with_a_drift():
    assert 0.01 < rejected(300, 0.0) < 0.095
    assert rejected(60, 1.5) > 0.6

"""Matching: the fast sweeps against all distances row by row, errors against known spreads, and no bootstrap."""

from __future__ import annotations

import numpy
import pytest
from binary_worlds import TARGETS, categories, mapped, world
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from millrace.analyses.refute.kernels import ipw, matching, pairing, propensity
from millrace.analyses.refute.study import Study
from millrace.run.errors import NotSupported, WrongQuestion

TESTS = ("subset", "placebo", "random_cause")
WORLDS = {"different rows": world(n=400, p=3, weights=True), "equal rows": categories(400)}


@pytest.mark.parametrize("metric", matching.METRICS)
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_fit_is_what_all_distances_say(target, kind, metric):
    fit = matching.fit(WORLDS[kind], target, metric=metric)
    se = fit.details.get("se_known_score", fit.se)
    assert (fit.effect, se) == pytest.approx(matching.refit(WORLDS[kind], target=target, metric=metric), rel=1e-9)


@pytest.mark.parametrize("metric", matching.METRICS)
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("test", TESTS)
def test_simulations_are_refits_on_the_same_random_numbers(test, kind, metric):
    study = WORLDS[kind]
    shared = matching.prepare(study, metric=metric)
    found = matching.simulate(study, shared, test, 50, 7, precision="exact", fraction=0.5, metric=metric)
    for b in range(4):
        effect, se = ipw.plain(matching.refit, study, test, 50 + b, 7, 0.5, metric=metric)
        if metric == "propensity":  # the score is estimated, not known
            se = matching._corrected(se, float(shared["placebo_correction"]))
        assert found[b, 0] == pytest.approx(effect, rel=1e-9)
        assert found[b, 1] == pytest.approx(se, rel=1e-9) if test == "placebo" else numpy.isnan(found[b, 1])


def test_fast_scores_change_a_few_matches_and_not_the_spread():
    study = world(n=3_000)
    shared, se = matching.prepare(study), matching.fit(study).se
    for test in TESTS:
        fast = matching.simulate(study, shared, test, 0, 7)[:, 0]
        exact = matching.simulate(study, shared, test, 0, 7, precision="exact")[:, 0]
        assert numpy.abs(fast - exact).max() < 0.25 * se
        assert abs((fast - exact).mean()) < 0.03 * se


def test_neighbours_are_those_of_scikit_learn():
    study = world(n=2_000)
    logits = propensity.fit(study).logits
    treated = study.treatment > 0
    other = numpy.empty(study.rows)
    for here, there in ((treated, ~treated), (~treated, treated)):
        search = NearestNeighbors(n_neighbors=1).fit(logits[there][:, None])
        other[here] = study.outcome[there][search.kneighbors(logits[here][:, None], return_distance=False)[:, 0]]
    effect = numpy.where(treated, study.outcome - other, other - study.outcome).mean()
    assert matching.fit(study).effect == pytest.approx(effect, rel=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sweeps_with_and_without_ties_are_all_distances(data):
    n = data.draw(st.integers(6, 40))
    tied = data.draw(st.booleans())
    rng = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(0, 5, n).astype(float) if tied else rng.standard_normal(n)
    t = numpy.zeros(n)
    t[rng.permutation(n)[: data.draw(st.integers(2, n - 2))]] = 1
    y, w = rng.standard_normal(n), rng.uniform(0.5, 2, n)
    # Two places at one distance: the lower one is taken, where all distances take the mean of both.
    if tied:
        logits = logits**1.5
    for target in TARGETS:
        found = matching.match_scores(logits, t, y, w, target)
        plain = matching._plain_match(logits[:, None], t > 0, y, w, target)
        assert (found.effect, found.se) == pytest.approx(plain, rel=1e-9)
        assert matching.match_scores(logits, t, y, w, target, error=False).effect == pytest.approx(
            found.effect, rel=1e-12
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.sampled_from([1.0, 1e-300, 1e200]))
def test_the_order_is_the_stable_ascending_one(values, scale):
    array = numpy.array(values) * scale
    numpy.testing.assert_array_equal(matching._order(array), numpy.argsort(array, kind="stable"))


def test_one_far_value_does_not_make_sorting_slow():
    array = numpy.concatenate([numpy.random.default_rng(0).standard_normal(50_000), [1e12]])
    numpy.testing.assert_array_equal(matching._order(array), numpy.argsort(array, kind="stable"))


@pytest.mark.parametrize("kind", WORLDS)
def test_pairs_for_rosenbaums_bounds_share_no_row_and_are_the_nearest_first(kind):
    study = WORLDS[kind]
    logits = propensity.fit(study).logits
    treated, untreated = pairing.pairs(study)
    assert study.treatment[treated].all() and not study.treatment[untreated].any()
    both = numpy.concatenate([treated, untreated])
    assert len(numpy.unique(both)) == len(both)
    free = numpy.ones(study.rows, bool)
    yes, no = numpy.flatnonzero(study.treatment > 0), numpy.flatnonzero(study.treatment == 0)
    distance = numpy.abs(logits[yes][:, None] - logits[no])
    greedy = []
    for flat in numpy.argsort(distance, axis=None, kind="stable"):
        i, j = yes[flat // len(no)], no[flat % len(no)]
        if free[i] and free[j] and abs(logits[i] - logits[j]) <= pairing.CALIPER * logits.std():
            free[i] = free[j] = False
            greedy.append(abs(logits[i] - logits[j]))
    found = numpy.abs(logits[treated] - logits[untreated])
    numpy.testing.assert_allclose(numpy.sort(found), numpy.sort(greedy), atol=1e-9)


def test_pairs_in_space_share_no_row_either():
    study = WORLDS["different rows"]
    treated, untreated = pairing.pairs(study, "mahalanobis")
    assert len(numpy.unique(treated)) == len(treated) == len(numpy.unique(untreated)) > 100
    assert study.treatment[treated].all() and not study.treatment[untreated].any()


def test_the_bootstrap_is_refused_with_what_to_do_instead():
    study = world(n=200, p=2)
    with pytest.raises(WrongQuestion, match=r"(?s)not valid for matching.*'subset'.*aipw"):
        matching.simulate(study, {}, "bootstrap", 0, 0)
    with pytest.raises(WrongQuestion, match="not valid"):
        matching.refit(study, counts=ipw.counts(200, "bootstrap", 0, 0))


def test_a_batch_has_the_same_bits_whatever_else_ran_and_from_mapped_files(tmp_path):
    study = world(n=1_100, p=3, weights=True)
    for metric in matching.METRICS:
        shared = matching.prepare(study, metric=metric)
        again, again_shared = mapped(study, shared, tmp_path)
        for test in TESTS:
            alone = matching.simulate(study, shared, test, 50, 7, metric=metric)
            matching.simulate(study, shared, test, 0, 7, metric=metric)
            assert alone.tobytes() == matching.simulate(again, again_shared, test, 50, 7, metric=metric).tobytes()


@pytest.mark.parametrize("metric", matching.METRICS)
def test_both_errors_are_the_spread_between_worlds(metric):
    fits = [matching.fit(world(n=700, p=2, seed=s), metric=metric) for s in range(150)]
    spread = numpy.std([f.effect for f in fits], ddof=1)
    assert 0.82 < numpy.mean([f.se for f in fits]) / spread < 1.2
    assert numpy.mean([abs(f.effect - 1) < 1.96 * f.se for f in fits]) > 0.9
    errors = []
    for s in range(8):
        study = world(n=700, p=2, seed=s)
        effects = matching.simulate(study, matching.prepare(study, metric=metric), "subset", 0, 1, metric=metric)[:, 0]
        errors.append(matching.subsampling_error(effects, study.rows))
    assert 0.8 < numpy.mean(errors) / spread < 1.25


@pytest.mark.parametrize("target", TARGETS)
def test_the_correction_is_that_of_plain_sums_over_nearest_rows(target):
    """Abadie and Imbens (2016), with every conditional mean and covariance made row by row."""
    study = world(n=300, p=3, weights=True)
    score = propensity.fit(study)
    fit = matching.fit(study, target)
    s, w, y, t = score.scores, study.weights, study.outcome, study.treatment > 0
    z = numpy.column_stack([numpy.ones(study.rows), study.confounders])
    information = (z * (w * s * (1 - s))[:, None]).T @ z
    levels, covariances = {}, {}
    for name, member in ((True, t), (False, ~t)):
        place = numpy.flatnonzero(member)[numpy.argsort(score.logits[member])]
        level, covariance = numpy.empty(study.rows), numpy.empty((study.rows, 4))
        for i in range(study.rows):
            others = place[place != i]
            low = others[score.logits[others] < score.logits[i]][-1:]
            high = others[score.logits[others] > score.logits[i]][:1]
            level[i] = y[[*low, *high]].mean()
            at = min(max(int((score.logits[place] <= score.logits[i]).sum()) - 1, 0), len(place) - 2)
            pair = place[at : at + 2]
            covariance[i] = (z[pair[1]] - z[pair[0]]) * (y[pair[1]] - y[pair[0]]) / 2
        levels[name], covariances[name] = level, covariance
    c1, c0, f = covariances[True], covariances[False], s * (1 - s)
    if target == "ate":
        c = w @ (c1 * (1 - s)[:, None] + c0 * s[:, None]) / w.sum()
        expected = -c @ numpy.linalg.solve(information, c)
    else:
        mean = w * f * (levels[True] - levels[False] - fit.effect)
        odds = (s / (1 - s))[:, None]
        parts = (c1 + c0 * odds, c1 - c0) if target == "att" else (c0 + c1 / odds, c0 - c1)
        sign, inside = (1, w @ s) if target == "att" else (-1, w @ (1 - s))
        c, d = ((z.T @ mean + sign * (w * f) @ part) / inside for part in parts)
        expected = d @ numpy.linalg.solve(information, d) - c @ numpy.linalg.solve(information, c)
    base = propensity.whitening(study)
    found = matching.score_correction(study, base, propensity.fit(study, base), fit.effect, target)
    assert found == pytest.approx(expected, rel=1e-6)


def test_errors_of_placebo_effects_are_their_spread():
    study = world(n=1_000, p=3)
    shared = matching.prepare(study)
    found = numpy.concatenate([matching.simulate(study, shared, "placebo", b, 3) for b in range(0, 300, 50)])
    assert 0.85 < found[:, 1].mean() / found[:, 0].std(ddof=1) < 1.15


def test_wrong_questions_are_said_to_be():
    study = world(n=200, p=2)
    with pytest.raises(WrongQuestion, match="metrics"):
        matching.fit(study, metric="euclid")
    with pytest.raises(NotSupported, match="clustered"):
        matching.fit(world(n=200, p=2, clusters=True))
    with pytest.raises(NotSupported, match="binary"):
        matching.fit(Study(study.outcome, study.outcome, study.confounders, binary=False))
    one = numpy.zeros(200)
    one[3] = 1
    with pytest.raises(WrongQuestion, match="at least two"):
        matching.fit(Study(one, study.outcome, study.confounders), metric="mahalanobis")


@pytest.mark.parametrize("metric", matching.METRICS)
def test_the_size_of_what_is_shared_is_said(metric):
    study = world(n=5_000, p=7)
    size = sum(value.nbytes for value in matching.prepare(study, metric=metric).values())
    assert size <= matching.memory(5_000, 7, metric=metric)[1] <= 1.05 * size

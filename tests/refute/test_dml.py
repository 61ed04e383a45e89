"""Double machine learning: simulations against refits, folds by identity, the orthogonal score's spread, known effects."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy
import pytest
from binary_worlds import TESTS, mapped, world

from millrace.analyses.refute.kernels import dml, ipw
from millrace.analyses.refute.kernels.resample import counts
from millrace.analyses.refute.study import BATCH, Study
from millrace.run.errors import NotSupported, WrongQuestion

SMALL = {"trees": 12, "leaves": 6}


def curved(n, seed, effect=1.0):
    """A continuous treatment; both it and the outcome bend with the first confounder."""
    rng = numpy.random.default_rng([74, seed])
    w = rng.standard_normal((n, 3))
    t = numpy.sin(2 * w[:, 0]) + 0.5 * w[:, 1] + rng.standard_normal(n)
    y = effect * t + numpy.sin(2 * w[:, 0]) * 2 + 0.5 * w[:, 1] + rng.standard_normal(n)
    return Study(t, y, w, binary=False)


@pytest.mark.parametrize("kind", ["plain", "weights", "clusters", "linear"])
@pytest.mark.parametrize("test", TESTS)
def test_a_simulation_is_a_refit_with_new_models(test, kind):
    study = world(n=700, p=3, weights=kind == "weights", clusters=kind == "clusters")
    options = {**SMALL, "linear": kind == "linear"}
    shared = dml.prepare(study, **options)
    plain = ipw.plain(dml.refit, study, test, 3, 7, 0.8, **options)
    assert dml.simulate_one(study, shared, test, 3, 7, **options) == pytest.approx(plain, rel=1e-6)


def test_least_squares_first_finds_many_weak_causes_that_few_trees_do_not():
    rng = numpy.random.default_rng(5)
    w = rng.standard_normal((6_000, 40))
    index = w.sum(axis=1) / 4
    t = index + rng.standard_normal(6_000)
    study = Study(t, 1.0 * t + index + rng.standard_normal(6_000), w, binary=False)
    line, trees = dml.fit(study, linear=True, trees=10), dml.fit(study, trees=10)
    assert abs(line.effect - 1) < 4 * line.se
    assert abs(trees.effect - 1) > 10 * trees.se
    again = dml.fit_prepared(study, dml.prepare(study, trees=10), trees=10)
    assert replace(again, se_classic=0.0) == replace(trees, se_classic=0.0)  # which it has not: NaN


def test_a_batch_is_its_simulations_one_by_one_and_from_mapped_files(tmp_path):
    study = world(n=400, p=2)
    tiny = {"trees": 3, "leaves": 4, "folds": 2}
    shared = dml.prepare(study, **tiny)
    again, again_shared = mapped(study, shared, tmp_path)
    batch = dml.simulate(study, shared, "subset", 50, 7, fraction=0.6, **tiny)
    assert batch.shape == (BATCH, 2)
    for i in (50, 77):
        one = dml.simulate_one(again, again_shared, "subset", i, 7, fraction=0.6, **tiny)
        assert numpy.array(one).tobytes() == batch[i - 50].tobytes()
    for test in TESTS:
        whole = dml.simulate(study, shared, test, 50, 7, fast="multiplier", **tiny)
        assert dml.simulate_one(study, shared, test, 61, 7, fast="multiplier", **tiny)[0] == whole[11, 0]


def test_a_fit_is_the_plain_refit_and_repeats_to_the_bit():
    study = world(n=900, p=3, weights=True)
    fit = dml.fit(study, **SMALL)
    assert (fit.effect, fit.se) == pytest.approx(dml.refit(study, **SMALL), rel=1e-9)
    again = dml.fit(study, **SMALL)
    assert (again.effect, again.se) == (fit.effect, fit.se)


def test_folds_follow_the_row_or_its_cluster_and_nothing_else():
    fold = dml.folds_of(5_000, 5, 3)
    numpy.testing.assert_array_equal(fold[:1_000], dml.folds_of(1_000, 5, 3))
    assert (numpy.bincount(fold, minlength=5) > 850).all()
    assert (fold != dml.folds_of(5_000, 5, 4)).mean() > 0.7
    clusters = numpy.arange(5_000) % 40
    by_cluster = dml.folds_of(5_000, 5, 3, clusters)
    assert all(len(set(by_cluster[clusters == c])) == 1 for c in range(40))


def test_weights_do_what_copies_of_rows_in_the_same_fold_do():
    """Not to the bit: LightGBM's smallest leaf counts rows, not weights; so it is off here."""
    study = world(n=1_500, p=3)
    free = {"trees": 15, "leaves": 6, "least_rows": 1}
    c = counts(study.rows, "bootstrap", 1, 0)
    rows = numpy.repeat(numpy.arange(study.rows), c)
    learner = dml.Learner(**free)
    fold = dml.folds_of(study.rows, learner.folds, 0)
    features = dml._Features(study.confounders, learner)
    weighted = dml.crossfit(features, fold, study.outcome, c.astype(float), learner)
    for f in range(2):
        seen = rows[fold[rows] != f]
        data = lightgbm.Dataset(study.confounders[seen], study.outcome[seen], reference=features.binned)
        model = lightgbm.train(learner.settings(), data, num_boost_round=learner.trees)
        predicted = model.predict(study.confounders[fold == f])
        assert numpy.abs(predicted - weighted[fold == f]).mean() < 0.05 * study.outcome.std()


def test_resampling_before_folding_would_leak():
    study = world(n=600, p=3)
    c = counts(study.rows, "bootstrap", 1, 0)
    rows = numpy.repeat(numpy.arange(study.rows), c)
    options = {"trees": 60, "leaves": 16, "least_rows": 3}
    learner = dml.Learner(**options)
    copied = Study(study.treatment[rows], study.outcome[rows], study.confounders[rows])
    leaky = dml._residuals(copied, learner)[0].var()
    fold = dml.folds_of(study.rows, learner.folds, 0)
    predicted = dml.crossfit(dml._Features(study.confounders, learner), fold, study.outcome, c.astype(float), learner)
    honest = numpy.average((study.outcome - predicted) ** 2, weights=c)
    assert leaky < 0.7 * honest


@pytest.mark.parametrize("test", ["bootstrap", "subset"])
def test_the_perturbed_score_has_the_spread_of_the_error_and_follows_the_refits(test):
    study = curved(1_500, 0)
    fit, shared = dml.fit(study, **SMALL), dml.prepare(study, **SMALL)
    fast = dml.simulate(study, shared, test, 0, 5, fast="multiplier")[:, 0]
    expected = fit.se * (1 if test == "bootstrap" else numpy.sqrt(0.2 / 0.8))
    assert 0.75 < fast.std(ddof=1) / expected < 1.3
    weight = dml.weights_of(study)
    for b in range(3):
        c = counts(study.rows, test, 5, b)
        plain = dml.estimate(shared["missed_outcome"], shared["missed_treatment"], weight, None, c)[0]
        assert fast[b] == pytest.approx(plain, abs=1e-4 * fit.se)
    slow = numpy.array([dml.simulate_one(study, shared, test, b, 5, **SMALL)[0] for b in range(12)])
    assert numpy.corrcoef(slow, fast[:12])[0, 1] > 0.7


def test_placebo_and_random_cause_of_the_kept_models_are_what_least_squares_says():
    study = world(n=900, p=3, weights=True, strata=True)
    shared, weight = dml.prepare(study, **SMALL), dml.weights_of(study)
    u, v = shared["missed_outcome"], shared["missed_treatment"]
    placebo = dml.simulate(study, shared, "placebo", 0, 5, fast="multiplier")
    t = dml.permuted(study.treatment, 5, 4, strata=study.strata)
    dummies = (study.strata[:, None] == numpy.arange(3)).astype(float)
    root = numpy.sqrt(weight)[:, None]
    left = t - dummies @ numpy.linalg.lstsq(dummies * root, t * root[:, 0], rcond=None)[0]
    assert placebo[4] == pytest.approx(dml.estimate(u, left, weight, None), rel=1e-9)
    cause = numpy.column_stack([numpy.ones(study.rows), dml.column(study.rows, 5, 4)])
    found = dml.simulate(study, shared, "random_cause", 0, 5, fast="multiplier")[4, 0]
    centred = cause[:, 1] - numpy.average(cause[:, 1], weights=weight)
    design = numpy.column_stack([v, centred]) * root
    assert found == pytest.approx(numpy.linalg.lstsq(design, u * root[:, 0], rcond=None)[0][0], abs=2e-4)


def test_it_finds_what_a_straight_line_does_not():
    fits = [dml.fit(curved(1_200, s), trees=60, leaves=8) for s in range(20)]
    straight = []
    for s in range(5):
        study = curved(1_200, s)
        design = numpy.column_stack([study.treatment, numpy.ones(study.rows), study.confounders])
        straight.append(numpy.linalg.lstsq(design, study.outcome, rcond=None)[0][0])
    assert numpy.mean(straight) > 1.3
    assert abs(numpy.mean([f.effect for f in fits]) - 1) < 0.06
    assert numpy.mean([abs(f.effect - 1) < 1.96 * f.se for f in fits]) >= 0.75


def test_wrong_questions_are_said_to_be():
    study = world(n=200, p=2)
    with pytest.raises(NotSupported, match="one effect"):
        dml.fit(study, "att")
    with pytest.raises(WrongQuestion, match="nothing to compare"):
        dml.fit(Study(numpy.ones(200), study.outcome, study.confounders))
    with pytest.raises(WrongQuestion, match="fewer folds"):
        dml.fit(study, folds=150)
    with pytest.raises(WrongQuestion, match="not known"):
        dml.simulate(study, {}, "bootstrap", 0, 0, fast="magic")
    with pytest.raises(WrongQuestion, match="without error"):
        dml.estimate(study.outcome, numpy.zeros(200), numpy.ones(200), None)

"""The doubly robust estimator: fits against statsmodels, simulations against refits, right when one of its models is wrong."""

from __future__ import annotations

import numpy
import pytest
import statsmodels.api as statsmodels
from binary_worlds import TARGETS, TESTS, mapped, world
from statsmodels.treatment.treatment_effects import TreatmentEffect

from millrace.analyses.refute.kernels import aipw, ipw, propensity
from millrace.analyses.refute.study import Study
from millrace.run.errors import WrongQuestion


def test_effect_and_error_are_those_of_the_moment_conditions_of_statsmodels():
    study = world(bend=0.5)
    design = statsmodels.add_constant(study.confounders)
    selection = statsmodels.Logit(study.treatment, design).fit(disp=False, tol=1e-10)
    outcome = statsmodels.OLS(study.outcome, design)
    found = TreatmentEffect(outcome, study.treatment, results_select=selection, _cov_type="HC0").aipw(disp=False)
    fit = aipw.fit(study, trim=0.0)
    assert fit.effect == pytest.approx(found.effect[0], abs=1e-6)
    assert fit.se == pytest.approx(found.sd[0] * numpy.sqrt(study.rows / (study.rows - 1)), rel=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["plain", "weights", "clusters"])
def test_a_fit_streamed_in_blocks_is_the_plain_refit(target, kind):
    study = world(weights=kind == "weights", clusters=kind == "clusters")
    fit = aipw.fit(study, target)
    assert (fit.effect, fit.details["se_plain"]) == pytest.approx(aipw.refit(study, target=target), rel=1e-8)
    assert fit.se == pytest.approx(fit.details["se_plain"], rel=0.05)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("test", TESTS)
def test_simulations_are_refits_on_the_same_random_numbers(test, target):
    study = world(weights=True, strata=True)
    shared, se = aipw.prepare(study, target), aipw.fit(study, target).se
    fast = aipw.simulate(study, shared, test, 50, 7, target=target)
    exact = aipw.simulate(study, shared, test, 50, 7, target=target, precision="exact")
    plain = numpy.array([ipw.plain(aipw.refit, study, test, 50 + b, 7, 0.8, target=target) for b in range(6)])
    assert numpy.abs(exact[:6, 0] - plain[:, 0]).max() < 1e-8 * se
    assert numpy.abs(fast[:, 0] - exact[:, 0]).max() < 1e-3 * se
    if test == "placebo":
        numpy.testing.assert_allclose(fast[:6, 1], plain[:, 1], rtol=1e-4)
        numpy.testing.assert_allclose(exact[:6, 1], plain[:, 1], rtol=1e-8)
    else:
        assert numpy.isnan(fast[:, 1]).all()


@pytest.mark.parametrize("test", ["bootstrap", "subset", "placebo"])
def test_clusters_are_simulated_as_they_are_refitted(test):
    study = world(clusters=True)
    shared, se = aipw.prepare(study), aipw.fit(study).se
    fast = aipw.simulate(study, shared, test, 0, 7)
    plain = numpy.array([ipw.plain(aipw.refit, study, test, b, 7, 0.8) for b in range(6)])
    assert numpy.abs(fast[:6, 0] - plain[:, 0]).max() < 1e-3 * se
    if test == "placebo":
        numpy.testing.assert_allclose(fast[:6, 1], plain[:, 1], rtol=1e-4)


def test_a_few_rows_and_many_confounders_are_still_refits():
    study = world(n=260, p=20, strength=0.5)
    shared, se = aipw.prepare(study), aipw.fit(study).se
    for test in TESTS:
        found = aipw.simulate(study, shared, test, 0, 3)[:, 0]
        plain = numpy.array([ipw.plain(aipw.refit, study, test, b, 3, 0.8)[0] for b in range(8)])
        numpy.testing.assert_allclose(found[:8], plain, atol=2e-3 * se)


def test_a_batch_has_the_same_bits_whatever_else_ran_and_from_mapped_files(tmp_path):
    study = world(n=1_500, weights=True)
    shared = aipw.prepare(study)
    again, again_shared = mapped(study, shared, tmp_path)
    for test in TESTS:
        alone = aipw.simulate(study, shared, test, 50, 7)
        aipw.simulate(study, shared, test, 0, 7)
        assert alone.tobytes() == aipw.simulate(again, again_shared, test, 50, 7).tobytes()


def test_the_bootstrap_has_the_spread_that_the_error_says():
    study = world()
    spread = numpy.concatenate(
        [aipw.simulate(study, aipw.prepare(study), "bootstrap", f, 1)[:, 0] for f in (0, 50, 100, 150)]
    )
    assert 0.85 < spread.std(ddof=1) / aipw.fit(study).se < 1.18


def test_it_is_right_when_the_regressions_are_wrong_and_weighting_when_only_the_score_is_right():
    fits = [aipw.fit(world(n=800, p=3, seed=s, bend=1.5)) for s in range(60)]
    effects = numpy.array([f.effect for f in fits])
    assert abs(effects.mean() - 1) < 4 * effects.std() / numpy.sqrt(60)
    assert numpy.mean([abs(f.effect - 1) < 1.96 * f.se for f in fits]) > 0.85


def test_it_is_right_when_the_score_is_wrong():
    effects = []
    for s in range(60):
        study = world(n=800, p=3, seed=s)
        logit = study.confounders[:, 0] ** 2 - 1
        rng = numpy.random.default_rng([73, s])
        t = (rng.random(study.rows) < propensity.expit(logit)).astype(float)
        effects.append(aipw.fit(Study(t, study.outcome - study.treatment + t, study.confounders)).effect)
    assert abs(numpy.mean(effects) - 1) < 4 * numpy.std(effects) / numpy.sqrt(60)


def test_intervals_cover_the_known_effect():
    fits = [aipw.fit(world(n=500, p=3, seed=s), target) for s in range(120) for target in ("ate", "atc")]
    assert 0.90 < numpy.mean([abs(f.effect - 1) < 1.96 * f.se for f in fits]) < 0.985


def test_an_arm_that_is_too_small_for_its_regression_is_an_error():
    study = world(n=300, p=6)
    rows = numpy.concatenate([numpy.flatnonzero(study.treatment > 0)[:5], numpy.flatnonzero(study.treatment == 0)])
    few = Study(study.treatment[rows], study.outcome[rows], study.confounders[rows])
    with pytest.raises(WrongQuestion):
        aipw.fit(few)
    thin = study.confounders.copy()
    thin[study.treatment > 0, 0] = 0.5
    with pytest.raises(WrongQuestion, match="does not vary"):
        aipw.fit(Study(study.treatment, study.outcome, thin))


@pytest.mark.parametrize("weighting", [ipw, aipw])
def test_the_size_of_what_is_shared_is_said(weighting):
    study = world(n=5_000, p=7)
    size = sum(value.nbytes for value in weighting.prepare(study).values() if isinstance(value, numpy.ndarray))
    assert size <= weighting.memory(5_000, 7)[1] <= 1.05 * size

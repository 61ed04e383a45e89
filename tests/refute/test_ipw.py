"""Weighting by the propensity: fits against statsmodels and scikit-learn, simulations against refits, known effects found."""

from __future__ import annotations

import numpy
import pytest
import statsmodels.api as statsmodels
from binary_worlds import TARGETS, TESTS, mapped, world
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from statsmodels.treatment.treatment_effects import TreatmentEffect

from millrace.analyses.refute.kernels import ipw, propensity
from millrace.analyses.refute.study import BATCH, Study
from millrace.run.errors import NotSupported, WrongQuestion


def test_the_propensity_is_the_maximum_likelihood_of_statsmodels_with_its_errors():
    study = world(weights=True)
    found = propensity.fit(study)
    design = statsmodels.add_constant(study.confounders)
    model = statsmodels.GLM(study.treatment, design, family=statsmodels.families.Binomial(), freq_weights=study.weights)
    other = model.fit(tol=1e-12)
    numpy.testing.assert_allclose(found.coefficients, other.params, atol=1e-9)
    numpy.testing.assert_allclose(found.errors, other.bse, rtol=1e-7)
    numpy.testing.assert_allclose(found.scores, other.predict(design), atol=1e-10)


def test_the_plain_refit_is_scikit_learns_on_rows_that_are_really_copied():
    study = world(n=800)
    counts = ipw.counts(study.rows, "bootstrap", 3, 1)
    rows = numpy.repeat(numpy.arange(study.rows), counts)
    other = LogisticRegression(C=numpy.inf, tol=1e-10, max_iter=1000).fit(
        study.confounders[rows], study.treatment[rows]
    )
    scores = numpy.clip(other.predict_proba(study.confounders[rows])[:, 1], 0.01, 0.99)
    t, y = study.treatment[rows], study.outcome[rows]
    effect = numpy.average(y, weights=t / scores) - numpy.average(y, weights=(1 - t) / (1 - scores))
    assert ipw.refit(study, counts=counts)[0] == pytest.approx(effect, abs=1e-6)
    copied = Study(t, y, study.confounders[rows])
    assert ipw.refit(study, counts=counts) == pytest.approx(ipw.refit(copied), abs=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_effect_and_error_are_those_of_the_moment_conditions_of_statsmodels(target):
    study = world()
    design = statsmodels.add_constant(study.confounders)
    selection = statsmodels.Logit(study.treatment, design).fit(disp=False, tol=1e-10)
    outcome = statsmodels.OLS(study.outcome, design)
    found = TreatmentEffect(outcome, study.treatment, results_select=selection, _cov_type="HC0").ipw(
        effect_group={"ate": "all", "att": 1, "atc": 0}[target], disp=False
    )
    fit = ipw.fit(study, target, trim=0.0)
    assert fit.effect == pytest.approx(found.effect[0], abs=1e-6)
    assert fit.se == pytest.approx(found.sd[0] * numpy.sqrt(study.rows / (study.rows - 1)), rel=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["plain", "weights", "clusters", "weights and strata"])
def test_a_fit_streamed_in_blocks_is_the_plain_refit(target, kind):
    study = world(weights="weights" in kind, clusters="clusters" in kind, strata="strata" in kind)
    fit = ipw.fit(study, target)
    assert (fit.effect, fit.se) == pytest.approx(ipw.refit(study, target=target), rel=1e-8)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("test", TESTS)
def test_simulations_are_refits_on_the_same_random_numbers(test, target):
    study = world(weights=True, strata=True)
    shared, se = ipw.prepare(study, target), ipw.fit(study, target).se
    fast = ipw.simulate(study, shared, test, 50, 7, target=target)
    exact = ipw.simulate(study, shared, test, 50, 7, target=target, precision="exact")
    plain = numpy.array([ipw.plain(ipw.refit, study, test, 50 + b, 7, 0.8, target=target) for b in range(6)])
    assert numpy.abs(exact[:6, 0] - plain[:, 0]).max() < 1e-9 * se
    assert numpy.abs(fast[:, 0] - exact[:, 0]).max() < 1.2e-4 * se
    if test == "placebo":
        numpy.testing.assert_allclose(fast[:6, 1], plain[:, 1], rtol=1e-2)
        numpy.testing.assert_allclose(exact[:6, 1], plain[:, 1], rtol=1e-2)
    else:
        assert numpy.isnan(fast[:, 1]).all()


@pytest.mark.parametrize("test", ["bootstrap", "subset", "placebo"])
def test_clusters_are_simulated_as_they_are_refitted(test):
    study = world(clusters=True)
    shared, se = ipw.prepare(study), ipw.fit(study).se
    fast = ipw.simulate(study, shared, test, 0, 7)
    plain = numpy.array([ipw.plain(ipw.refit, study, test, b, 7, 0.8) for b in range(6)])
    assert numpy.abs(fast[:6, 0] - plain[:, 0]).max() < 1e-3 * se
    if test == "placebo":
        numpy.testing.assert_allclose(fast[:6, 1], plain[:, 1], rtol=2e-2)


def test_a_batch_has_the_same_bits_whatever_else_ran():
    study = world()
    for test in TESTS:
        alone = ipw.simulate(study, ipw.prepare(study), test, 50, 7)
        shared = ipw.prepare(study)
        ipw.simulate(study, shared, test, 0, 7)
        ipw.simulate(study, shared, test, 50, 8)
        again = ipw.simulate(study, shared, test, 50, 7)
        assert alone.tobytes() == again.tobytes()


def test_arrays_that_may_not_be_written_to_are_enough(tmp_path):
    study = world(n=1_500, weights=True)
    shared = ipw.prepare(study)
    again, there_shared = mapped(study, shared, tmp_path)
    for test in TESTS:
        there = ipw.simulate(again, there_shared, test, 0, 1)
        assert there.tobytes() == ipw.simulate(study, shared, test, 0, 1).tobytes()


def test_the_bootstrap_holds_the_score_fixed_only_at_the_price_of_a_wrong_spread():
    study = world(n=4_000, strength=1.0)
    fit = ipw.fit(study)
    refitted = ipw.simulate(study, ipw.prepare(study), "bootstrap", 0, 1)[:, 0].std(ddof=1)
    scores = numpy.clip(propensity.fit(study).scores, 0.01, 0.99)
    held = []
    for i in range(BATCH):
        c = ipw.counts(study.rows, "bootstrap", 1, i)
        held.append(ipw._hajek(study.treatment, study.outcome, c.astype(float), scores, "ate", 0.0)[0])
    assert 0.7 < refitted / fit.se < 1.35
    assert numpy.std(held, ddof=1) > 1.25 * refitted


def test_a_rare_category_that_a_resample_separates_is_nan_and_the_others_are_right():
    study = world(n=1_200, p=2, seed=3)
    rare = numpy.zeros(study.rows)
    rare[numpy.flatnonzero(study.treatment > 0)[:2]] = 1
    rare[numpy.flatnonzero(study.treatment == 0)[:2]] = 1
    study = Study(study.treatment, study.outcome, numpy.column_stack([study.confounders, rare]))
    found = ipw.simulate(study, ipw.prepare(study), "bootstrap", 0, 5)[:, 0]
    drawn = numpy.array([ipw.counts(study.rows, "bootstrap", 5, b) for b in range(BATCH)])
    arms = [(drawn[:, (rare > 0) & (study.treatment == a)] > 0).any(axis=1) for a in (0, 1)]
    separated = arms[0] != arms[1]
    assert separated.any() and not separated.all()
    numpy.testing.assert_array_equal(numpy.isnan(found), separated)
    whole = numpy.flatnonzero(~separated)[:8]
    plain = [ipw.plain(ipw.refit, study, "bootstrap", int(b), 5, 0.8)[0] for b in whole]
    numpy.testing.assert_allclose(found[whole], plain, atol=1e-3 * ipw.fit(study).se)


@pytest.mark.parametrize("kind", ["complete", "a category"])
def test_separation_is_an_error_that_names_the_confounder(kind):
    study = world(p=3)
    values = study.confounders.copy()
    if kind == "complete":
        values[:, 1] = study.treatment * 2 - 1 + 0.3 * numpy.tanh(values[:, 1])
    else:
        values[:, 1] = 0.0
        values[numpy.flatnonzero(study.treatment > 0)[:30], 1] = 1.0
    study = Study(study.treatment, study.outcome, values)
    with pytest.raises(propensity.Separation) as caught:
        ipw.fit(study)
    assert caught.value.columns == (1,)
    with pytest.raises(WrongQuestion, match="separated"):
        ipw.refit(study)


def test_strong_but_overlapping_confounding_is_no_separation():
    study = world(n=4_000, strength=3.5)
    assert propensity.fit(study).rounds < 15


def test_collinear_confounders_change_nothing():
    study = world()
    doubled = numpy.column_stack([study.confounders, study.confounders[:, 0] * 3 + study.confounders[:, 1] - 5])
    other = Study(study.treatment, study.outcome, doubled)
    assert ipw.fit(other).effect == pytest.approx(ipw.fit(study).effect, abs=1e-9)
    assert ipw.refit(other) == pytest.approx(ipw.refit(study), abs=1e-8)


def test_wrong_questions_are_said_to_be():
    study = world(n=300)
    with pytest.raises(NotSupported, match="binary"):
        ipw.fit(Study(study.outcome, study.outcome, study.confounders, binary=False))
    with pytest.raises(WrongQuestion, match="nobody to compare"):
        ipw.fit(Study(numpy.ones(300), study.outcome, study.confounders))
    with pytest.raises(WrongQuestion, match="trim"):
        ipw.fit(study, trim=0.5)
    with pytest.raises(WrongQuestion, match="no simulation"):
        ipw.simulate(study, ipw.prepare(study), "blocks", 0, 0)


@settings(max_examples=15, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.integers(0, 2))
def test_units_of_outcome_and_confounders_do_not_matter(shift, scale, column):
    study = world(n=400, p=3)
    values = study.confounders.copy()
    values[:, column] = values[:, column] * scale + shift
    other = Study(study.treatment, study.outcome * scale + shift, values)
    fit, changed = ipw.fit(study), ipw.fit(other)
    assert changed.effect == pytest.approx(fit.effect * scale, rel=1e-5)
    assert changed.se == pytest.approx(fit.se * scale, rel=1e-5)


def test_intervals_cover_the_known_effect():
    fits = [ipw.fit(world(n=500, p=3, seed=s), target) for s in range(120) for target in ("ate", "att")]
    covered = numpy.mean([abs(f.effect - 1) < 1.96 * f.se for f in fits])
    assert 0.90 < covered < 0.985

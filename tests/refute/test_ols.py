"""Refuting least squares by products and weights gives what refitting on really resampled rows gives."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc

import numpy
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from millrace.analyses.refute.kernels import conjugate, ols, placebo, resample, weighted
from millrace.analyses.refute.study import BATCH, Study
from millrace.run.errors import WrongQuestion


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As every engine has it; the products are small, and threads would make them ten times slower."""
    with threadpool_limits(1, "blas"):
        yield


def world(n: int, p: int, *, seed=0, binary=True, weights=False, clusters=0, strata=0, hard=False) -> Study:
    """Correlated confounders, an effect that differs between rows, errors that are not equally large."""
    rng = numpy.random.default_rng(seed)
    confounders = rng.standard_normal((n, p)) @ (numpy.eye(p) + 0.4 * rng.standard_normal((p, p)) / numpy.sqrt(p))
    if hard:
        confounders = confounders * numpy.exp(2 * rng.standard_normal(p)) + 100.0
        confounders[:, 0] = rng.standard_t(2.5, n)
        confounders[:, 1] = rng.poisson(0.05, n)
    z = (confounders - confounders.mean(0)) / confounders.std(0)
    treatment = z @ rng.standard_normal(p) * 0.5 / numpy.sqrt(p) + rng.standard_normal(n)
    treatment = (treatment > 0.2).astype(float) if binary else treatment + 2.0
    outcome = (
        (1.0 + 0.4 * z[:, 0]) * treatment
        + z @ rng.standard_normal(p)
        + rng.standard_t(4, n) * (1 + 0.5 * abs(z[:, -1]))
    )
    return Study(
        treatment,
        outcome,
        numpy.ascontiguousarray(confounders),
        (lambda w: w / w.mean())(rng.gamma(2.0, 1.0, n)) if weights else None,
        numpy.unique(rng.integers(0, clusters, n), return_inverse=True)[1] if clusters else None,
        numpy.unique(rng.integers(0, strata, n), return_inverse=True)[1] if strata else None,
        binary,
    )


def refitted(study: Study, test: str, i: int, seed: int, fraction=0.8, **options) -> tuple[float, float]:
    """The oracle on the same random numbers."""
    if test in ("bootstrap", "subset"):
        given = {"counts": resample.counts(study.rows, test, seed, i, fraction=fraction, clusters=study.clusters)}
    elif test == "placebo":
        given = {"treatment": resample.permuted(study.treatment, seed, i, strata=study.strata, clusters=study.clusters)}
    else:
        given = {"column": resample.column(study.rows, seed, i)}
    return ols.refit(study, **given, **options)


def check(study: Study, tests, *, within: float, sims=(0, 17, 49), first=50, seed=3, notes=None, **options) -> None:
    shared = ols.prepare(study, options.get("target", "ate"), interacted=options.get("interacted", False))
    for test in tests:
        made = ols.simulate(study, shared, test, first, seed, notes=notes, **options)
        assert made.shape == (BATCH, 2)
        oracle_options = {name: value for name, value in options.items() if name != "precision"}
        for b in sims:
            effect, se = refitted(study, test, first + b, seed, **oracle_options)
            assert abs(made[b, 0] - effect) <= within * se, (test, b, made[b], effect, se)
            if test in ("placebo", "random_cause"):
                assert made[b, 1] == pytest.approx(se, rel=max(10 * within, 1e-9))
            else:
                assert numpy.isnan(made[b, 1])


TESTS = ("bootstrap", "subset", "placebo", "random_cause")
SHAPES = [(700, 4), (2500, 30), (5000, 60)]


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize(("weights", "clusters"), [(False, 0), (True, 0), (False, 90), (True, 300)])
@pytest.mark.parametrize("hard", [False, True])
def test_every_simulation_is_a_refit(n, p, weights, clusters, hard):
    study = world(n, p, weights=weights, clusters=clusters, hard=hard, binary=not hard, strata=5 if hard else 0)
    check(study, TESTS, within=1e-5, sims=(0, 49))
    check(study, TESTS, within=1e-10, sims=(17,), precision="exact")


@pytest.mark.parametrize(("n", "p"), [(900, 4), (2500, 25)])
@pytest.mark.parametrize(
    ("target", "binary"),
    [("ate", True), ("att", True), ("atc", True), ("ate", False)],
    ids=["ate", "att", "atc", "dose"],
)
@pytest.mark.parametrize("weights", [False, True])
def test_every_simulation_of_the_interacted_regression_is_a_refit(n, p, target, binary, weights):
    study = world(n, p, weights=weights, binary=binary, clusters=150 if weights else 0, hard=not weights)
    check(study, TESTS, within=2e-5, sims=(0, 49), target=target, interacted=True)
    check(study, TESTS, within=1e-10, sims=(17,), target=target, interacted=True, precision="exact")


def test_fractions_of_a_subset_are_kept_to():
    study = world(1500, 20)
    for fraction in (0.5, 0.95):
        check(study, ["subset"], within=1e-5, sims=(3,), fraction=fraction)


@pytest.mark.parametrize("binary", [True, False])
def test_a_treatment_of_whole_clusters_is_moved_by_clusters(binary):
    study = world(1200, 6, clusters=60, binary=binary)
    of_cluster = study.treatment[numpy.unique(study.clusters, return_index=True)[1]]
    study = dataclasses.replace(study, treatment=of_cluster[study.clusters])
    check(study, TESTS, within=1e-5)
    check(study, ["placebo"], within=1e-5, interacted=True)


def test_collinear_confounders_are_dropped_by_number_and_change_nothing():
    plain = world(1500, 12, seed=4)
    w = plain.confounders
    more = [w[:, :3], w[:, :1] * 2 - w[:, 1:2] + 5, w[:, 3:], numpy.full((1500, 1), 7.1), 1e-6 * w[:, 11:]]
    study = dataclasses.replace(plain, confounders=numpy.ascontiguousarray(numpy.concatenate(more, axis=1)))
    found, expected = ols.fit(study), ols.fit(plain)
    assert found.details["dropped"] == [3, 13, 14]
    assert found.effect == pytest.approx(expected.effect, rel=1e-9)
    assert found.se == pytest.approx(expected.se, rel=1e-9)
    assert found.df == expected.df
    check(study, TESTS, within=1e-5)
    check(study, TESTS, within=1e-5, interacted=True)


def test_a_dummy_of_few_rows_may_vanish_from_a_resample():
    study = world(3000, 24)
    w = study.confounders.copy()
    rng = numpy.random.default_rng(0)
    for j in range(8):
        w[:, j] = 0.0
        w[rng.choice(3000, 1 + j, replace=False), j] = 1.0
    check(dataclasses.replace(study, confounders=w), TESTS, within=1e-5, sims=range(0, 50, 7))
    small = dataclasses.replace(study, confounders=numpy.ascontiguousarray(w[:, 1:9]))
    check(small, TESTS, within=1e-5, sims=range(0, 50, 7))


def test_a_resample_without_the_treated_has_no_effect():
    study = world(400, 3)
    treatment = numpy.zeros(400)
    treatment[[5, 390]] = 1.0
    study = dataclasses.replace(study, treatment=treatment)
    shared = ols.prepare(study)
    assert weighted.solver(shared) == "alone"
    made = ols.simulate(study, shared, "bootstrap", 0, 1)
    lost = []
    for b in range(BATCH):
        counts = resample.counts(400, "bootstrap", 1, b)
        lost.append(counts[[5, 390]].sum() == 0)
        effect, se = ols.refit(study, counts=counts)
        assert numpy.isnan(made[b, 0]) == numpy.isnan(effect) == lost[-1]
        if not lost[-1]:
            assert abs(made[b, 0] - effect) < 1e-7 * se
    assert 0 < sum(lost) < BATCH


def test_one_enormous_row_costs_time_but_not_the_answer_and_is_said():
    study = world(3000, 30)
    w = study.confounders.copy()
    w[7, 3], w[8, 9] = 1e5, -1e4
    notes: list[str] = []
    check(dataclasses.replace(study, confounders=w), TESTS, within=1e-5, sims=range(0, 50, 9), notes=notes)
    assert "bootstrap" in notes[0]
    assert "high leverage" in notes[0]
    notes.clear()
    check(study, TESTS, within=1e-5, notes=notes)
    assert notes == []


@pytest.mark.parametrize("interacted", [False, True])
def test_a_batch_has_the_same_bits_whatever_else_ran(interacted):
    study = world(2300, 20, weights=True)
    shared = ols.prepare(study, interacted=interacted)
    for test in TESTS:
        alone = ols.simulate(study, shared, test, 50, 9, interacted=interacted)
        ols.simulate(study, shared, test, 0, 9, interacted=interacted)
        other = ols.prepare(study, interacted=interacted)
        for array in other.values():
            if isinstance(array, numpy.ndarray):
                array.setflags(write=False)
        again = ols.simulate(study, other, test, 50, 9, interacted=interacted)
        assert alone.tobytes() == again.tobytes()
        assert alone.tobytes() != ols.simulate(study, shared, test, 50, 10, interacted=interacted).tobytes()


def test_data_and_basis_may_be_files(tmp_path):
    study = world(3000, 24)
    numpy.save(tmp_path / "w.npy", study.confounders)
    mapped = dataclasses.replace(study, confounders=numpy.load(tmp_path / "w.npy", mmap_mode="r"))
    shared, expected = ols.prepare(mapped, scratch=str(tmp_path / "basis")), ols.prepare(study)
    assert isinstance(shared["basis"], numpy.memmap)
    for test in TESTS:
        made = ols.simulate(mapped, shared, test, 0, 1)
        assert made.tobytes() == ols.simulate(study, expected, test, 0, 1).tobytes()


def test_counts_that_are_not_kept_give_the_same_bits(monkeypatch):
    study = world(2500, 30)
    shared = ols.prepare(study)
    kept = ols.simulate(study, shared, "bootstrap", 0, 1)
    monkeypatch.setattr(weighted, "KEPT_BYTES", 0)
    assert kept.tobytes() == ols.simulate(study, shared, "bootstrap", 0, 1).tobytes()


@pytest.mark.parametrize(("binary", "weights"), list(itertools.product([True, False], repeat=2)))
def test_the_fit_is_that_of_statsmodels(binary, weights):
    study = world(1200, 9, binary=binary, weights=weights, hard=True)
    design = numpy.column_stack([numpy.ones(1200), study.treatment, study.confounders])
    model = sm.WLS(study.outcome, design, 1.0 if study.weights is None else study.weights)
    for errors in ("HC1", "HC3"):
        found, expected = ols.fit(study, errors=errors), model.fit(cov_type=errors)
        assert found.how == errors
        assert found.effect == pytest.approx(expected.params[1], rel=1e-8)
        assert found.se == pytest.approx(expected.bse[1], rel=1e-7)
        assert found.se_classic == pytest.approx(model.fit().bse[1], rel=1e-7)
        assert found.df == expected.df_resid
    groups = numpy.random.default_rng(1).integers(0, 40, 1200)
    found = ols.fit(dataclasses.replace(study, clusters=groups))
    expected = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert found.how == "cluster"
    assert found.se == pytest.approx(expected.bse[1], rel=1e-7)


@pytest.mark.parametrize("target", ["ate", "att", "atc"])
@pytest.mark.parametrize("weights", [False, True])
def test_the_interacted_fit_is_that_of_statsmodels(target, weights):
    study = world(1500, 6, weights=weights)
    w = numpy.ones(1500) if study.weights is None else study.weights
    member = w * {"ate": 1.0, "att": study.treatment, "atc": 1 - study.treatment}[target]
    away = study.confounders - (member[:, None] * study.confounders).sum(0) / member.sum()
    design = numpy.column_stack([numpy.ones(1500), study.treatment, away, study.treatment[:, None] * away])
    expected = sm.WLS(study.outcome, design, w).fit(cov_type="HC1")
    found = ols.fit(study, target, interacted=True)
    assert found.effect == pytest.approx(expected.params[1], rel=1e-9)
    assert found.details["se_conditional"] == pytest.approx(expected.bse[1], rel=1e-8)


@pytest.mark.parametrize("target", ["ate", "att"])
def test_the_interacted_error_is_the_spread_of_a_bootstrap(target):
    study = world(2000, 3, seed=2)
    strong = 6.0 * study.confounders[:, 0] * study.treatment  # the means of the target population matter
    study = dataclasses.replace(study, outcome=study.outcome + strong)
    shared = ols.prepare(study, target, interacted=True)
    made = [
        ols.simulate(study, shared, "bootstrap", b, 5, target=target, interacted=True)[:, 0] for b in range(0, 600, 50)
    ]
    found = ols.fit(study, target, interacted=True)
    assert numpy.std(made) == pytest.approx(found.se, rel=0.1)
    assert found.details["se_conditional"] < 0.75 * found.se


def test_bootstrap_and_subset_spread_as_the_robust_error_says():
    study = world(3000, 10, seed=6, clusters=0)
    shared, found = ols.prepare(study), ols.fit(study)
    for test, factor in (("bootstrap", 1.0), ("subset", numpy.sqrt(0.2 / 0.8))):
        made = [ols.simulate(study, shared, test, b, 5)[:, 0] for b in range(0, 600, 50)]
        assert numpy.std(made) == pytest.approx(factor * found.se, rel=0.1)
        assert numpy.mean(made) == pytest.approx(found.effect, abs=0.3 * found.se)


def test_partial_r2_needs_no_data():
    study = world(800, 7, weights=True)
    w = numpy.column_stack(
        [study.confounders[:, :3], study.confounders[:, 0] + study.confounders[:, 1], study.confounders[:, 3:]]
    )
    study = dataclasses.replace(study, confounders=numpy.ascontiguousarray(w))
    kept = [0, 1, 2, 4, 5, 6, 7]
    for interacted in (False, True):
        with_treatment, with_outcome = ols.partial_r2(ols.prepare(study, interacted=interacted))
        of_treatment = sm.WLS(study.treatment, sm.add_constant(w[:, kept]), study.weights).fit()
        of_outcome = sm.WLS(
            study.outcome, sm.add_constant(numpy.column_stack([w[:, kept], study.treatment])), study.weights
        ).fit()
        for found, fitted in ((with_treatment, of_treatment), (with_outcome, of_outcome)):
            t = fitted.tvalues[1:8]
            assert found[kept] == pytest.approx(t**2 / (t**2 + fitted.df_resid), rel=1e-9)
            assert numpy.isnan(found[3])


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(60, 1300),
    p=st.integers(1, 25),
    seed=st.integers(0, 10_000),
    weights=st.booleans(),
    clusters=st.sampled_from([0, 20]),
    factor=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_any_small_world_is_refitted_in_any_units(n, p, seed, weights, clusters, factor):
    study = world(n, p, seed=seed, weights=weights, clusters=clusters)
    study = dataclasses.replace(study, outcome=factor * study.outcome + 1000 * factor)
    check(study, TESTS, within=3e-5, sims=(1, 30), seed=seed)


def test_a_regenerated_treatment_is_refitted():
    study = world(1500, 20, binary=False)
    shared = ols.prepare(study)
    made = ols.simulate(study, shared, "placebo", 0, 2, placebo="regenerate")
    effect, se = ols.refit(study, treatment=resample.regenerated(study.treatment, 2, 11))
    assert abs(made[11, 0] - effect) < 1e-5 * se
    assert made[11, 1] == pytest.approx(se, rel=1e-5)
    with pytest.raises(WrongQuestion, match="not binary"):
        ols.simulate(world(300, 2), ols.prepare(world(300, 2)), "placebo", 0, 2, placebo="regenerate")


def test_questions_that_no_data_can_answer_are_refused():
    study = world(300, 4)
    with pytest.raises(WrongQuestion, match="does not vary"):
        ols.fit(dataclasses.replace(study, confounders=numpy.column_stack([study.confounders, 2 - study.treatment])))
    with pytest.raises(WrongQuestion, match="does not vary"):
        ols.fit(dataclasses.replace(study, treatment=numpy.ones(300)))
    with pytest.raises(WrongQuestion, match="nothing to judge"):
        ols.prepare(world(20, 18))
    with pytest.raises(WrongQuestion, match="binary"):
        ols.fit(world(300, 4, binary=False), "att", interacted=True)
    with pytest.raises(WrongQuestion, match="precision"):
        ols.simulate(study, ols.prepare(study), "placebo", 0, 0, precision="double")
    with pytest.raises(WrongQuestion, match="blocks"):
        ols.simulate(study, ols.prepare(study), "blocks", 0, 0)


@pytest.mark.parametrize("interacted", [False, True])
def test_the_three_ways_to_solve_are_one(interacted, monkeypatch):
    study = world(2500, 9, weights=True, clusters=500)
    shared, found = ols.prepare(study, interacted=interacted), {}
    for way, columns, heavy in (("together", 30, 0), ("conjugate", 1, 0), ("alone", 1, 1)):
        monkeypatch.setattr(weighted, "GRAM_COLUMNS", columns)
        assert weighted.solver({**shared, "heavy": heavy}) == way
        given = {**shared, "heavy": heavy}
        found[way] = [ols.simulate(study, given, test, 0, 1, interacted=interacted)[:, 0] for test in TESTS[:2]]
    for way in ("together", "conjugate"):
        assert numpy.abs(numpy.array(found[way]) - found["alone"]).max() < 1e-5 * shared["se_classic"]


@pytest.mark.parametrize(("n", "p"), [(20_000, 60), (60_000, 10)])
@pytest.mark.parametrize("interacted", [False, True])
@pytest.mark.parametrize("precision", ["fast", "exact"])
def test_declared_memory_is_enough_and_not_twice_too_much(n, p, interacted, precision):
    study = world(n, p, weights=True)
    options = {"interacted": interacted, "precision": precision}
    shared = ols.prepare(study, interacted=interacted)
    ols.simulate(study, shared, "bootstrap", 0, 0, **options)  # compiled now
    peaks = []
    for test in TESTS:
        tracemalloc.start()
        ols.simulate(study, shared, test, 50, 0, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    private, stored = ols.memory(n, p, weighted=True, **options)
    assert max(peaks) <= private <= 2 * max(peaks)
    size = sum(array.nbytes for array in shared.values() if isinstance(array, numpy.ndarray))
    assert size <= stored <= 1.05 * size


def test_treatments_held_a_few_at_a_time_give_the_same_effects(monkeypatch):
    for binary in (True, False):
        study = world(1500, 12, binary=binary)
        for interacted in (False, True):
            shared = ols.prepare(study, interacted=interacted)
            whole = ols.simulate(study, shared, "placebo", 50, 4, interacted=interacted)
            with monkeypatch.context() as patch:
                patch.setattr(placebo, "HELD_BYTES", 4 * 3 * 1500)
                parts = ols.simulate(study, shared, "placebo", 50, 4, interacted=interacted)
            assert numpy.abs(whole - parts).max() < 1e-5 * whole[:, 1].min()


def test_the_correction_from_both_sides_saves_steps():
    study = world(20_000, 40)
    shared = ols.prepare(study)
    basis, weights = shared["basis"], resample.Counts(20_000, "subset", 0, 0, BATCH)
    right, image = conjugate.moments(basis, weights, [shared["residual"], basis[:, 1]])
    functional = numpy.zeros_like(right)
    functional[:, 1] = 1.0
    bound = 2e-6 * numpy.sqrt(shared["error_squares"] / shared["df"])
    none, one, both = (
        conjugate.solve(basis, weights, right, functional, adjoint, 0.8, bound, 30)
        for adjoint in (0.0 * functional, functional / 0.8, (2 * functional - image / 0.8) / 0.8)
    )
    assert both.steps < one.steps < none.steps
    assert not both.stuck.any()
    assert numpy.abs(both.values - none.values).max() < 3 * bound

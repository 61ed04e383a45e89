"""Gram matrices by torch are those of NumPy, and what simulations make of them is what refitting gives. On the processor,
where torch runs the same code as on a GPU."""

from __future__ import annotations

import importlib.util

import numpy
import pytest
from threadpoolctl import threadpool_limits

from millrace.analyses.refute.kernels import device_grams, grams, ols, resample
from millrace.analyses.refute.kernels.whiten import Whitened, basis_rows
from millrace.analyses.refute.study import BATCH, Study

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("torch"), reason="torch, some gigabytes, is no part of the set-up: pip install torch"
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1, "blas"):
        yield


def world(n: int, p: int, *, weights=False, clusters=0, lonely=0) -> Study:
    """lonely: so many rows are treated, all others are not."""
    rng = numpy.random.default_rng(n + p)
    confounders = rng.standard_normal((n, p))
    treatment = (confounders[:, 0] + rng.standard_normal(n) > 0).astype(float)
    if lonely:
        treatment = (numpy.arange(n) < lonely).astype(float)
    outcome = treatment * (1 + confounders[:, -1]) + confounders.sum(1) + rng.standard_normal(n)
    return Study(
        treatment, outcome, confounders,
        (lambda w: w / w.mean())(rng.gamma(2.0, 1.0, n)) if weights else None,
        numpy.unique(rng.integers(0, clusters, n), return_inverse=True)[1] if clusters else None,
    )  # fmt: skip


def relative(found, expected):
    return numpy.abs(found - expected).max() / numpy.abs(expected).max()


@pytest.mark.parametrize("test", ["bootstrap", "subset"])
@pytest.mark.parametrize("made", [world(700, 3), world(5_000, 12, weights=True), world(3_000, 6, clusters=90)])
@pytest.mark.parametrize("block_bytes", [1, device_grams.BLOCK_BYTES])
def test_they_are_those_of_numpy(monkeypatch, test, made, block_bytes):
    monkeypatch.setattr(device_grams, "BLOCK_BYTES", block_bytes)
    shared = ols.prepare(made)
    whitened = Whitened.of(shared)
    counts = resample.Counts(made.rows, test, 3, 100, BATCH, 0.8, made.clusters)

    def rows_of(begin, end):
        return basis_rows(made, whitened, shared["whitener"], begin, end)[0]

    which = numpy.array([0, 7, 8, 49])
    device = device_grams.DeviceGrams("cpu")
    found = device.alone(rows_of, counts, which, shared["residual"])
    assert relative(found, grams.alone(rows_of, counts, which, shared["residual"])) < 1e-12

    together = device.together(shared["basis"], counts, shared["residual"])
    rows = numpy.column_stack([shared["basis"].astype(float), shared["residual"]])
    naive = numpy.einsum("bn,ni,nj->bij", counts.rows().astype(float), rows, rows, optimize=True)
    assert relative(together, naive) < 1e-12


@pytest.mark.parametrize(("precision", "allowed"), [("fast", 2e-6), ("exact", 1e-9)])
@pytest.mark.parametrize("options", [{}, {"interacted": True}])
@pytest.mark.parametrize("made", [world(2_000, 4), world(2_500, 30, weights=True), world(3_000, 5, clusters=200)])
def test_simulations_are_those_of_the_processor(made, options, precision, allowed):
    shared = ols.prepare(made, **options)
    for test in ("bootstrap", "subset"):
        asked = (made, shared, test, 50, 11)
        found = ols.simulate(*asked, precision=precision, made=device_grams.DeviceGrams("cpu"), **options)
        expected = ols.simulate(*asked, precision=precision, **options)
        assert numpy.isnan(found[:, 1]).all()
        assert numpy.abs(found - expected)[:, 0].max() < allowed * shared["se_classic"]
        for i in (50, 99):
            drawn = resample.counts(made.rows, test, 11, i, clusters=made.clusters)
            effect, _ = ols.refit(made, counts=drawn, **options)
            assert abs(found[i - 50, 0] - effect) < max(allowed, 2e-6) * shared["se_classic"]


def test_a_resample_without_the_treated_has_no_effect_on_either():
    made = world(1_500, 3, lonely=2)
    shared = ols.prepare(made)
    assert shared["heavy"]
    found = ols.simulate(made, shared, "bootstrap", 0, 5, made=device_grams.DeviceGrams("cpu"))
    expected = ols.simulate(made, shared, "bootstrap", 0, 5)
    assert numpy.isnan(expected[:, 0]).any() and not numpy.isnan(expected[:, 0]).all()
    assert (numpy.isnan(found[:, 0]) == numpy.isnan(expected[:, 0])).all()
    assert numpy.nanmax(numpy.abs(found - expected)[:, 0]) < 1e-9 * shared["se_classic"]

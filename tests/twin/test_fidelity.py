"""Measures are what they are called, beside plain formulas and known answers."""

from __future__ import annotations

import numpy
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

import millrace as mr
from millrace.analyses.twin.kernels import measures
from millrace.run.errors import WrongQuestion


def test_shape_is_one_less_kolmogorov_smirnov_or_total_variation():
    rng = numpy.random.default_rng(0)
    a, b = rng.normal(size=800), rng.normal(0.4, 1, size=600)
    found = measures.shapes(a[:, None], b[:, None], numpy.array([False]))[0]
    assert found == pytest.approx(1 - ks_2samp(a, b).statistic)
    x, y = numpy.array([0.0, 0, 1, 2]), numpy.array([0.0, 1, 1, 1])
    assert measures.shapes(x[:, None], y[:, None], numpy.array([True]))[0] == pytest.approx(1 - (0.25 + 0.5 + 0.25) / 2)
    y[0] = numpy.nan
    assert measures.shapes(x[:, None], y[:, None], numpy.array([True]))[0] < 0.6


def test_the_same_rows_are_the_same_by_every_measure():
    rng = numpy.random.default_rng(1)
    X = numpy.column_stack([rng.normal(size=500), rng.integers(0, 3, 500), rng.exponential(size=500)])
    nominal = numpy.array([False, True, False])
    assert measures.shapes(X, X, nominal).min() == 1
    assert measures.trends(X, X, nominal).min() == 1
    assert measures.margins(X, X, nominal, 0) == 1


def test_auc_is_that_of_scikit_learn_with_ties():
    rng = numpy.random.default_rng(2)
    y = rng.integers(0, 2, 400)
    s = (y + rng.normal(size=400)).round(1)
    assert measures.auc(s, y) == pytest.approx(roc_auc_score(y, s))


def test_nearest_is_that_of_a_plain_search():
    rng = numpy.random.default_rng(3)
    A, B = rng.random((40, 3)).astype("f4"), rng.random((70, 3)).astype("f4")
    A[:, 2], B[:, 2] = rng.integers(0, 3, 40), rng.integers(0, 3, 70)
    nominal = numpy.array([False, False, True])
    plain = numpy.abs(A[:, None, :2] - B[None, :, :2]).sum(2) + (A[:, None, 2] != B[None, :, 2])
    numpy.testing.assert_allclose(measures.nearest(A, B, nominal, False), plain.min(1), rtol=1e-5)


def test_copies_of_training_rows_are_seen_and_strangers_are_not():
    rng = numpy.random.default_rng(4)
    train, held, strangers = (rng.normal(size=(1_500, 4)) for _ in range(3))
    nominal = numpy.zeros(4, bool)
    copied = measures.privacy(train, held, train, nominal, 0)
    assert copied["copies"] == 1
    assert copied["share_nearer"] == 1
    assert copied["membership"] > 0.95
    apart = measures.privacy(train, held, strangers, nominal, 0)
    assert apart["copies"] == 0
    assert apart["share_nearer"] == pytest.approx(0.5, abs=0.05)
    assert apart["membership"] == pytest.approx(0.5, abs=0.06)


@pytest.fixture(scope="module")
def fidelity(model, table, tmp_path_factory):
    import populations

    out = tmp_path_factory.mktemp("assessed")
    return mr.twin.assess(model, table, holdout=populations.people(3_000, 1), target="score", engine="inline", out=out)


def test_an_assessment_says_all_that_is_asked(fidelity):
    assert fidelity.shape > 0.97
    assert fidelity.trend > 0.95
    assert 0.4 < fidelity.c2st < 0.75
    assert sum(fidelity.violations.values()) == 0
    assert "spent <= income" in fidelity.violations
    assert fidelity.utility["kind"] == "R2"
    assert fidelity.utility["twins"] <= fidelity.utility["real"] + 0.1
    assert fidelity.privacy["copies"] <= 0.01
    assert fidelity.grade in ("excellent", "good", "fair")
    said = " ".join(fidelity.findings())
    assert "No twin breaks a constraint" in said
    assert "Privacy:" in said


def test_its_report_and_pictures_are_written(fidelity):
    names = {p.name for p in fidelity.out.iterdir()}
    assert {
        "report.html",
        "result.json",
        "columns.parquet",
        "pairs.parquet",
        "columns.vl.json",
        "privacy.vl.json",
    } <= names
    for name in fidelity.charts():
        assert (fidelity.out / f"{name}.png").stat().st_size > 5_000 or (fidelity.out / f"{name}.svg").exists()


def test_without_a_holdout_privacy_is_unknown(model, table):
    found = mr.twin.assess(model, table, rows=500, engine="inline")
    assert found.privacy is None
    assert any("unknown" in note for note in found.notes)


def test_rows_that_cannot_be_compared_are_said(model, table):
    import pyarrow

    texts = table.set_column(1, "age", pyarrow.array(["old"] * table.num_rows))
    for real, held, said in (
        (table.drop_columns(["income"]), None, "no column 'income' in the real rows"),
        (table, table.drop_columns(["city"]), "no column 'city' in the holdout"),
        (table, table.slice(0, 5), "There are 5 rows in the holdout, and 50"),
        (table, texts, "'age' holds text in the holdout"),
    ):
        with pytest.raises(WrongQuestion, match=said):
            mr.twin.assess(model, real, holdout=held, engine="inline")

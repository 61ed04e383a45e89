"""A deadline leaves no half model, and the first twins of a file; with fit, what fits is asked."""

from __future__ import annotations

import pytest

import millrace as mr
from millrace.run.errors import AnalysisFailed


def test_a_model_or_an_assessment_is_whole_or_not_at_all(table, model, tmp_path):
    with pytest.raises(AnalysisFailed, match=r"The deadline came after \d+ of \d+ tasks \(columns\)"):
        mr.twin.fit(table, drop=["id"], engine="inline", deadline=0.001)
    with pytest.raises(AnalysisFailed, match=r"The deadline came after \d+ of 5 tasks \(the classifier\)"):
        mr.twin.assess(model, table, engine="inline", deadline=0.001)
    with pytest.raises(AnalysisFailed, match="before any of 1,000 twins"):
        mr.twin.generate(model, 1_000, engine="inline", deadline=0.001, out=tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_deadline_leaves_the_first_twins(model, tmp_path):
    n = 50_000_000
    twins = mr.twin.generate(model, n, engine="inline", deadline=5, out=tmp_path / "t.parquet")
    assert 0 < twins.rows < n
    assert next(twins.batches(200)).to_pylist() == mr.twin.sample(model, 200).to_pylist()
    assert any(f"{twins.rows:,} of {n:,} twins" in note for note in twins.notes)


@pytest.mark.slow
def test_what_fits_is_asked(model, tmp_path):
    n = 500_000_000
    twins = mr.twin.generate(model, n, engine="inline", deadline=12, fit=True, out=tmp_path / "t.parquet")
    assert twins.rows < n
    assert any(f"{n:,} twins do not fit" in note and "fit=True" in note for note in twins.notes)

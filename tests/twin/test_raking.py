"""Weights have the margins that are known, and say so when they cannot."""

from __future__ import annotations

import numpy
import pytest

import millrace as mr
from millrace.run.errors import WrongQuestion

MARGINS = {"country": {"north": 2.0, "south": 5.0, "west": 3.0}, "member": {"true": 40, "false": 60}}


def test_weighted_twins_have_the_margins_and_rows_keep_their_weights(model, tmp_path):
    twins = mr.twin.generate(model, 70_000, margins=MARGINS, out=tmp_path / "t.parquet", engine="inline").to_pandas()
    weights = twins.twin_weight
    assert weights.mean() == pytest.approx(1, abs=0.02)
    for level, share in (("north", 0.2), ("south", 0.5), ("west", 0.3)):
        assert weights[twins.country == level].sum() / weights.sum() == pytest.approx(share, abs=0.01)
    assert weights[twins.member].sum() / weights.sum() == pytest.approx(0.4, abs=0.01)
    few = mr.twin.generate(model, 500, margins=MARGINS, engine="inline").to_pandas()
    numpy.testing.assert_array_equal(few.twin_weight, weights[:500])


@pytest.mark.parametrize(
    ("margins", "said"),
    [
        ({"country": {"north": 1, "south": 1}}, "lacks the level 'west'"),
        ({"country": {"north": 1, "south": 1, "west": 1, "east": 1}}, "has no level 'east'"),
        ({"income": {"1": 1}}, "'income' is no column of categories"),
        ({"member": {"true": -1, "false": 2}}, "below zero"),
        (
            {
                "country": {"north": 1, "south": 0, "west": 0},
                "city": {"aa": 0, "ab": 0, "ba": 0, "bb": 0, "bc": 0, "ca": 1},
            },
            "no twin has|contradict",
        ),
    ],
)
def test_margins_that_cannot_be_are_told(model, margins, said):
    with pytest.raises(WrongQuestion, match=said):
        mr.twin.generate(model, 100, margins=margins, engine="inline")

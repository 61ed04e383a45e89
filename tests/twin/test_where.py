"""Conditions say what they mean, and what is not understood is told."""

from __future__ import annotations

import datetime

import numpy
import pytest

from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.where import clauses
from millrace.run.errors import WrongQuestion

COLUMNS = (
    Column("age", "integer", "int64", 3, values=numpy.array([20.0, 40.0, 60.0])),
    Column("region", "category", "string", 2, labels=("west", "north")),
    Column("net income", "number", "double", 3, values=numpy.array([1.0, 2.0, 3.0])),
    Column("joined", "date", "date32[day]", 2, values=numpy.array([18_000.0, 19_000.0])),
)
ROWS = {
    "age": numpy.array([20.0, 40.0, 60.0, numpy.nan]),
    "region": numpy.array(["west", "north", None, "west"], object),
    "net income": numpy.array([1.0, 2.0, 3.0, 2.5]),
    "joined": numpy.array([18_000.0, 19_000.0, 18_262.0, 18_263.0]),
}


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("age >= 40", [0, 1, 1, 0]),
        ("30 < age <= 60", [0, 1, 1, 0]),
        ("region == 'west'", [1, 0, 0, 1]),
        ("region != 'west'", [0, 1, 0, 0]),
        ("region is None", [0, 0, 1, 0]),
        ("age is not None", [1, 1, 1, 0]),
        ("region in ['west', 'north']", [1, 1, 0, 1]),
        ("region not in ['west']", [0, 1, 1, 0]),
        ("not (age > 30 or region == 'west')", [0, 0, 0, 0]),
        ("age > 30 or region == 'west'", [1, 1, 1, 1]),
        ("`net income` * 2 + 1 >= 5", [0, 1, 1, 1]),
        ("joined >= '2020-01-01'", [0, 1, 1, 1]),
        ({"age": {"low": 30, "high": 50}}, [0, 1, 0, 0]),
        ({"region": ["north"], "net income": 2}, [0, 1, 0, 0]),
        ({"age": {"low": 40}}, [0, 1, 1, 0]),
        ({"age": {"high": numpy.float64(40)}}, [1, 1, 0, 0]),
        ({"age": [numpy.int64(20), 60]}, [1, 0, 1, 0]),
        ({"joined": {"low": datetime.date(2020, 1, 1)}}, [0, 1, 1, 1]),
    ],
)
def test_a_condition_holds_where_it_says(text, held):
    found = numpy.ones(4, bool)
    for clause in clauses(text, COLUMNS):
        found &= clause.holds(ROWS.__getitem__)
    assert found.tolist() == [bool(h) for h in held]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agee > 3", "no column 'agee'"),
        ("region == west", "no column 'west'"),
        ("region == 'wst'", "has no level 'wst'; it has 'north', 'west'"),
        ("region == 3", "is a category, and 3 is a number"),
        ("age >= 60 and age <= 50", "interval the wrong way round"),
        ({"age": {"low": 60, "high": 50}}, "interval the wrong way round"),
        ("age >", "cannot be read"),
        ("__import__('os')", "something other than comparisons"),
        ("age.real > 3", "something other than comparisons"),
        ("1 == 1", "is about no column"),
        ("age > 'young'", "is no date"),
    ],
)
def test_what_is_not_understood_is_told(text, said):
    with pytest.raises(WrongQuestion, match=said):
        [c.holds(ROWS.__getitem__) for c in clauses(text, COLUMNS)]

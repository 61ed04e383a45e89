"""What no model can be of is told before the long work: the column, the rows, and what to do."""

from __future__ import annotations

import numpy
import pandas
import pyarrow
import pytest

import millrace as mr
from millrace.run.errors import WrongQuestion

N = 200
X = 3.0 * numpy.arange(N)
GOOD = {"x": X, "k": ["a", "b"] * (N // 2)}


def fit(columns, **more):
    return mr.twin.fit(
        pyarrow.table(columns) if isinstance(columns, dict) else columns, engine="inline", joint="plain", **more
    )


@pytest.mark.parametrize(
    ("columns", "more", "said"),
    [
        (GOOD, {"drop": ["z"]}, "no column 'z', which drop names"),
        (GOOD, {"outcome": "z"}, "no column 'z', which outcome names"),
        (GOOD, {"drop": ["x", "k"]}, "Every column is left out"),
        ({**GOOD, "x": numpy.where(X == 3, numpy.inf, X)}, {}, "infinite values .rows .1"),
        ({**GOOD, "name": [f"n{i}" for i in range(N)]}, {}, "'name' has 200 different texts in 200 rows.*drop='name'"),
        ({"x": X[:20]}, {}, "20 rows; a joint distribution needs 50"),
        (GOOD, {"constraints": "x <= 5"}, "The data break 'x <= 5' in 198 rows .from 0.: row 2: x = 6"),
        (GOOD, {"constraints": "x <= kk"}, "no column 'kk'"),
        (GOOD, {"schema": {"columns": {"x": {"low": 0, "high": 9}}}}, "'x' is from 0 to 9, and 196 rows are not: row 4: 12.0"),
        (GOOD, {"schema": {"columns": {"k": {"levels": ["a"]}}}}, "one of 'a', and 100 rows are not: row 1: 'b'"),
        (GOOD, {"schema": {"columns": {"x": {"low": 9, "high": 0}}}}, "interval the wrong way round"),
        (GOOD, {"schema": {"columns": {"x": {"kind": "text"}}}}, "of kind 'text'; there are"),
        (GOOD, {"schema": {"rows": 3}}, "has 'rows'; it may have"),
        ({"one": [1] * N}, {}, "Every column is constant"),
        (GOOD, {"treatment": "k"}, "a treatment is named and no outcome"),
        (GOOD, {"min_leaf": 100}, "200 rows, and a twin's value is drawn among 100 at least"),
    ],
)  # fmt: skip
def test_it_is_told(columns, more, said):
    with pytest.raises(WrongQuestion, match=said):
        fit(columns, **more)


def test_the_same_name_twice_and_mixed_types_are_told():
    frame = pandas.DataFrame(numpy.zeros((N, 2)), columns=["a", "a"])
    with pytest.raises(WrongQuestion, match="more than one column called 'a'"):
        fit(frame)
    mixed = pandas.DataFrame({"a": [1, "b"] * (N // 2)}, dtype=object)
    with pytest.raises(WrongQuestion, match="'a' of the data has values of mixed types"):
        fit(mixed)


def test_a_frame_is_never_changed():
    frame = pandas.DataFrame({"x": X, "k": pandas.Categorical(["a", "b"] * (N // 2))})
    before = frame.copy(deep=True)
    fit(frame)
    pandas.testing.assert_frame_equal(frame, before)


def test_no_file_no_model(tmp_path):
    with pytest.raises(WrongQuestion, match="There is no file"):
        mr.twin.fit(tmp_path / "no.parquet", engine="inline")
    with pytest.raises(WrongQuestion, match="There is no model of twins"):
        mr.twin.load(tmp_path)
    with pytest.raises(WrongQuestion, match="ends in .parquet"):
        mr.twin.generate(fit(GOOD), 10, out=tmp_path / "x.csv", engine="inline")

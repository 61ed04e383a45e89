"""What no model can be of is told before the long work: the column, the rows, and what to do."""

from __future__ import annotations

import datetime

import numpy
import pandas
import pyarrow
import pyarrow.csv
import pytest

import millrace as mr
from millrace.run.errors import NotSupported, WrongQuestion

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
        (GOOD, {"schema": {"columns": {"x": {"low": 0, "high": 9}}}}, "from 0 to 9, and 196 rows are not .from 0.: row 4: 12.0"),
        (GOOD, {"schema": {"columns": {"k": {"levels": ["a"]}}}}, "one of 'a', and 100 rows are not .from 0.: row 1: 'b'"),
        (GOOD, {"schema": {"columns": {"x": {"low": 9, "high": 0}}}}, "interval the wrong way round"),
        (GOOD, {"schema": {"columns": {"x": {"kind": "text"}}}}, "of kind 'text'; there are"),
        (GOOD, {"schema": {"rows": 3}}, "has 'rows'; it may have"),
        (GOOD, {"schema": {"columns": {"k": {"low": 1}}}}, "'k' is 1 or more, and the data have string there"),
        (GOOD, {"schema": {"columns": {"x": {"high": "later"}}}}, "'x' is later or less, and the data have double there"),
        (GOOD, {"schema": {"columns": {"x": {"low": [1]}}}}, "low of 'x' is .1., and no number or date"),
        (GOOD, {"schema": {"columns": {"x": {"low": 1, "high": "2024-01-01"}}}}, "a number at one end and a date at the other"),
        (GOOD, {"schema": {"columns": ["x"]}}, "columns are a mapping"),
        (GOOD, {"schema": {"columns": {"x": 3}}}, "column 'x' is 3; say its kind"),
        (GOOD, {"schema": {"columns": {"x": "boolean"}}}, r"a truth value \(0 or 1\), and 199 rows are not .from 0.: row 1: 3.0"),
        (GOOD, {"schema": {"columns": {"x": "date"}}}, "'x' is a date, and 200 rows are not"),
        (GOOD, {"schema": {"columns": {"k": "number"}}}, "'k' is a number, and 200 rows are not .from 0.: row 0: 'a'"),
        (GOOD, {"schema": {"columns": {"k": "key"}}}, "'k' is a key, another in every row, and 200 rows are not"),
        (GOOD, {"outcome": "x", "drop": ["x"]}, "'x' is named as outcome, and left out by drop"),
        (GOOD, {"outcome": "x", "learner": "oracle"}, "no learner 'oracle'; there are lightgbm"),
        ({**GOOD, "y": [1.0] * N}, {"outcome": "y"}, "'y' has the single value 1: there is nothing"),
        ({**GOOD, "y": [1.0] * 5 + [0.0] * 195}, {"outcome": "y"}, "Only 5 rows have y = 1, and 20 of either value"),
        ({**GOOD, "y": ["yes"] * N}, {"outcome": "y"}, "'y' has the single value 'yes'"),
        ({**GOOD, "y": [None] * 150 + list(range(50))}, {"outcome": "y"}, "'y' is missing in 150 of 200 rows"),
        ({**GOOD, "u": numpy.arange(N) + 2**60}, {}, "'u' has whole numbers beyond .*say kind = .key"),
        ({"one": [1] * N}, {}, "Every column is constant"),
        (GOOD, {"treatment": "k"}, "a treatment is named and no outcome"),
        (GOOD, {"min_leaf": 100}, "200 rows, and a twin's value is drawn among 100 at least"),
    ],
)  # fmt: skip
def test_it_is_told(columns, more, said):
    with pytest.raises((WrongQuestion, NotSupported), match=said):
        fit(columns, **more)


def test_a_column_of_a_million_levels_is_refused_by_its_name():
    many = {"user": [f"u{i}" for i in range(1_000_000)], "x": numpy.random.default_rng(0).normal(size=1_000_000)}
    with pytest.raises(WrongQuestion, match="'user' has 1,000,000 different texts.*drop='user'"):
        fit(many)


def test_a_treatment_without_overlap_is_said_before_any_outcome_is_learnt(tmp_path):
    rng = numpy.random.default_rng(0)
    x = rng.normal(size=600)
    table = pyarrow.table({"x": x, "t": x > 0, "y": x + rng.normal(size=600)})
    with pytest.raises(WrongQuestion, match="nobody to compare with"):
        mr.twin.fit(table, outcome="y", treatment="t", engine="inline", store=tmp_path / "store", out=tmp_path / "out")
    tasks = [line for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines() if "outcome model" in line]
    assert tasks == []


def test_dates_have_ranges_that_hold_on_twins():
    days = pyarrow.array(18_000 + numpy.random.default_rng(0).integers(0, 300, N), pyarrow.int32()).cast(
        pyarrow.date32()
    )
    columns = {**GOOD, "day": days}
    schema = {"columns": {"day": {"kind": "date", "low": datetime.date(2019, 1, 1), "high": "2020-06-01"}}}
    model = fit(columns, schema=schema)
    assert any("day" in c["said"] for c in model.constraints)
    with pytest.raises(
        WrongQuestion, match="'day' is 2020-01-01 or more, and .* rows are not .from 0.: row .*: '2019-"
    ):
        fit(columns, schema={"columns": {"day": {"low": "2020-01-01"}}})


def test_constraints_of_a_schema_may_be_one_text():
    model = fit(GOOD, schema={"constraints": "x >= 0; x <= 1000"})
    assert {"x >= 0", "x <= 1000"} <= {c["said"] for c in model.constraints}


def test_an_object_in_the_question_is_not_printed_whole():
    with pytest.raises(WrongQuestion) as said:
        fit(GOOD, outcome="x", treatment="x")
    assert str(said.value) == "twin fit cannot be asked so. 'x' is both treatment and outcome."


def test_text_among_numbers_is_said(tmp_path):
    """A file has no types: one word in a column of numbers makes text of all of it."""
    few = ["unknown" if i % 50 == 0 else str(i % 7) for i in range(300)]
    (tmp_path / "few.csv").write_text("a,b\n" + "".join(f"{v},{i % 11}\n" for i, v in enumerate(few)))
    model = fit(pyarrow.csv.read_csv(tmp_path / "few.csv"))
    assert any("'a' holds text among numbers (294 rows" in note for note in model.notes)
    many = ["unknown" if i % 50 == 0 else f"{i / 7:.4f}" for i in range(300)]
    with pytest.raises(
        WrongQuestion, match="'a' has 295 different texts.*In 294 rows it is a number: mend or empty the others"
    ):
        fit({"a": many, "b": list(range(0, 900, 3))})


def test_tables_of_polars_are_read_as_they_are():
    import polars

    frame = polars.DataFrame({"x": X, "k": ["a", "b"] * (N // 2)})
    assert mr.twin.sample(fit(frame), 40).equals(mr.twin.sample(fit(GOOD), 40))


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

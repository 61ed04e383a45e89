"""What a column becomes: kinds are learnt and kept, what no twin can be made of is refused with its reason."""

from __future__ import annotations

import numpy
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.twin import describing
from millrace.analyses.twin.columns import CODES, MISSING_RANK
from millrace.run.errors import WrongQuestion

values = st.one_of(
    st.lists(st.integers(-50, 50).map(float), min_size=60, max_size=400),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=60, max_size=400),
)


@settings(max_examples=60, deadline=None)
@given(given=values, absent=st.integers(0, 20))
def test_codes_and_ranks_give_back_where_a_value_lies(given, absent):
    data = pyarrow.array([None] * absent + given, pyarrow.float64())
    column = describing.describe("x", data, {}, "standard")
    if column.kind in ("constant", "key"):
        return
    codes, ranks = describing.encode(column, data)
    assert column.missing == bool(absent)
    assert (codes[:absent] == column.codes).all()
    assert (codes[absent:] < column.codes).all()
    known = numpy.asarray(given)
    if column.ranked:
        assert (ranks[:absent] == MISSING_RANK).all()
        numpy.testing.assert_array_equal(column.values[ranks[absent:]], known)
        numpy.testing.assert_array_equal(codes[absent:], numpy.searchsorted(column.edges, known, "left"))
    else:
        numpy.testing.assert_array_equal(column.values[codes[absent:]], known)
    assert column.codes <= CODES


def test_kinds_are_learnt():
    stamp = pyarrow.array([0, 86_400_000_000 * 3, None] * 40, pyarrow.int64()).cast(pyarrow.timestamp("us", tz="UTC"))
    cases = {
        "integer": pyarrow.array([1.0, 2.0, 3.0] * 40), "number": pyarrow.array([1.5, 2.0, 3.0] * 40),
        "boolean": pyarrow.array([True, False, None] * 40), "date": stamp, "category": pyarrow.array(["a", "b", None] * 40),
        "constant": pyarrow.array([7] * 120),
    }  # fmt: skip
    for kind, data in cases.items():
        assert describing.describe("x", data, {}, "standard").kind == kind
    assert describing.describe("x", stamp, {}, "standard").arrow == "timestamp[us, tz=UTC]"


def test_rare_categories_are_one_by_how_much_privacy_is_asked_for():
    data = pyarrow.array(["a"] * 100 + ["b"] * 12 + ["c"] * 3 + ["d"] * 2)
    low, standard, high = (describing.describe("x", data, {}, p) for p in ("low", "standard", "high"))
    assert low.labels == ("a", "b", "c", "d")
    assert standard.labels == ("a", "b", describing.OTHER)
    assert high.labels == ("a", describing.OTHER)
    assert standard.known["pooled_rows"] == 5


def test_a_pool_is_never_rarer_than_what_is_rare():
    data = pyarrow.array(["a"] * 100 + ["b"] * 12 + ["c"] * 1)
    column = describing.describe("x", data, {}, "standard")
    assert column.labels == ("a", describing.OTHER)


def test_many_categories_depend_as_one_and_stay_known():
    rng = numpy.random.default_rng(0)
    data = pyarrow.array([f"c{k}" for k in rng.integers(0, 400, 20_000)])
    column = describing.describe("x", data, {}, "standard")
    assert column.codes == CODES
    assert len(column.pooled) == 400 - CODES + 1
    assert sum(share for _, share in column.pooled) == pytest.approx(1)


def test_decimals_are_known():
    rng = numpy.random.default_rng(0)
    assert describing.describe("x", pyarrow.array(rng.normal(size=900).round(2)), {}, "standard").scale == 100
    assert describing.describe("x", pyarrow.array(rng.normal(size=900)), {}, "standard").scale == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pyarrow.array([f"name {i}" for i in range(900)]), "900 different texts in 900 rows"),
        (pyarrow.array([1.0, float("inf")] * 50), "infinite values .rows .1, 3"),
        (pyarrow.array([[1], [2]] * 50), "holds list"),
    ],
)
def test_what_no_twin_can_be_made_of_is_refused(data, said):
    with pytest.raises(WrongQuestion, match=said):
        describing.describe("x", data, {}, "standard")


def test_a_category_that_training_has_not_seen_is_named():
    column = describing.describe("x", pyarrow.array(["a", "b"] * 50), {}, "standard")
    with pytest.raises(WrongQuestion, match="has not seen: 'z'"):
        describing.encode(column, pyarrow.array(["a", "z"]))


def test_whole_numbers_that_count_rows_are_a_key_and_a_schema_says_otherwise():
    data = pyarrow.array(numpy.random.default_rng(0).permutation(400) + 7)
    assert describing.describe("x", data, {}, "standard").kind == "key"
    assert describing.describe("x", data, {"kind": "integer"}, "standard").kind == "integer"


def test_numbers_that_are_called_categories_keep_their_type():
    import millrace as mr

    codes = pyarrow.array(numpy.random.default_rng(0).integers(1, 4, 400))
    table = pyarrow.table({"x": codes, "y": numpy.random.default_rng(1).normal(size=400)})
    model = mr.twin.fit(table, schema={"columns": {"x": "category"}}, engine="inline", joint="plain")
    twins = mr.twin.sample(model, 100)
    assert model.column("x").kind == "category"
    assert twins["x"].type == codes.type
    assert set(twins["x"].to_pylist()) == {1, 2, 3}


def test_the_values_of_a_column_are_said_for_people():
    import datetime

    days = pyarrow.array([datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in range(300)])
    for data, said in (
        (days, "2020-01-01 to 2020-10-26"),
        (days.cast(pyarrow.timestamp("us")), "2020-01-01T00:00:00.000000 to 2020-10-26T00:00:00.000000"),
        (pyarrow.array([False, True] * 50), "false to true"),
        (pyarrow.array([1000.0, 2500.5] * 50), "1,000 to 2,500"),
        (pyarrow.array(list("abcdefgh") * 50), "a, b, c, d, e, f and 2 more"),
    ):
        assert (
            describing.describe("x", data, {"kind": "date"} if data is days else {}, "standard").values_text() == said
        )

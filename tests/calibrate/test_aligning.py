"""Outputs are joined to observations as a database would, whatever library their tables are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from millrace.analyses.calibrate.aligning import WrongOutputs
from millrace.analyses.calibrate.parts import Target
from millrace.analyses.calibrate.targets import read_target

ROWS = {"day": [1, 2, 3, 1, 2, 3], "group": ["a", "a", "a", "b", "b", "b"], "cases": [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]}
KINDS = {
    "mapping": lambda columns: columns,
    "arrays": lambda columns: {n: np.asarray(c) for n, c in columns.items()},
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "arrow": pyarrow.table,
    "structured": lambda columns: pandas.DataFrame(columns).to_records(index=False),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_exact_join_takes_the_row_of_equal_values_in_the_order_observed(kind: str) -> None:
    data = {"day": [3, 1], "group": ["b", "a"], "cases": [31, 2]}
    if kind == "structured":
        ROWS_PLAIN = {"day": ROWS["day"], "cases": ROWS["cases"]}
        target = read_target(Target(name="t", data={"day": [3], "cases": [1]}, on=("day",), column="cases"))
        made = KINDS[kind]({n: c[:3] for n, c in ROWS_PLAIN.items()})
        assert target.alignment.take({"t": made}).tolist() == [[3.0]]
        return
    target = read_target(Target(name="t", data=KINDS[kind](data), on=("day", "group"), column="cases"))
    assert target.alignment.take({"t": KINDS[kind](ROWS)}).tolist() == [[30.0, 1.0]]
    assert target.values.tolist() == [31.0, 2.0]


def test_an_as_of_join_is_that_of_pandas() -> None:
    draws = np.random.default_rng(5)
    simulated = pandas.DataFrame({"t": np.sort(draws.uniform(0, 10, 40)), "v": draws.normal(size=40)})
    simulated["g"] = np.where(np.arange(40) % 2, "x", "y")
    data = pandas.DataFrame({"t": np.sort(draws.uniform(1.5, 12, 15)), "v": 0.0, "g": ["x", "y", "x"] * 5})
    wanted = pandas.merge_asof(data[["t", "g"]], simulated, on="t", by="g")["v"]
    target = read_target(Target(name="o", data=data, on=("g", "t"), align="asof", column="v"))
    shuffled = simulated.sample(frac=1, random_state=1)
    assert target.alignment.take({"o": shuffled})[0].tolist() == wanted.tolist()


def test_arrays_are_compared_in_their_order() -> None:
    target = read_target(Target(name="o", data=[1.0, 2.0, 3.0]))
    assert target.alignment.take({"o": np.array([4.0, 5.0, 6.0])}).tolist() == [[4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([1, 2], "give a mapping"),
        ({"other": [1]}, "needs the output 't', and there are 'other'"),
        ({"t": {"cases": [1]}}, "joined on the column 'day' of 't', which has 'cases'"),
        ({"t": {"day": [1, 2]}}, "needs the column 'cases' of 't', which has 'day'"),
        ({"t": {"day": [1], "cases": [1.0]}}, "has no row for day=2"),
        ({"t": {"day": [1, 2, 2], "cases": [1.0, 2.0, 3.0]}}, "has two rows for day=2"),
        ({"t": {"day": ["1", "2"], "cases": [1.0, 2.0]}}, "do not join"),
        ({"t": {"day": [1, 2], "cases": ["x", "y"]}}, "not numbers"),
    ],
)
def test_outputs_that_do_not_fit_are_told_with_both_names(outputs: Any, said: str) -> None:
    target = read_target(Target(name="t", data={"day": [2, 1], "cases": [5, 6]}, on=("day",), column="cases"))
    with pytest.raises(WrongOutputs, match=said):
        target.alignment.take(outputs)


def test_a_number_too_few_is_told() -> None:
    target = read_target(Target(name="o", data=[1.0, 2.0, 3.0]))
    with pytest.raises(WrongOutputs, match="has 2 values and the target 'o' 3"):
        target.alignment.take({"o": [1.0, 2.0]})


def test_nothing_at_or_before_is_told() -> None:
    target = read_target(Target(name="o", data={"t": [0.5], "o": [1]}, on=("t",), align="asof"))
    with pytest.raises(WrongOutputs, match=r"no row at or before t=0\.5"):
        target.alignment.take({"o": {"t": [1.0], "o": [2.0]}})

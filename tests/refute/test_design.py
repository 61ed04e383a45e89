"""Large tables are read a few columns at a time, and give the same question as tables that are read at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from pyarrow import parquet

from millrace.analyses.refute import design, question
from millrace.analyses.refute.spec import Spec
from millrace.run.errors import WrongQuestion


def table(n: int = 3000, p: int = 9) -> pandas.DataFrame:
    rng = np.random.default_rng(3)
    made = pandas.DataFrame(rng.normal(size=(n, p)), columns=[f"w{j}" for j in range(p)])
    made["town"] = np.array(["Aba", "Baku", "Cali"])[rng.integers(0, 3, n)]
    made["count"] = rng.integers(0, 5, n)
    made["t"] = (rng.random(n) < 0.4).astype(int)
    made["y"] = made["t"] + made["w0"] + rng.normal(size=n)
    made.loc[made.index[::17], "w3"] = np.nan
    return made


def forms(folder: Path, made: pandas.DataFrame) -> dict[str, object]:
    arrow = pyarrow.Table.from_pandas(made, preserve_index=False)
    parquet.write_table(arrow, folder / "data.parquet", row_group_size=700)
    made.to_csv(folder / "data.csv", index=False)
    return {
        "pandas": made, "arrow": arrow, "polars": polars.from_arrow(arrow), "lazy": polars.from_arrow(arrow).lazy(),
        "parquet": folder / "data.parquet", "csv": folder / "data.csv",
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["complete", "indicator"])
@pytest.mark.parametrize("form", ["pandas", "arrow", "polars", "lazy", "parquet", "csv"])
def test_a_table_in_pieces_is_the_table_at_once(form, missing, tmp_path, monkeypatch):
    made = table()
    causes = ("w0", "w3", "town", "count", "w8")
    asked = {"treatment": "t", "outcome": "y", "common_causes": causes, "missing": missing, "limit": 2800}
    whole = question.read(Spec(data=made, **asked), lambda text: None).cases[0]
    monkeypatch.setattr(design, "HELD_BYTES", 1000)
    monkeypatch.setattr(design, "PIECE_BYTES", 50_000)
    notes: list[str] = []
    found = question.read(Spec(data=forms(tmp_path, made)[form], **asked), notes.append).cases[0]
    assert found.names == whole.names and found.groups == whole.groups
    assert isinstance(found.study.confounders, np.memmap)
    for name, values in whole.study.arrays().items():
        assert np.array_equal(getattr(found.study, name), values), name
    assert any("missing" in text for text in notes)


def test_a_csv_file_whose_first_block_misleads_is_read_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "data.csv"
    lines = [f"{i % 7},{'' if i < 800 else 'north'},{i / 2 if i > 900 else i}" for i in range(1000)]
    path.write_text("\n".join(["a,place,b", *lines]))
    whole = design.read(path)
    monkeypatch.setattr(design, "HELD_BYTES", 1000)
    monkeypatch.setattr(design, "PIECE_BYTES", 2000)
    found = design.read(path)
    for name in whole.names:
        np.testing.assert_array_equal(found.numbers(name), whole.numbers(name))
        assert found.labels(name) == whole.labels(name)
    path.write_text("\n".join(["a,b", *(f"{i},{i if i < 900 else 'many'}" for i in range(1000))]))
    assert design.read(path).labels("b") is not None


def test_a_large_array_of_any_order_or_type_is_copied_by_rows(monkeypatch):
    x = np.random.default_rng(0).integers(0, 9, (500, 6))
    monkeypatch.setattr(design, "HELD_BYTES", 1000)
    monkeypatch.setattr(design, "PIECE_BYTES", 2000)
    for given in (x, np.asfortranarray(x.astype(float)), x.astype(float)[:, ::-1][:, ::-1]):
        columns = design.read(given, 400)
        assert columns.rows == 400 and columns.names == ("x0", "x1", "x2", "x3", "x4", "x5")
        assert np.array_equal(columns.numbers("x2"), x[:400, 2].astype(float))


def test_columns_that_are_there_twice_are_an_error_however_large(monkeypatch):
    monkeypatch.setattr(design, "HELD_BYTES", 1000)
    made = table(500)
    with pytest.raises(WrongQuestion, match="w0"):
        design.read(polars_twice(made))


def polars_twice(made: pandas.DataFrame) -> pyarrow.Table:
    return pyarrow.Table.from_arrays([pyarrow.array(made["w0"])] * 40, names=["w0"] * 40)


def test_infinite_values_are_found_where_columns_are_read_by_pieces(monkeypatch):
    monkeypatch.setattr(design, "HELD_BYTES", 1000)
    monkeypatch.setattr(design, "PIECE_BYTES", 20_000)
    made = table()
    made.loc[2900, "w5"] = np.inf
    with pytest.raises(WrongQuestion, match="'w5'.*row 2900"):
        question.read(Spec(data=made, treatment="t", outcome="y", common_causes=("w1", "w5", "w7")), print)


@pytest.mark.parametrize(
    ("estimator", "options", "said"),
    [("ipw", {"trimm": 0.1}, "no option 'trimm'; it has trim"), ("ols", {"trim": 0.1}, "no option 'trim'"),
     ("dml", {"fast": True}, "fast='multiplier'")],
)  # fmt: skip
def test_options_that_an_estimator_does_not_have_are_found_before_the_work(estimator, options, said):
    with pytest.raises(WrongQuestion, match=said):
        question.read(
            Spec(data=table(), treatment="t", outcome="y", common_causes=("w1",), estimator=estimator, options=options),
            print,
        )

"""Data in: the same rows from every library and file, and one clear paragraph for what cannot be read."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from millrace.run.errors import WrongQuestion
from millrace.run.tables import align, read_items, read_rows


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2, 3], "b": [True, False, True], "c": ["x", None, "y"], "d": [0.5, np.nan, -1.0]})


def test_every_library_and_file_gives_the_same_rows(tmp_path):
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    pa.feather.write_feather(table, tmp_path / "t.arrow")
    frame().to_csv(tmp_path / "t.csv", index=False)
    frame().to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    sources = [frame(), pl.from_pandas(frame()), pl.from_pandas(frame()).lazy(), table]
    sources += [tmp_path / f"t.{e}" for e in ("parquet", "arrow", "csv", "jsonl")]
    expected = np.array([[1, 1, 0, 0.5], [2, 0, np.nan, np.nan], [3, 1, 1, -1.0]])
    for source in sources:
        rows = read_rows(source)
        assert rows.names == ("a", "b", "c", "d") and rows.named
        assert dict(rows.categories) == {2: ("x", "y")}
        np.testing.assert_array_equal(rows.values, expected)
        assert rows.values.flags.c_contiguous and rows.values.dtype == np.float64


def test_arrays_keep_single_precision_and_are_not_copied():
    single = np.ones((4, 2), np.float32)
    assert read_rows(single).values is single or np.shares_memory(read_rows(single).values, single)
    assert read_rows(np.ones((4, 2), np.int32)).values.dtype == np.float64
    assert read_rows(pd.DataFrame(single, columns=["a", "b"])).values.dtype == np.float32
    assert read_rows([[1, 2], [3, 4]]).names == ("x0", "x1")


def test_limit_takes_the_first_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10.0).reshape(5, 2))
    assert read_rows(tmp_path / "x.npy", limit=2).values.tolist() == [[0, 1], [2, 3]]
    assert len(read_rows(frame(), limit=2).values) == 2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.csv", "no file"),
        ("x.unknown", "ending"),
        (3, "builtins.int"),
        (np.zeros(3), "one dimension"),
        (np.zeros((2, 2, 2)), "3 dimensions"),
        (np.zeros((0, 2)), "0 rows"),
        (np.zeros((2, 0)), "0 columns"),
        (np.array([["a"]]), "dtype"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), "'t'"),
        (pa.table([[1], [2]], names=["a", "a"]), "more than one column"),
    ],
)
def test_what_cannot_be_read_is_one_paragraph(source, says):
    with pytest.raises(WrongQuestion, match=says) as told:
        read_rows(source)
    assert "\n" not in str(told.value)


def test_a_file_that_lies_about_its_form_is_named(tmp_path):
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(WrongQuestion, match=r"x\.parquet"):
        read_rows(tmp_path / "x.parquet")


def test_columns_are_put_right_by_name_and_said():
    rows, said = align(read_rows(frame()), ("d", "a", "b", "c"), "data")
    assert rows.values[:, 1].tolist() == [1, 2, 3] and dict(rows.categories) == {3: ("x", "y")}
    assert "order" in (said or "")
    assert align(read_rows(frame()), ("a", "b", "c", "d"), "data")[1] is None
    with pytest.raises(WrongQuestion, match=r"lacks 'e' and has 'd'"):
        align(read_rows(frame()), ("a", "b", "c", "e"), "data")
    with pytest.raises(WrongQuestion, match="no names"):
        align(read_rows(np.zeros((1, 3))), ("a", "b"), "data")


def test_items_are_lines_or_rows(tmp_path):
    (tmp_path / "i.jsonl").write_text('{"a": 1}\n\n[2, 3]\n')
    (tmp_path / "i.txt").write_text("one\ntwo\n")
    (tmp_path / "i.csv").write_text("a,b\n1,x\n")
    assert read_items(tmp_path / "i.jsonl") == [{"a": 1}, [2, 3]]
    assert read_items(tmp_path / "i.txt") == ["one", "two"]
    assert read_items(tmp_path / "i.csv") == [{"a": 1, "b": "x"}]
    (tmp_path / "bad.jsonl").write_text("1\n{\n")
    with pytest.raises(WrongQuestion, match="Line 2"):
        read_items(tmp_path / "bad.jsonl")

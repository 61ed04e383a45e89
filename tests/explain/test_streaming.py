"""Rows from Parquet, values to Parquet: the values of data in memory, a dataset that is whole or not there, bounded memory."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge

import millrace as mr
from millrace import compose
from millrace.analyses.explain import parts, plan
from millrace.analyses.explain.parquet import Reader, head, open_source, take
from millrace.folder import history
from millrace.run.errors import DoesNotFit, NotSupported, Paused, TaskFailed, WrongQuestion
from millrace.run.run import Run
from millrace.testing.analyses import LAWS

RNG = np.random.default_rng(0)
NAMES = list("abcdef")
X = pd.DataFrame(RNG.standard_normal((3000, 6)), columns=NAMES)
Y = (X.a * X.b + X.c).to_numpy()
MODEL = lightgbm.LGBMRegressor(n_estimators=10, num_leaves=15, verbose=-1, n_jobs=1).fit(X, Y)


def smooth(rows: np.ndarray) -> np.ndarray:
    return np.sin(rows).sum(axis=1) + rows[:, 0] * rows[:, 1]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    X.to_parquet(path, row_group_size=1300)
    return path


def read_back(answer: Any) -> pd.DataFrame:
    return pd.concat([batch.to_pandas() for batch in answer.batches()], ignore_index=True)


QUESTIONS = {
    "trees": (MODEL, {}),
    "tables": (MODEL, {"background": "auto", "background_rows": 20}),
    "several outputs": (RandomForestClassifier(3, max_depth=3, random_state=0).fit(X, Y > 0), {}),
    "linear": (Ridge().fit(X, Y), {"background": X[:50]}),
    "exact function": (smooth, {"background": X[:5]}),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_values_are_those_of_data_in_memory(name: str, rows: Path, tmp_path: Path) -> None:
    model, options = QUESTIONS[name]
    asked = {**options, "engine": "inline"}
    whole = mr.explain(model, X, **asked)
    answer = mr.explain(model, rows, stream=True, out=tmp_path, **asked)
    found = read_back(answer).to_numpy()
    width = len(whole.output_names)
    values = whole.values if whole.values.ndim == 3 else whole.values[:, :, None]
    np.testing.assert_array_equal(
        found[:, : 6 * width], np.concatenate([values[:, :, k] for k in range(width)], axis=1)
    )
    np.testing.assert_array_equal(found[:, 7 * width : 8 * width], whole.predictions)
    assert len(answer) == 3000 and answer.exact == whole.exact and answer.drawn.method == whole.method
    assert answer.additivity_error == whole.additivity_error
    assert 0.98 * whole.additivity_p99 <= answer.additivity_p99 <= max(1.07 * whole.additivity_p99, 1e-20)
    mean = {(r["feature"], r["output"]): r["mean_abs"] for r in whole.importance.to_pylist()}
    for row in answer.importance.to_pylist():
        assert row["mean_abs"] == pytest.approx(mean[row["feature"], row["output"]], rel=1e-12)
        assert row["low"] <= row["mean_abs"] <= row["high"]


def test_estimates_have_their_standard_errors_and_rounds(rows: Path, tmp_path: Path) -> None:
    wide = pd.DataFrame(np.hstack([X[:10], X[:10] + 1, X[:10] * 2]), columns=[f"v{j}" for j in range(18)])
    wide.to_parquet(tmp_path / "wide.parquet", row_group_size=6)
    asked = {"background": wide[:4], "max_evaluations": 600, "tolerance": 0.02, "engine": "inline"}
    whole = mr.explain(smooth, wide, **asked)
    answer = mr.explain(smooth, tmp_path / "wide.parquet", stream=True, out=tmp_path / "out", **asked)
    found = read_back(answer)
    np.testing.assert_allclose(found.iloc[:, :18], whole.values, atol=1e-12)
    np.testing.assert_allclose(found.filter(like="standard error"), whole.standard_errors, atol=1e-12)
    assert [n for n in answer.notes if "tolerance" in n] == [n for n in whole.notes if "tolerance" in n]


FOLDERS = itertools.count()


DEAR = ("one_digest_under_every_budget_and_from_every_store", "core_seconds_add_up")  # every answer has its pictures


@pytest.mark.parametrize(
    "law", [pytest.param(law, id=law.__name__, marks=[pytest.mark.slow] * (law.__name__ in DEAR)) for law in LAWS]
)
def test_law(law: Any, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_STREAM_ROWS", 512)

    def ask(**machine: Any) -> Any:
        machine.setdefault("out", tmp_path / f"out{next(FOLDERS)}")
        question = {"model": MODEL, "data": rows, "stream": True}
        return compose.carry_out("explain", question, compose.Machine(**machine))

    law(ask, tmp_path)


def test_a_dataset_is_whole_or_not_there_and_an_older_one_stays_until_then(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MOST_STREAM_ROWS", 512)
    question = {"model": MODEL, "data": rows, "stream": True}
    machine = {"engine": "inline", "out": tmp_path / "out", "store": tmp_path / "store"}
    with pytest.raises(Paused):
        compose.carry_out("explain", question, compose.Machine(**machine, opened=Run.pause))
    assert not list((tmp_path / "out").glob("values*"))
    first = compose.carry_out("explain", question, compose.Machine(**machine))
    assert history(tmp_path / "out").end["cached"] >= 1
    with pytest.raises(Paused):
        compose.carry_out("explain", question, compose.Machine(engine="inline", out=tmp_path / "out", opened=Run.pause))
    assert [p.name for p in (tmp_path / "out").glob("values*")] == ["values"]
    assert len(list((tmp_path / "out" / "values").iterdir())) == len(first.parts)
    copy = first.save(tmp_path / "copy")
    assert {p.name for p in (copy / "values").iterdir()} == set(first.parts)
    said = json.loads((tmp_path / "copy" / "result.json").read_text())
    assert said["answer"]["rows"] == 3000 and said["digest"] == first.digest


def test_labels_are_the_models_in_every_row_group(tmp_path: Path) -> None:
    kinds = pd.Categorical(np.repeat(["u", "v", "w", "z"], 150))  # each row group has labels of its own
    frame = pd.DataFrame({"a": X.a[:600].to_numpy(), "k": kinds})
    target = frame.a + np.isin(kinds, ["u", "z"]) * 2
    model = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1, min_data_per_group=5, cat_smooth=1)
    model.fit(frame, target)
    frame.assign(k=frame.k.astype(str)).to_parquet(tmp_path / "x.parquet", row_group_size=150)
    answer = mr.explain(model, tmp_path / "x.parquet", stream=True, out=tmp_path / "out", engine="inline")
    np.testing.assert_array_equal(read_back(answer).iloc[:, :2], mr.explain(model, frame).values)
    with pytest.raises(NotSupported, match="'k'"):
        mr.explain(
            smooth, tmp_path / "x.parquet", background=frame[:5], stream=True, out=tmp_path / "o", engine="inline"
        )


def test_columns_are_put_right_and_pictures_say_what_they_are_of(rows: Path, tmp_path: Path) -> None:
    X[NAMES[::-1]].to_parquet(tmp_path / "turned.parquet", row_group_size=1300)
    answer = mr.explain(MODEL, tmp_path / "turned.parquet", stream=True, out=tmp_path / "out", engine="inline")
    straight = mr.explain(MODEL, rows, stream=True, out=tmp_path / "straight", engine="inline")
    assert answer.digest == straight.digest and any("order" in note for note in answer.notes)
    assert "2,000 of 3,000" in answer.charts()["beeswarm"]["title"]["subtitle"][-1]
    assert answer.charts()["waterfall"]["title"]["text"].startswith("Drawn row")


def test_a_reader_reads_forwards_backwards_and_any_rows(rows: Path) -> None:
    source = open_source(rows)
    assert source.group_rows == (1300, 1300, 400) and source.rows == 3000
    with Reader() as reader:
        for place, start in (((0, 100, 200), 100), ((0, 600, 1300), 600), ((1, 0, 50), 1300), ((0, 3, 9), 3)):
            _, first, last = place
            np.testing.assert_array_equal(reader.rows(source, place).values, X[start : start + last - first])
        assert reader.rows(source.only(("c", "a")), (2, 0, 2)).names == ("c", "a")
    np.testing.assert_array_equal(head(source).values, X[:1300])
    numbers = np.array([0, 7, 1299, 1300, 2999])
    np.testing.assert_array_equal(take(source, numbers).values, X.iloc[numbers])


def test_gaps_are_counted_by_size() -> None:
    gaps = np.abs(RNG.standard_normal(5000)) * 1e-9
    found = parts.gap_quantile(parts.gap_counts(gaps), 0.99)
    assert np.quantile(gaps, 0.99) <= found <= 1.07 * np.quantile(gaps, 0.99)
    assert parts.gap_quantile(parts.gap_counts(np.zeros(9)), 0.99) == 0.0


@pytest.mark.parametrize(
    ("question", "error", "says"),
    [
        ({"out": None}, WrongQuestion, "out=FOLDER"),
        ({"X": X}, WrongQuestion, "Parquet file"),
        ({"X": "nowhere.parquet"}, WrongQuestion, "nowhere.parquet"),
        ({"interactions": True}, NotSupported, "Interaction"),
        ({"limit": 5}, WrongQuestion, "limit"),
        ({"model": Ridge().fit(X, Y)}, WrongQuestion, "background"),
        ({"memory": "1MiB"}, DoesNotFit, "--memory"),
        ({"background": X[:5].drop(columns="a")}, WrongQuestion, "'a'"),
    ],
)
def test_bad_input_is_said_before_the_work(
    question: dict[str, Any], error: type[Exception], says: str, rows: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "model": MODEL,
        "X": rows,
        "out": tmp_path / "out",
        "stream": True,
        "engine": "inline",
        **question,
    }
    with pytest.raises(error, match=says):
        mr.explain(given.pop("model"), given.pop("X"), **given)


def test_what_is_wrong_far_into_the_file_is_named_with_its_rows(tmp_path: Path) -> None:
    bad = X.copy()
    bad.iloc[2500, 2] = np.inf
    bad.to_parquet(tmp_path / "x.parquet", row_group_size=1300)
    with pytest.raises(TaskFailed, match="inf in row 1,200 of row group 1, column 'c'"):
        mr.explain(smooth, tmp_path / "x.parquet", background=X[:3], stream=True, out=tmp_path / "out", engine="inline")
    assert not (tmp_path / "out" / "values").exists()


MEASURE = """
import json, sys
import numpy, lightgbm, pyarrow
from pyarrow import parquet
import millrace as mr
folder, rows, memory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = numpy.random.default_rng(0)
names = [f"f{j}x" for j in range(10)]
def block(n):
    return pyarrow.table({name: rng.standard_normal(n, numpy.float32) for name in names})
few = block(4000)
x = numpy.stack([few[name].to_numpy() for name in names], axis=1)
model = lightgbm.LGBMRegressor(n_estimators=30, num_leaves=31, n_jobs=1, verbose=-1)
model.fit(few.to_pandas(), x[:, 0] * x[:, 1] + numpy.sin(2 * x[:, 2]))
with parquet.ParquetWriter(folder + "/x.parquet", few.schema) as writer:
    for start in range(0, rows, 250_000):
        writer.write_table(block(min(250_000, rows - start)), row_group_size=250_000)
answer = mr.explain(model, folder + "/x.parquet", stream=True, out=folder + "/out", precision="float32",
                    engine="processes", cores=2, memory=memory)
told, found = answer.report.plan, answer.report.accounting
print(json.dumps({"rows": len(answer), "predicted": told["peak_bytes"], "worker": told["worker_bytes"], "slots": told["slots"],
                  "peak": found.memory_bytes, "task_peak": found.task_peak_bytes, "error": answer.additivity_error}))
"""


@pytest.mark.parametrize("size", [300_000, pytest.param(3_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_rows(size: int, tmp_path: Path) -> None:
    call = [sys.executable, "-c", MEASURE, str(tmp_path), str(size), "512MiB"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == size and found["error"] < 1e-5
    assert found["peak"] <= found["predicted"] <= min(2 * found["peak"], 512 << 20)
    assert found["task_peak"] <= found["worker"]

"""Pictures of an outcome model and of a file of twins say what is in the data."""

from __future__ import annotations

from typing import Any

import altair
import numpy
import pyarrow
import pytest

import millrace as mr


def rows(n: int = 1_500, binary: bool = False) -> pyarrow.Table:
    rng = numpy.random.default_rng(0)
    x, noise = rng.normal(size=n), rng.normal(size=n)
    y: Any = 3 * x + rng.normal(size=n)
    return pyarrow.table({
        "strong": x, "none": noise, "kind": rng.choice(["a", "b"], n, p=[0.8, 0.2]), "y": y > 0 if binary else y,
        "since": pyarrow.array(18_000 + rng.integers(0, 300, n), pyarrow.int32()).cast(pyarrow.date32()),
        "gap": pyarrow.array(x, mask=rng.random(n) < 0.3),
    })  # fmt: skip


@pytest.mark.parametrize("binary", [False, True])
def test_a_fitted_models_pictures_tell_how_good_its_outcome_is(binary: bool) -> None:
    model = mr.twin.fit(rows(binary=binary).drop_columns(["gap"]), outcome="y", folds=2, joint="plain", engine="inline")
    made = model.charts()
    assert {"columns", "dependence", "outcome", "drivers"} <= set(made)
    for chart in made.values():
        altair.Chart.from_dict(chart, validate=True)
        assert chart["title"]["text"] and chart["description"]
    tenths = made["outcome"]["layer"][2]["data"]["values"]
    assert len(tenths) == 10 and sum(t["rows"] for t in tenths) == 1_500
    assert all(t["low"] <= t["came"] <= t["high"] for t in tenths)
    assert tenths[-1]["came"] > tenths[0]["came"] + 0.5  # what was predicted to be more was more
    first, *others = made["drivers"]["data"]["values"]
    assert first["column"] == "strong" and first["share"] > 3 * max(o["share"] for o in others)


def test_a_model_of_another_learner_has_no_drivers() -> None:
    table = rows().drop_columns(["gap"])
    model = mr.twin.fit(table, outcome="y", learner="hist_gradient_boosting", folds=2, joint="plain", engine="inline")
    assert "outcome" in model.charts() and "drivers" not in model.charts()


def test_twins_are_shown_as_they_are_in_the_file(tmp_path: Any) -> None:
    model = mr.twin.fit(rows(), joint="plain", engine="inline")
    twins = mr.twin.generate(model, 3_000, where="kind == 'b'", out=tmp_path / "t.parquet", engine="inline")
    (chart,) = twins.charts().values()
    altair.Chart.from_dict(chart, validate=True)
    panels = {p["title"]["text"]: p["data"]["values"] for p in chart["concat"]}
    assert list(panels) == twins.table.column_names
    assert panels["kind"] == [{"level": "b", "share": 1.0}]
    assert sum(bar["share"] for bar in panels["strong"]) == pytest.approx(1, abs=0.01)
    assert sum(bar["share"] for bar in panels["gap"]) == pytest.approx(0.7, abs=0.05)
    assert panels["since"][0]["x"].startswith("2019-0")
    assert "kind == 'b'" in " ".join(chart["title"]["text"])
    twins.path.unlink()
    assert twins.charts() == {}

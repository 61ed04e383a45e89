"""The judge of finished rows: what it knows is LightGBM's, and it draws nearer to the real law what single columns miss."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy
import pyarrow
import pytest

import millrace as mr
from millrace.analyses.twin.kernels import judging, measures


def test_the_trees_as_arrays_say_what_lightgbm_says():
    rng = numpy.random.default_rng(0)
    codes = numpy.stack([rng.integers(0, 250, 4_000), rng.integers(0, 90, 4_000), rng.integers(0, 30, 4_000)])
    y = (codes[0] / 80 + codes[1] % 7 + rng.normal(size=4_000) > 5).astype(float)
    X = codes.T.astype(numpy.float32)
    said = {"objective": "binary", "verbosity": -1, "use_missing": False, "num_threads": 1, "min_data_per_group": 10}
    fitted = lightgbm.train(said, lightgbm.Dataset(X, y, categorical_feature=[1], params=said), 40)
    trees = judging.arrays_of(fitted.dump_model()["tree_info"])
    assert (trees["threshold"] == -2).any()
    assert (trees["threshold"] >= 0).any()
    tables = judging.ready(trees, numpy.array([2, 0, 1]))
    found = judging.log_odds(
        codes[[1, 2, 0]].astype(numpy.uint8), tables.open, tables.column, tables.begin, tables.value
    )
    numpy.testing.assert_allclose(found, fitted.predict(X, raw_score=True), rtol=1e-9, atol=1e-12)


def test_equal_laws_need_no_judge_and_different_ones_have_one():
    rng = numpy.random.default_rng(1)
    first, second = (rng.integers(0, 40, (4, 6_000)).astype(numpy.uint8) for _ in range(2))
    assert judging.learn(first, second, numpy.zeros(4, bool)) is None
    second[1] = second[0]
    judge = judging.learn(first, second, numpy.zeros(4, bool))
    chance = judging.share(second, judging.ready(judge, numpy.arange(4)))
    assert chance.mean() < 0.1
    few = judging.learn(first[:, :500], second, numpy.zeros(4, bool))
    assert few is None


@pytest.fixture(scope="module")
def tables():
    """Rows to learn and rows to compare: twelve columns of four hidden numbers and their products."""
    rng = numpy.random.default_rng(2)
    hidden = rng.normal(size=(8_000, 4))
    X = hidden @ rng.normal(size=(4, 12)) + 0.5 * rng.normal(size=(8_000, 12))
    X[:, ::3] += (hidden[:, :1] * hidden[:, 1:2]) @ numpy.ones((1, 4))
    whole = pyarrow.table({f"x{j}": X[:, j] for j in range(12)})
    return whole.slice(0, 4_000), whole.slice(4_000)


@pytest.fixture(scope="module")
def judged(tables):
    return mr.twin.fit(tables[0], find=False, engine="inline")


def test_judged_twins_are_told_less_well(tables, judged):
    assert judged.generator.judge
    without = replace(judged, generator=replace(judged.generator, judge={}))
    told = {}
    for name, model in (("judged", judged), ("as drawn", without)):
        twins = mr.twin.sample(model, 4_000, seed=1)
        real, made = (numpy.column_stack([t[n].to_numpy() for n in t.column_names]) for t in (tables[1], twins))
        arrays = {"real": real, "twins": made, "nominal": numpy.zeros(12, bool)}
        folds = [measures.fold(k, arrays, 0) for k in range(measures.FOLDS)]
        told[name] = measures.auc(*(numpy.concatenate([f[n] for f in folds]) for n in ("scores", "labels")))
    assert told["judged"] < told["as drawn"] - 0.02, told


def test_row_i_is_the_same_and_a_condition_holds_with_a_judge_and_when_loaded(judged, tmp_path):
    whole = mr.twin.sample(judged, 300, seed=4)
    assert mr.twin.sample(judged, 40, seed=4).equals(whole.slice(0, 40))
    again = mr.twin.load(judged.keep(tmp_path))
    assert again.digest == judged.digest
    assert mr.twin.sample(again, 300, seed=4).equals(whole)
    above = mr.twin.sample(again, 200, seed=4, where="x0 > 1")
    assert min(above.column("x0").to_pylist()) > 1
    twins = mr.twin.generate(judged, 3_000, seed=4, engine="inline", out=tmp_path / "t.parquet")
    assert twins.table.slice(0, 300).equals(whole)
    assert 0.2 < twins.acceptance < 0.6

"""Models from files: ONNX, skops and CatBoost's own form give what the model in memory gives, and execute nothing."""

from __future__ import annotations

from pathlib import Path

import catboost
import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import millrace as mr
from millrace.run.errors import ModelTrouble, WrongQuestion

X = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
Y = X[:, 0] * X[:, 1] + X[:, 2]


def test_onnx_is_explained_by_its_probabilities(tmp_path: Path) -> None:
    model = GradientBoostingClassifier(n_estimators=5).fit(X, Y > 0)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, X[:1], options={"zipmap": False}).SerializeToString())
    question = {"background": X[50:60]}
    found = mr.explain(path, X[:20], engine="processes", cores=2, **question)
    wanted = mr.explain(model, X[:20], method="kernel", output="probability", **question)
    assert found.exact and found.method == "kernel"
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    assert found.digest == mr.explain(path, X[:20], engine="inline", **question).digest
    with pytest.raises(WrongQuestion, match="3 columns and the model takes 5"):
        mr.explain(path, X[:20, :3])


def test_a_skops_pipeline_is_the_pipeline(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), Ridge()).fit(X.astype(float), Y)
    skops.io.dump(model, tmp_path / "model.skops")
    assert mr.explain(tmp_path / "model.skops", X).digest == mr.explain(model, X).digest


def test_what_skops_does_not_trust_is_named_and_not_loaded(tmp_path: Path) -> None:
    skops.io.dump(RandomForestRegressor(3).fit(X, Y), tmp_path / "model.skops")
    with pytest.raises(ModelTrouble, match=r"sklearn\.tree\._tree\.Tree, which skops does not trust"):
        mr.explain(tmp_path / "model.skops", X)


def test_catboost_s_own_file(tmp_path: Path) -> None:
    model = catboost.CatBoostClassifier(iterations=4, depth=3, verbose=0, allow_writing_files=False).fit(X, Y > 0)
    model.save_model(str(tmp_path / "model.cbm"))
    np.testing.assert_array_equal(mr.explain(tmp_path / "model.cbm", X).values, mr.explain(model, X).values)


@pytest.mark.parametrize(("name", "said"), [("m.onnx", "onnxruntime"), ("m.skops", "skops"), ("m.cbm", "CatBoost")])
def test_damaged_files_are_one_paragraph(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((b"CBM1" if name == "m.cbm" else b"") + bytes(range(8, 40)))
    with pytest.raises(ModelTrouble, match=f"{said} cannot read the model file"):
        mr.explain(tmp_path / name, X)

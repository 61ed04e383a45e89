"""A damaged model is trouble in one clear paragraph or a sound ensemble, never a crash or a wild number."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble as forests
from tree_cases import (
    Y,
    lightgbm_model,
    table,
    xgboost_model,
)

from millrace.analyses.explain.kernels.assemble import Nodes, assemble
from millrace.analyses.explain.kernels.ensemble import (
    predict,
)
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.kernels.xgboost import read_xgboost
from millrace.run.errors import ModelTrouble, NotSupported, WrongQuestion


def test_garbage_is_said_to_be_no_model_in_one_paragraph() -> None:
    for text in ("", "tree", "hello\nworld", "tree\nversion=v4\n\nend of trees\n"):
        with pytest.raises(ModelTrouble) as caught:
            read_lightgbm(text)
        assert "\n" not in str(caught.value)
    for content in (
        b"",
        b"{",
        b"{}",
        b"[1]",
        b'{"learner": 3}',
        b'{"learner": {}}',
        b"{i\x07learnerZ}",
        b"binf\x00\x01",
    ):
        with pytest.raises(ModelTrouble) as caught:
            read_xgboost(content)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_trouble_wherever_it_is_cut() -> None:
    text = lightgbm_model(rounds=3, categories=True).model_to_string()
    end = text.index("end of trees")
    for cut in range(0, end, 37):
        with pytest.raises(ModelTrouble):
            read_lightgbm(text[:cut])
    content = bytes(xgboost_model(rounds=2, max_depth=2).save_raw("ubj"))
    for cut in range(0, len(content) - 1, 41):
        with pytest.raises(ModelTrouble):
            read_xgboost(content[:cut])


TEXT = lightgbm_model(rounds=3, categories=True).model_to_string().partition("\nfeature_importances")[0]
CONTENTS = [bytes(xgboost_model(rounds=2, max_depth=2, categories=True).save_raw(form)) for form in ("ubj", "json")]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 12), st.text("0123456789-. =\nnaif", max_size=4))
def test_a_damaged_text_is_trouble_or_a_sound_ensemble(at: int, cut: int, put: str) -> None:
    try:
        model = read_lightgbm(TEXT[:at] + put + TEXT[at + cut :])
    except (ModelTrouble, NotSupported):
        return
    with contextlib.suppress(WrongQuestion):  # other columns, or categories now
        predict(model, table())


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CONTENTS), st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=4))
def test_a_damaged_document_is_trouble_or_a_sound_ensemble(content: bytes, where: float, cut: int, put: bytes) -> None:
    at = int(where * len(content))
    try:
        model = read_xgboost(content[:at] + put + content[at + cut :])
    except (ModelTrouble, NotSupported):
        return
    with contextlib.suppress(WrongQuestion):  # other columns, or categories now
        predict(model, table())


def test_category_sets_that_are_cut_short_are_trouble() -> None:
    for number in ("-9", "900", "99999999999999999999"):
        for key in ("cat_boundaries=", "cat_threshold="):
            with pytest.raises(ModelTrouble):
                read_lightgbm(TEXT.replace(f"\n{key}", f"\n{key}{number} "))
        with pytest.raises(ModelTrouble):
            read_lightgbm(TEXT.replace("\ncat_boundaries=0 ", f"\ncat_boundaries={number} "))
    document = json.loads(CONTENTS[1])
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["categories_sizes"] = [10**12] * len(tree["categories_sizes"])
    with pytest.raises(ModelTrouble, match="cut short"):
        read_xgboost(json.dumps(document).encode())


def test_a_set_beyond_the_members_is_trouble() -> None:
    three_nodes = np.array([0, -1, -1])
    stump = Nodes(
        feature=three_nodes, threshold=np.zeros(3), left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
        value=np.ones((3, 1)), cover=np.ones(3), mode=np.array([4, 0, 0]), category_start=np.zeros(3, int),
        category_count=np.array([2, 0, 0]), category_member=np.ones(2, np.uint8),
    )  # fmt: skip
    about = {"n_features": 1, "float32_inputs": False, "link": "identity", "output_names": ("output",)}
    one = np.zeros(1, int)
    assert assemble(stump, one, one, np.zeros(1), **about).n_nodes == 3
    for start, count in ((0, 3), (1, 2), (3, 0), (-1, 2), (0, -1)):
        at = {"category_start": np.array([start, 0, 0]), "category_count": np.array([count, 0, 0])}
        with pytest.raises(ModelTrouble, match="cut short"):
            assemble(replace(stump, **at), one, one, np.zeros(1), **about)


def test_inner_nodes_add_nothing() -> None:
    forest = forests.RandomForestRegressor(2, random_state=0, n_jobs=1).fit(table(), Y)
    for fitted in (lightgbm_model(), xgboost_model(), forest):
        model = read_trees(fitted)
        assert model is not None
        assert not model.value[model.left >= 0].any()
        assert model.value[model.left < 0].any()


def test_leaves_that_are_not_finite_are_trouble() -> None:
    document = json.loads(bytes(xgboost_model(rounds=2).save_raw("json")))
    first = document["learner"]["gradient_booster"]["model"]["trees"][0]
    first["split_conditions"][first["left_children"].index(-1)] = float("nan")
    with pytest.raises(ModelTrouble, match="not finite"):
        read_xgboost(json.dumps(document).encode())


def test_a_tree_that_is_its_own_ancestor_is_trouble() -> None:
    document = json.loads(bytes(xgboost_model(rounds=2).save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][1]["left_children"][1] = 0
    with pytest.raises(ModelTrouble, match="do not form trees"):
        read_xgboost(json.dumps(document).encode())

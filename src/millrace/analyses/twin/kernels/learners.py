"""Learners of one column from others: trained on some rows, kept as text or bytes that execute nothing, read back, asked.

LightGBM's text, XGBoost's JSON and skops files of scikit-learn's forests. One thread and a fixed seed, so that the same rows
give the same bits on every engine. An estimator object of the user's is copied and fitted, and has no such form.
See also: `outcome`, `effects`, who decide what is learnt from what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from millrace.analyses.twin.plan import seen_shares
from millrace.run.errors import MissingExtra, NotSupported, WrongQuestion

Array = NDArray[Any]
Kind = Literal["number", "binary"]

NAMES = ("lightgbm", "lightgbm_forest", "xgboost", "hist_gradient_boosting", "random_forest")
OF_LIGHTGBM = ("lightgbm", "lightgbm_forest")
"""Kept as LightGBM's text."""
FOREST_LEAVES, IN_BAG, A_NODE = 511, 0.632, 0.5
"""Of LightGBM's forest: leaves of a tree at most; shares of the rows that a tree sees, of the columns at each split."""
SAMPLED = 50_000
"""Rows from which LightGBM makes its bins."""
ONE_BY_ONE = 16
"""Labels of a column up to which splits are one against the others: as good as subsets of few labels, and faster."""
NARROW = 64
"""Columns up to which LightGBM goes by rows, which is faster there."""
SAME_ROWS = 5
"""Trees of a large table that see the same part of the rows."""
READ = 65_536
"""Rows that are predicted at a time."""
OURS = ("sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
"""What skops asks about in the forests that are made here: arrays of nodes."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Of boosted trees or a forest. leaves: None is by the rows, a fiftieth of them, 4 to 31. patience: stop when a fifth of
    the rows, kept apart, has not gained for so many trees; 0: all trees. l2: of leaf values."""

    trees: int = 300
    rate: float = 0.05
    leaves: int | None = None
    least_rows: int = 20
    bins: int = 63
    l2: float = 0.0
    patience: int = 0

    def leaves_for(self, rows: int) -> int:
        return self.leaves if self.leaves is not None else int(min(31, max(4, rows // 50)))


@dataclass(frozen=True, slots=True)
class Aim:
    """What a model is trained on: features (n, p) float64 with NaN where missing, `categorical` columns holding codes; target
    (n,), 0 or 1 when binary; rows: numbers of those that count, in order. offset (n,): where boosting begins (log odds when
    binary)."""

    features: Array
    categorical: tuple[int, ...]
    target: Array
    rows: Array
    kind: Kind
    seed: int = 0
    offset: Array | None = None


def growth_of(options: Mapping[str, Any]) -> Growth:
    """The growth that options ask for; `WrongQuestion` for a name that there is not."""
    try:
        return Growth(**options)
    except TypeError:
        known = Growth.__slots__
        odd = sorted(set(options) - set(known))
        raise WrongQuestion(f"There is no option {odd[0]!r} of a learner; there are {', '.join(known)}.") from None


def check(learner: Any) -> None:
    """`NotSupported` for a name that there is not."""
    if isinstance(learner, str) and learner not in NAMES:
        raise NotSupported(f"There is no learner {learner!r}; there are {', '.join(NAMES)}, and your own estimator.")


def train(learner: Any, aim: Aim, growth: Growth) -> Any:
    """The trained model: text or bytes of a learner by name, the fitted copy of an estimator object."""
    if not isinstance(learner, str):
        return _own(learner, aim)
    made = {
        "lightgbm": lightgbm_text,
        "lightgbm_forest": _lightgbm_forest,
        "xgboost": _xgboost,
        "hist_gradient_boosting": _boosted,
        "random_forest": _forest,
    }
    check(learner)
    return made[learner](aim, growth)


def reader(learner: Any, kind: Kind, trained: Any) -> Callable[[Array], Array]:
    """What predicts: features (n, p) -> float64 (n,), probabilities of the positive class when binary."""
    if not isinstance(learner, str):
        return lambda x: _answer(trained, kind, x)
    if learner == "lightgbm":
        return read_lightgbm(trained)
    if learner == "lightgbm_forest":
        return _read_lightgbm_forest(trained, kind)
    if learner == "xgboost":
        return _read_xgboost(trained)
    return _read_skops(trained, kind)


def in_parts(predict: Callable[[Array], Array], x: Array) -> Array:
    """Predictions a part of the rows at a time, so that a mapped matrix is never copied whole."""
    out = numpy.empty(len(x))
    for begin in range(0, len(x), READ):
        out[begin : begin + READ] = predict(numpy.asarray(x[begin : begin + READ]))
    return out


# -- LightGBM ----------------------------------------------------------------------------------------------------------
def lightgbm_text(aim: Aim, growth: Growth) -> str:
    """The model as LightGBM's text."""
    import lightgbm

    settings = {
        "objective": "binary" if aim.kind == "binary" else "l2", "num_leaves": growth.leaves_for(len(aim.rows)),
        "learning_rate": growth.rate, "min_data_in_leaf": growth.least_rows, "lambda_l2": growth.l2, **_always(aim, growth),
    }  # fmt: skip
    of_rows, of_columns = seen_shares(len(aim.rows), aim.features.shape[1])
    if of_rows < 1:
        settings |= {"bagging_fraction": of_rows, "bagging_freq": SAME_ROWS, "feature_fraction": of_columns}
    whole = _binned(aim, settings)
    rows, apart = numpy.asarray(aim.rows), numpy.zeros(0, numpy.int64)
    if growth.patience:
        chosen = numpy.random.default_rng([aim.seed, len(rows)]).permutation(len(rows))
        apart = numpy.sort(rows[chosen[: len(rows) // 5]])
        rows = numpy.sort(rows[chosen[len(rows) // 5 :]])

    data = _part(whole, rows)
    if not growth.patience:
        return str(lightgbm.train(settings, data, growth.trees).model_to_string())
    stop = lightgbm.early_stopping(growth.patience, verbose=False)
    model = lightgbm.train(settings, data, growth.trees, valid_sets=[_part(whole, apart)], callbacks=[stop])
    return str(model.model_to_string(num_iteration=model.best_iteration))


def _always(aim: Aim, growth: Growth) -> dict[str, Any]:
    """Settings of LightGBM that boosting and forest share."""
    return {
        "max_bin": growth.bins, "bin_construct_sample_cnt": SAMPLED, "num_threads": 1, "deterministic": True,
        "max_cat_to_onehot": ONE_BY_ONE, "force_row_wise": aim.features.shape[1] <= NARROW,
        "force_col_wise": aim.features.shape[1] > NARROW, "feature_pre_filter": False, "seed": 1 + aim.seed, "verbosity": -1,
    }  # fmt: skip


def _binned(aim: Aim, settings: Mapping[str, Any]) -> Any:
    """All rows as LightGBM's bins."""
    import lightgbm

    offset = None if aim.offset is None else numpy.asarray(aim.offset, numpy.float64)
    return lightgbm.Dataset(
        numpy.asarray(aim.features), numpy.asarray(aim.target, numpy.float64), params=dict(settings), free_raw_data=False,
        categorical_feature=list(aim.categorical) or "auto", init_score=offset,
    ).construct()  # fmt: skip


def _part(whole: Any, at: Array) -> Any:
    """Some of the rows; all of them are not copied."""
    return whole if len(at) == whole.num_data() else whole.subset(at.astype(numpy.int32))


def _lightgbm_forest(aim: Aim, growth: Growth) -> str:
    """LightGBM's own forest: the mean of trees of drawn rows, on bins. Two values are learnt as 0 and 1, so that a leaf's mean is
    a probability: log odds of whole forests are not."""
    import lightgbm

    least = max(1, growth.least_rows // 2)
    settings = {
        "boosting": "rf", "objective": "l2", "bagging_freq": 1, "bagging_fraction": IN_BAG, "feature_fraction_bynode": A_NODE,
        "num_leaves": int(min(FOREST_LEAVES, max(4, len(aim.rows) // (2 * least)))), "min_data_in_leaf": least,
        **_always(aim, growth),
    }  # fmt: skip
    data = _part(_binned(aim, settings), numpy.asarray(aim.rows))
    return str(lightgbm.train(settings, data, growth.trees).model_to_string())


def _read_lightgbm_forest(text: str, kind: Kind) -> Callable[[Array], Array]:
    read = read_lightgbm(text)
    return (lambda x: numpy.clip(read(x), 0.0, 1.0)) if kind == "binary" else read


def read_lightgbm(text: str) -> Callable[[Array], Array]:
    """Predictions of a text model; without the offset that it was trained beside."""
    import lightgbm

    model = lightgbm.Booster(model_str=text)
    return lambda x: numpy.asarray(model.predict(x, num_threads=1), numpy.float64)


def read_raw_lightgbm(text: str) -> Callable[[Array], Array]:
    """Predictions before the link: log odds of a binary model."""
    import lightgbm

    model = lightgbm.Booster(model_str=text)
    return lambda x: numpy.asarray(model.predict(x, num_threads=1, raw_score=True), numpy.float64)


# -- the others --------------------------------------------------------------------------------------------------------
def _xgboost(aim: Aim, growth: Growth) -> bytes:
    xgboost = _library("xgboost", "xgboost", "The learner xgboost")
    settings = {
        "objective": "binary:logistic" if aim.kind == "binary" else "reg:squarederror", "eta": growth.rate,
        "max_leaves": growth.leaves_for(len(aim.rows)), "grow_policy": "lossguide", "max_depth": 0, "max_bin": growth.bins,
        "lambda": max(growth.l2, 1.0), "tree_method": "hist", "nthread": 1, "seed": aim.seed,
    }  # fmt: skip
    data = xgboost.DMatrix(
        aim.features[aim.rows], aim.target[aim.rows], **_typed(aim.features.shape[1], aim.categorical)
    )
    return bytes(xgboost.train(settings, data, growth.trees).save_raw("json"))


def _typed(columns: int, categorical: tuple[int, ...]) -> dict[str, Any]:
    types = ["c" if j in categorical else "q" for j in range(columns)]
    return {"feature_types": types, "enable_categorical": True, "nthread": 1}


def _read_xgboost(trained: bytes) -> Callable[[Array], Array]:
    xgboost = _library("xgboost", "xgboost", "The learner xgboost")
    model = xgboost.Booster({"nthread": 1})
    model.load_model(bytearray(trained))
    types = model.feature_types or []
    categorical = tuple(j for j, t in enumerate(types) if t == "c")
    return lambda x: numpy.asarray(model.predict(xgboost.DMatrix(x, **_typed(x.shape[1], categorical))), numpy.float64)


def _boosted(aim: Aim, growth: Growth) -> bytes:
    """Codes go in as numbers: told of categories, the model would hold functions, which a form that executes nothing cannot."""
    ensemble = _library("sklearn.ensemble", "sklearn", "The learner hist_gradient_boosting")
    kind = ensemble.HistGradientBoostingClassifier if aim.kind == "binary" else ensemble.HistGradientBoostingRegressor
    model = kind(
        max_iter=growth.trees, learning_rate=growth.rate, max_leaf_nodes=growth.leaves_for(len(aim.rows)),
        min_samples_leaf=growth.least_rows, l2_regularization=growth.l2, max_bins=growth.bins, early_stopping=False,
        random_state=aim.seed,
    )  # fmt: skip
    return _skops(model.fit(aim.features[aim.rows], aim.target[aim.rows]))


def _forest(aim: Aim, growth: Growth) -> bytes:
    ensemble = _library("sklearn.ensemble", "sklearn", "The learner random_forest")
    kind = ensemble.RandomForestClassifier if aim.kind == "binary" else ensemble.RandomForestRegressor
    model = kind(
        n_estimators=growth.trees, min_samples_leaf=max(1, growth.least_rows // 4), max_features=0.5, n_jobs=1,
        random_state=aim.seed,
    )  # fmt: skip
    return _skops(model.fit(aim.features[aim.rows], aim.target[aim.rows]))


def _skops(model: Any) -> bytes:
    return bytes(_library("skops.io", "sklearn", "Keeping a scikit-learn forest without pickle").dumps(model))


def _read_skops(trained: bytes, kind: Kind) -> Callable[[Array], Array]:
    skops = _library("skops.io", "sklearn", "Reading a scikit-learn forest without pickle")
    odd = [name for name in skops.get_untrusted_types(data=trained) if name not in OURS]
    if odd:
        raise WrongQuestion(
            f"The saved learner holds {', '.join(odd)}, which no forest of millrace does: it is not read."
        )
    model = skops.loads(trained, trusted=list(OURS))
    return lambda x: _answer(model, kind, x)


def _own(estimator: Any, aim: Aim) -> Any:
    """A fitted copy of the user's estimator: scikit-learn's ways, `fit(X, y)` and `predict` or `predict_proba`."""
    import copy

    if not hasattr(estimator, "fit") or not hasattr(estimator, "predict_proba" if aim.kind == "binary" else "predict"):
        needs = "predict_proba, for the outcome has two values" if aim.kind == "binary" else "predict"
        raise WrongQuestion(f"The learner is a {type(estimator).__qualname__}: an estimator needs fit and {needs}.")
    fresh = copy.deepcopy(estimator)
    fresh.fit(numpy.array(aim.features[aim.rows]), numpy.array(aim.target[aim.rows]))
    return fresh


def _answer(model: Any, kind: Kind, x: Array) -> Array:
    said = model.predict_proba(x)[:, 1] if kind == "binary" else model.predict(x)
    return numpy.asarray(said, numpy.float64)


def _library(module: str, extra: str, why: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as e:
        raise MissingExtra(e.name or module, extra, why) from e

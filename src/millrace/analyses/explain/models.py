"""Opening a model: an object as it is, or a file in a form that is told by its content.

LightGBM's text, XGBoost's JSON and UBJ, CatBoost's own form and ONNX cannot execute anything; of a skops file only what
skops itself trusts is loaded. A joblib or pickle file can: it is loaded only
when the user's own command or call names it, and said aloud.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millrace.run.errors import MissingExtra, ModelTrouble, WrongQuestion

PICKLES = (".joblib", ".pkl", ".pickle")


def open_model(source: Any, note: Callable[[str], None]) -> Any:
    """The model object; a file is read by the library that wrote it."""
    if not isinstance(source, str | os.PathLike):
        return _taken(source, note)
    path = Path(source)
    if not path.exists():
        raise WrongQuestion(f"There is no model file {path}. Look for a typing error, or give a full path.")
    with path.open("rb") as file:
        head = file.read(64)
    try:
        if path.suffix in PICKLES:
            return _unpickle(path, note)
        if head.startswith(b"tree\n") or head.startswith(b"tree\r\n"):
            return _lightgbm(path)
        if head.startswith(b"CBM1"):
            return _catboost(path)
        if path.suffix == ".onnx":
            return _onnx(path)
        if path.suffix == ".skops":
            return _skops(path)
        if head.lstrip()[:1] == b"{" or path.suffix == ".ubj":
            return _xgboost(path)
    except ImportError as e:
        raise MissingExtra(e.name or "?", _extra(e.name), f"The model {path.name}") from e
    raise ModelTrouble(
        f"The model file {path} is neither LightGBM's text, nor XGBoost's JSON or UBJ, nor CatBoost's, nor ONNX, "
        f"skops, joblib or pickle (.onnx, .skops, {', '.join(PICKLES)}). Save the model in one of these forms."
    )


def _taken(model: Any, note: Callable[[str], None]) -> Any:
    """An object as it is, but a PyTorch module as a function of rows."""
    from millrace.analyses.explain.kernels.modules import is_module, open_module

    return open_module(model, note) if is_module(model) else model


def _extra(package: str | None) -> str:
    return {"sklearn": "sklearn", "joblib": "sklearn", "lightgbm": "lightgbm", "xgboost": "xgboost"}.get(
        package or "", "all"
    )


def _lightgbm(path: Path) -> Any:
    import lightgbm

    try:
        return lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as e:
        raise ModelTrouble(f"LightGBM cannot read the model file {path}: {e}. Save it again with save_model().") from e


def _xgboost(path: Path) -> Any:
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(path)
    except (xgboost.core.XGBoostError, ValueError) as e:
        first = str(e).strip().partition("\n")[0]
        raise ModelTrouble(
            f"XGBoost cannot read the model file {path}: {first}. Save it again with save_model()."
        ) from e
    return booster


def _catboost(path: Path) -> Any:
    import catboost

    model = catboost.CatBoost()
    try:
        model.load_model(str(path))
    except catboost.CatBoostError as e:
        first = str(e).strip().partition("\n")[0]
        raise ModelTrouble(
            f"CatBoost cannot read the model file {path}: {first}. Save it again with save_model()."
        ) from e
    return model


def _onnx(path: Path) -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    from millrace.analyses.explain.kernels.onnx import open_onnx

    try:
        return open_onnx(path.read_bytes())
    except (
        states.InvalidProtobuf,
        states.InvalidGraph,
        states.Fail,
        states.NotImplemented,
        states.InvalidArgument,
    ) as e:
        first = str(e).strip().partition("\n")[0]
        raise ModelTrouble(f"onnxruntime cannot read the model file {path}: {first}. Convert the model again.") from e


def _skops(path: Path) -> Any:
    import zipfile

    import skops.io

    try:
        doubtful = skops.io.get_untrusted_types(file=path)
        if not doubtful:
            return skops.io.load(path, trusted=[])
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as e:
        raise ModelTrouble(f"skops cannot read the model file {path}: {e}. Save it again with skops.io.dump().") from e
    raise ModelTrouble(
        f"The model file {path} holds {', '.join(doubtful[:5])}, which skops does not trust by itself. If the file is your own, "
        "load it with skops.io.load(path, trusted=[...]) and give the model instead of the file."
    )


def _unpickle(path: Path, note: Callable[[str], None]) -> Any:
    import joblib

    note(f"The model {path.name} was unpickled, which runs code from the file: load only files of your own.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)
        except Exception as e:
            raise ModelTrouble(
                f"The model file {path} cannot be unpickled: {type(e).__name__}: {e}. Load it with the library versions "
                "that wrote it, or save the model in its library's own form."
            ) from e
    for warning in said:
        if "version" in str(warning.message).lower():
            first = str(warning.message).strip().partition(". ")[0]
            note(f"The model {path.name} was fitted by another library version: {first}.")
            break
    return model

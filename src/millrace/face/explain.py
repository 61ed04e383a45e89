"""`mr.explain`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.explain.answer import Explanation


def explain(
    model: Any,
    X: Any,
    *,
    background: Any = None,
    background_rows: int = 100,
    background_weights: Any = None,
    method: str = "auto",
    output: str = "auto",
    max_evaluations: int | None = None,
    precision: str = "float64",
    top: int = 12,
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    run: OpenRun | None = None,
) -> Explanation:
    """SHAP values of `model` on the rows of `X`, exact where they can be.

    `model`: a fitted LightGBM, XGBoost or scikit-learn model, any function of a matrix, or a model file. `X`: (rows,
    features), an array, a pandas, polars or Arrow table, or a data file. `background`: rows that stand for "feature
    unknown" (interventional values); without them tree models use the training weights in their own nodes
    (path-dependent values); "auto" takes `background_rows` rows of X that represent it, weighted by the rows near them.
    `background_weights`: how much each row of a background counts. `method`: auto, tree_path_dependent,
    interventional, linear, kernel. `output`: auto, raw, probability or the name of a class. `max_evaluations`:
    coalitions a row of the kernel method.

    The rest is about the machine and never changes the answer: `engine` auto | inline | processes | dask |
    dask=ADDRESS, `cores`, `memory` ("4GiB"), `store` (a folder where finished blocks are kept, so that an interrupted
    call goes on), `progress` (True, or a function that is told), `out` (a folder for tables, pictures and report),
    `run` (an open `Run` to share).

    Raises the errors of `millrace.run.errors`: `WrongQuestion` and its kin before any work, `DoesNotFit` with the
    smallest budget that would do, `NotAdditive` when values do not add up to the model's output.
    """
    question = {
        "model": model, "data": X, "background": background, "background_rows": background_rows,
        "background_weights": background_weights, "method": method, "output": output,
        "max_evaluations": max_evaluations, "precision": precision, "top": top, "limit": limit,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress))
    return ask("explain", question, machine, run)  # type: ignore[no-any-return]

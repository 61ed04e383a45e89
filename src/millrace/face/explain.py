"""`mr.explain`, and `mr.explainer` for one row at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.explain.answer import Explanation
    from millrace.analyses.explain.streamed import Streamed
    from millrace.analyses.explain.warm import Explainer


def explain(
    model: Any,
    X: Any,
    *,
    background: Any = None,
    background_rows: int = 100,
    background_weights: Any = None,
    method: str = "auto",
    output: str = "auto",
    interactions: bool = False,
    groups: Any = None,
    max_evaluations: int | None = None,
    tolerance: float | None = None,
    precision: str = "float64",
    top: int = 12,
    limit: int | None = None,
    stream: bool = False,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    run: OpenRun | None = None,
) -> Explanation | Streamed:
    """SHAP values of `model` on the rows of `X`, exact where they can be.

    `model`: a fitted LightGBM, XGBoost or scikit-learn model, any function of a matrix, or a model file. `X`: (rows,
    features), an array, a pandas, polars or Arrow table, or a data file. `background`: rows that stand for "feature
    unknown" (interventional values); without them tree models use the training weights in their own nodes
    (path-dependent values); "auto" takes `background_rows` rows of X that represent it, weighted by the rows near them.
    `background_weights`: how much each row of a background counts. `method`: auto, tree_path_dependent,
    interventional, linear, kernel. `output`: auto, raw, probability, log_loss (of every class, were it the true one) or
    the name of a class. `interactions`: exact pairwise values of tree models as well (`answer.interactions`). `groups`:
    columns that are explained together, as one feature each: {"city": ["city_a", "city_b"]}. `max_evaluations`:
    coalitions a row of the kernel method; with a `tolerance` they are spent in rounds, until a row's standard errors are
    below it. `stream`: X is a Parquet file larger than memory, read by blocks; values go into a Parquet dataset in `out`
    while they are made, and the answer is a `Streamed`.

    The rest is about the machine and never changes the answer: `engine` auto | inline | processes | dask |
    dask=ADDRESS, `cores`, `memory` ("4GiB"), `store` (a folder where finished blocks are kept, so that an interrupted
    call goes on), `deadline` ("9h": stop then, and keep what there is), `progress` (True, or a function that is told),
    `out` (a folder for tables, pictures and report), `run` (an open `Run` to share). `fit`: take the largest question that
    fits the memory and the deadline (fewer background rows, then fewer rows); the answer's notes say what was made smaller.

    Raises the errors of `millrace.run.errors`: `WrongQuestion` and its kin before any work, `DoesNotFit` with the
    smallest budget that would do, `NotAdditive` when values do not add up to the model's output.
    """
    question = {
        "model": model, "data": X, "background": background, "background_rows": background_rows,
        "background_weights": background_weights, "method": method, "output": output,
        "interactions": interactions, "groups": groups, "max_evaluations": max_evaluations, "tolerance": tolerance,
        "precision": precision, "top": top, "limit": limit, "stream": stream,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return ask("explain", question, machine, run, fit)  # type: ignore[no-any-return]


def explainer(
    model: Any,
    *,
    background: Any = None,
    output: str = "auto",
    groups: Any = None,
    max_evaluations: int | None = None,
    digest: str = "",
    seed: int = 0,
) -> Explainer:
    """A model read once, for one row at a time: `.row({"age": 41, ...})`, or the values in the model's order.

    Tree models without a background give path-dependent values; all others need a background. `digest`: a word that
    names this version of the model, for a model whose content cannot be told. See `millrace.analyses.explain.explainers` for a
    cache of explainers and `formats` for what to send.
    """
    from millrace.analyses.explain.warm import open_explainer

    return open_explainer(
        model, background=background, digest=digest, seed=seed, output=output, groups=groups,
        max_evaluations=max_evaluations,
    )  # fmt: skip

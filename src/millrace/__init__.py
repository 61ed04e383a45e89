"""millrace: heavy Python analyses at full flow.

    import millrace as mr
    mr.explain(model, X)                 SHAP values, exact where they can be
    mr.explainer(model).row(...)         the same for one row at a time, kept warm
    mr.refute(data, "drug", "visits")    try to break a causal estimate, a thousand times
    mr.calibrate(simulate, ...)          fit a stochastic simulator to data
    mr.validate(candidates, cases)       run thousands of untrusted programs
    mr.twin.fit(data)                    a population that behaves like the real one
    mr.plan.explain(model, X)            what it will take, without running it
    mr.submit.explain(model, X)          as a durable job that workers carry out
    mr.connect(url).submit.explain(...)  as a job of a service elsewhere
    with mr.Run(cores=4) as run:         your own function, on every core
        for y in run.map(f, xs): ...

Every analysis gives the same answer in a notebook, on all cores of one box, and resumed after it was killed. Nothing
heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Run",
    "__version__",
    "calibrate",
    "connect",
    "explain",
    "explainer",
    "plan",
    "refute",
    "rng",
    "submit",
    "twin",
    "validate",
]

if TYPE_CHECKING:
    from millrace import planning as plan
    from millrace import submitting as submit
    from millrace.connecting import connect
    from millrace.face import twin
    from millrace.face.calibrate import calibrate
    from millrace.face.explain import explain, explainer
    from millrace.face.refute import refute
    from millrace.face.run import Run
    from millrace.face.validate import validate
    from millrace.run.streams import rng

_MODULES = {"plan": "millrace.planning", "submit": "millrace.submitting", "twin": "millrace.face.twin"}
_WHERE = {
    "calibrate": "millrace.face.calibrate",
    "connect": "millrace.connecting",
    "explain": "millrace.face.explain",
    "explainer": "millrace.face.explain",
    "refute": "millrace.face.refute",
    "Run": "millrace.face.run",
    "rng": "millrace.run.streams",
    "validate": "millrace.face.validate",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'millrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

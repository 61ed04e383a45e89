"""`mr.calibrate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.calibrate.answer import Calibration
    from millrace.analyses.calibrate.probe import Probe
    from millrace.analyses.calibrate.replay import Replay


def calibrate(
    simulate: Any,
    *,
    parameters: Mapping[str, Any],
    targets: Mapping[str, Any] | Sequence[Any],
    summarise: Any = None,
    warm_up: bool = False,
    sampler: str = "tpe",
    replicates: Any = (1, 5),
    seeds: str = "common",
    stop_early: bool = True,
    trials: int | None = None,
    simulations: int | None = None,
    seconds: float | None = None,
    order: str = "reproducible",
    in_flight: int | None = None,
    on_error: str = "continue",
    finish: int = 5,
    fresh: int = 10,
    level: float = 0.9,
    limits: Mapping[str, Any] | None = None,
    warm_start: Any = None,
    storage: str = "memory",
    study_name: str = "millrace",
    persist: bool = False,
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
) -> Calibration:
    """Fit the parameters of a stochastic simulator to data.

    `simulate(params, seed)` returns a mapping of tables or arrays; it is a function or "module:function". `summarise(outputs)`
    makes them small where they were made. `parameters`: by name `(low, high)`, `("log", low, high)`, `("int", low, high)`,
    `("logit", low, high)`, `("categorical", a, b)`, or a value that is fixed. `targets`: by name a mapping with `data`
    (observed: a file, a table, columns, numbers) and how it is compared (`on`, `align`, `column`, `loss`, `weight`, ...).
    `sampler`: tpe, cma-es, gp, random, sobol, grid of Optuna, or emulate, which models the summaries themselves. `replicates`:
    a number, or the least and the most of a trial; with `stop_early` a trial that is clearly worse than the best has no
    further ones. One of `trials`, `simulations` and `seconds` ends the search; the best `finish` trials are run again on
    `fresh` seeds, and the answer is chosen on those.

    The rest is about the machine: see `explain`. With order="reproducible" it never changes the answer; but with `fit` there
    are as many simulations as fit the deadline, and the answer says so. Raises the errors of
    `millrace.run.errors`, `WrongQuestion` and its kin before any work.
    """
    question = {
        "simulate": simulate, "parameters": parameters, "targets": targets, "summarise": summarise, "warm_up": warm_up,
        "sampler": sampler, "replicates": replicates, "seeds": seeds, "stop_early": stop_early, "trials": trials,
        "simulations": simulations, "seconds": seconds, "order": order, "in_flight": in_flight, "on_error": on_error,
        "finish": finish, "fresh": fresh, "level": level, "limits": limits or {}, "warm_start": warm_start,
        "storage": storage, "study_name": study_name, "persist": persist,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return ask("calibrate", question, machine, run, fit)  # type: ignore[no-any-return]


def _rescore(
    run_folder: str | os.PathLike[str],
    *,
    targets: Any = None,
    weights: Mapping[str, float] | None = None,
    store: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Calibration:
    """The finished trials of a run under new targets or weights, without a simulation.

    `run_folder`: where the run's answer lies; `store`: the one that it used. New losses and weights are always possible; other
    outputs or another join need a run with `summarise` or `persist`.
    """
    question = {"run": os.fspath(run_folder), "targets": targets, "weights": weights or {}}
    return ask("calibrate rescore", question, compose.Machine("inline", store=store, out=out), None)  # type: ignore[no-any-return]


def _replay(run_folder: str | os.PathLike[str], *, trial: int, seed: int | None = None) -> Replay:
    """One simulation of a run again, in this process, with all that it prints and raises."""
    question = {"run": os.fspath(run_folder), "trial": trial, "seed": seed}
    return ask("calibrate replay", question, compose.Machine("inline"), None)  # type: ignore[no-any-return]


def _probe(
    simulate: Any, *, engine: str = "auto", cores: int | None = None, memory: str | int | None = None, **question: Any
) -> Probe:
    """The same small study three times (simulations only, one target, all): what each part costs. Arguments as `calibrate`'s."""
    machine = compose.Machine(engine, cores, memory)
    return ask("calibrate probe", {"simulate": simulate, **question}, machine, None)  # type: ignore[no-any-return]


# The verbs are said as on the command line: mr.calibrate.rescore(...).
calibrate.rescore, calibrate.replay, calibrate.probe = _rescore, _replay, _probe  # type: ignore[attr-defined]

"""From trials to the answer: the table, the best, bands of the targets, intervals and importance of the parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from millrace.analyses.calibrate import finishing, trials
from millrace.analyses.calibrate.answer import Best, Calibration, Timing, Verdict
from millrace.analyses.calibrate.emulating import dimensions
from millrace.analyses.calibrate.finishing import Finalist
from millrace.analyses.calibrate.kernels import posterior
from millrace.analyses.calibrate.question import Asked
from millrace.analyses.calibrate.sampling import distribution, frozen, named, optuna_library, quiet
from millrace.analyses.calibrate.trials import Trial

GOOD = 10
"""Trials of the ensemble, at the least; a twentieth of all when that is more."""
RUNS = 200
"""Simulations of the ensemble at most: a band of more looks the same."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search (or a new look at one) found. order: numbers of the trials that count, the best first."""

    asked: Asked
    trials: Sequence[Trial]
    finalists: Sequence[Finalist]
    order: Sequence[int]
    best: Best
    verdicts: Sequence[Verdict]
    in_flight: int
    study: Any
    timing: Timing | None
    notes: tuple[str, ...]


def assemble(found: Found) -> Calibration:
    """The answer."""
    asked, spec = found.asked, found.asked.spec
    names, parameters = [t.name for t in spec.targets], list(spec.parameters)
    by_number = {t.number: t for t in found.trials}
    ranked = [by_number[number] for number in found.order]
    fresh = {f.trial.number: f.fresh for f in found.finalists if f.fresh.losses}
    return Calibration(
        table=trials.table(found.trials, parameters, names),
        best=found.best,
        finish=finishing.table(found.finalists, parameters, spec.level, asked.positive),
        predictive=predictive(asked, ranked, fresh),
        intervals=intervals(asked, ranked, fresh, found.best),
        importance=importance(asked, ranked),
        parameters={name: p.model_dump() for name, p in spec.parameters.items()},
        targets=tuple(names),
        verdicts=tuple(sorted(found.verdicts, key=lambda v: (v.trial, v.seed))),
        level=spec.level,
        simulations=sum(len(t.seeds) for t in found.trials)
        + sum(len(f.seeds) for n, f in fresh.items() if by_number.get(n) is not f),
        in_flight=found.in_flight,
        order=spec.order,
        timing=found.timing,
        study=found.study,
        notes=found.notes,
    )


def predictive(asked: Asked, ranked: Sequence[Trial], fresh: Mapping[int, Trial]) -> dict[str, Mapping[str, Any]]:
    """By target: x, observed, and the simulated values of the ensemble of good trials, a row a simulation.

    Good are the best by rank: not the best alone, which would show less doubt than there is.
    """
    good = ranked[: max(GOOD, math.ceil(len(ranked) / 20))]
    rows: list[Mapping[str, Any]] = []
    for trial in good:
        for source in (trial, fresh.get(trial.number)):
            if source is not None:
                rows += [source.aligned[r] for r in source.ran]
    rows = rows[:RUNS]
    return {
        o.name: {
            "x": o.x if o.x is not None else np.arange(len(o.values)),
            "observed": o.values,
            "runs": np.array([row[o.name][0] for row in rows]).reshape(len(rows), len(o.values)),
        }
        for o in asked.observed
    }


def intervals(
    asked: Asked, ranked: Sequence[Trial], fresh: Mapping[int, Trial], best: Best
) -> dict[str, tuple[float, float]]:
    """Of continuous parameters, by synthetic likelihood on emulated summaries; {} when there are too few simulations.

    Where other parameters vary, only trials that share the best one's values of them are looked at.
    """
    dims = dimensions(asked.spec)
    others = [n for n in asked.spec.free if n not in {d.name for d in dims}]
    if not dims:
        return {}
    alike = [t for t in ranked if all(t.params[n] == best.params[n] for n in others)]
    sources = [
        s for t in sorted(alike, key=lambda t: t.number) for s in (t, fresh.get(t.number)) if s is not None and s.losses
    ]
    sources = list({id(s): s for s in sources}.values())
    if not sources:
        return {}
    params = np.array([[s.params[d.name] for d in dims] for s in sources])
    found = posterior.intervals(
        params,
        [s.stacked(asked.observed) for s in sources],
        np.concatenate([o.values for o in asked.observed]),
        dims,
        [best.params[d.name] for d in dims],
        asked.spec.level,
        noise=observation_noise(asked),
        seeds=[[s.seeds[r] for r in s.ran] for s in sources],
    )
    return dict(found)


def observation_noise(asked: Asked) -> Any:
    """(m,) standard deviations of observing where every target's loss tells them; None when one does not."""
    parts = []
    for o in asked.observed:
        if o.target.loss == "normal":
            parts.append(np.broadcast_to(o.sd, o.values.shape))
        elif o.target.loss in ("binomial", "beta-binomial"):
            share = np.clip(o.values, 0.5 / np.asarray(o.of), 1 - 0.5 / np.asarray(o.of))
            parts.append(np.sqrt(share * (1 - share) / o.of))
        elif o.target.loss == "poisson":
            parts.append(np.sqrt(np.maximum(o.values, 1.0)))
        else:
            return None
    return np.concatenate(parts)


def importance(asked: Asked, ranked: Sequence[Trial]) -> dict[str, float]:
    """How much each parameter decides whether a trial is good, in shares: PED-ANOVA (Watanabe, Bansal and Hutter 2023)."""
    free = asked.spec.free
    if len(free) == 1:
        return {free[0]: 1.0}
    if len(ranked) < 4:
        return {}
    optuna = optuna_library()
    distributions = {named(asked.spec, n): distribution(asked.spec.parameters[n]) for n in free}
    with quiet():
        study = optuna.create_study(direction="minimize")
        study.add_trials([frozen(asked.spec, distributions, t) for t in sorted(ranked, key=lambda t: t.number)])
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        said = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {n: float(said.get(named(asked.spec, n), 0.0)) for n in free}

"""Who proposes parameters: Optuna's samplers on a study in memory, told by the loop in its order.

The ledger and the store are the truth: the study is rebuilt from them on resume by asking and telling again, which gives the
same proposals because samplers are seeded and see the same trials. Does not run anything, and never reads `study.trials`.
See also: `emulating` (the sampler that models outputs), `mirror` (the study where Optuna's tools see it).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from millrace.analyses.calibrate.parts import Parameter
from millrace.analyses.calibrate.spec import Spec
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import MissingExtra, WrongQuestion


class Sampler(Protocol):
    """Asked and told in an order that the loop decides; the same order gives the same proposals."""

    study: Any
    most: int | None
    """Proposals that there are at all; None: no end."""

    def ask(self) -> dict[str, Any] | None:
        """Values of the free parameters; None: not before more trials are told."""
        ...

    def tell(self, trial: Trial) -> None:
        """A trial is over. One that failed counts as infinitely bad: it is told, not forgotten."""
        ...


@dataclass(slots=True)
class OptunaSampler:
    """Optuna's proposals. `asked`: Optuna's trials by our numbers, until they are told."""

    spec: Spec
    study: Any
    distributions: Mapping[str, Any]
    most: int | None
    asked: dict[int, Any] = field(default_factory=dict)
    number: int = 0

    def ask(self) -> dict[str, Any]:
        with quiet():
            trial = self.study.ask(fixed_distributions=self.distributions)
        self.asked[self.number] = trial
        self.number += 1
        return values_of(self.spec, trial.params)

    def tell(self, trial: Trial) -> None:
        optuna_trial = self.asked.pop(trial.number)
        for name, value in attributes(trial).items():
            optuna_trial.set_user_attr(name, value)
        with quiet():
            try:
                self.study.tell(optuna_trial, bad_if_failed(trial))
            except RuntimeError:  # a grid that is used up stops a loop of Optuna's own, which there is none of
                if self.spec.sampler != "grid":
                    raise


def make(spec: Spec, seed: int, in_flight: int) -> OptunaSampler:
    """The sampler that the question names, with the trials of a study to start from; `MissingExtra` without its package."""
    optuna = optuna_library()
    distributions = {named(spec, name): distribution(spec.parameters[name]) for name in spec.free}
    with quiet():
        study = optuna.create_study(
            sampler=_sampler(optuna, spec, seed, in_flight), study_name=spec.study_name, direction="minimize"
        )
    return OptunaSampler(spec, study, distributions, _grid_size(spec) if spec.sampler == "grid" else None)


def optuna_library() -> Any:
    try:
        import optuna
    except ImportError as e:
        raise MissingExtra("optuna", "calibrate", "Calibration") from e
    return optuna


def _sampler(optuna: Any, spec: Spec, seed: int, in_flight: int) -> Any:
    samplers, low = optuna.samplers, seed % 2**32
    if spec.sampler == "tpe":
        return samplers.TPESampler(seed=low, constant_liar=in_flight > 1)
    if spec.sampler == "cma-es":
        _needs("cmaes", "calibrate", "The sampler cma-es")
        return samplers.CmaEsSampler(seed=low, warn_independent_sampling=False)
    if spec.sampler == "gp":
        _needs("torch", "gp", "The sampler gp")
        return samplers.GPSampler(seed=low, warn_independent_sampling=False)
    if spec.sampler == "sobol":
        return samplers.QMCSampler(
            qmc_type="sobol", scramble=True, seed=low, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )
    if spec.sampler == "grid":
        return samplers.GridSampler({named(spec, n): grid_points(spec.parameters[n]) for n in spec.free}, seed=low)
    return samplers.RandomSampler(seed=low)


def _needs(package: str, extra: str, why: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtra(package, extra, why)


# -- parameters on Optuna's scales -------------------------------------------------------------------------------
def named(spec: Spec, name: str) -> str:
    """What Optuna calls a parameter: one on the logit scale is sampled there, and says so."""
    return f"logit({name})" if spec.parameters[name].kind == "logit" else name


def distribution(p: Parameter) -> Any:
    d = optuna_library().distributions
    if p.kind == "categorical":
        return d.CategoricalDistribution(list(p.choices))
    assert p.low is not None and p.high is not None  # the model says so
    if p.kind == "int":
        return d.IntDistribution(int(p.low), int(p.high))
    if p.kind == "logit":
        return d.FloatDistribution(logit(p.low), logit(p.high))
    return d.FloatDistribution(p.low, p.high, log=p.kind == "log")


def values_of(spec: Spec, said: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the simulator gets them."""
    found = {}
    for name in spec.free:
        value = said[named(spec, name)]
        p = spec.parameters[name]
        if p.kind == "logit":
            assert p.low is not None and p.high is not None  # the model says so
            value = min(p.high, max(p.low, 1 / (1 + math.exp(-value))))
        found[name] = value
    return found


def optuna_values(spec: Spec, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Optuna has them."""
    return {
        named(spec, n): logit(params[n]) if spec.parameters[n].kind == "logit" else params[n] for n in spec.free
    }  # fmt: skip


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def grid_points(p: Parameter) -> list[Any]:
    """Points of a grid on the parameter's scale: its choices, every whole number where these are few, or `points` of them."""
    if p.choices:
        return [logit(c) for c in p.choices] if p.kind == "logit" else list(p.choices)
    assert p.low is not None and p.high is not None  # the model says so
    steps = [i / (p.points - 1) for i in range(p.points)]
    if p.kind == "int":
        whole = range(int(p.low), int(p.high) + 1)
        return list(whole) if len(whole) <= p.points else sorted({round(p.low + s * (p.high - p.low)) for s in steps})
    if p.kind == "log":
        return [min(p.high, max(p.low, p.low * (p.high / p.low) ** s)) for s in steps]
    low, high = (logit(p.low), logit(p.high)) if p.kind == "logit" else (p.low, p.high)
    return [min(high, max(low, low + s * (high - low))) for s in steps]


def _grid_size(spec: Spec) -> int:
    return math.prod(len(grid_points(spec.parameters[n])) for n in spec.free)


# -- what the study is told --------------------------------------------------------------------------------------
def bad_if_failed(trial: Trial) -> float:
    return math.inf if trial.state == "failed" else trial.loss


def attributes(trial: Trial) -> dict[str, Any]:
    """What Optuna's tools show beside a trial."""
    return {
        "millrace_trial": trial.number,
        "state": trial.state,
        "replicates": len(trial.losses),
        **{f"loss_{name}": loss for name, loss in trial.target_losses.items()},
    }


def frozen(spec: Spec, distributions: Mapping[str, Any], trial: Trial) -> Any:
    """A trial that is over, as Optuna keeps them."""
    return optuna_library().trial.create_trial(
        params=optuna_values(spec, trial.params),
        distributions=dict(distributions),
        value=bad_if_failed(trial),
        user_attrs=attributes(trial),
    )


@dataclass(frozen=True, slots=True)
class Warmth:
    """Trials of another study: parameters by Optuna's names, and values. left: how many did not fit."""

    trials: tuple[tuple[Mapping[str, Any], float], ...]
    left: int


def warmth(spec: Spec) -> Warmth:
    """The complete trials of the study to start from whose parameters and bounds fit; `WrongQuestion` when it is not there."""
    if spec.warm_start is None:
        return Warmth((), 0)
    from millrace.analyses.calibrate.mirror import storage_of

    optuna = optuna_library()
    given = spec.warm_start
    try:
        with quiet():
            study = optuna.load_study(study_name=given.name, storage=storage_of(given.storage, must_exist=True))
    except (KeyError, ValueError) as e:
        raise WrongQuestion(f"There is no study {given.name!r} in {given.storage} to start from: {e}.") from None
    if len(study.directions) != 1 or study.direction.name != "MINIMIZE":
        raise WrongQuestion(
            f"The study {given.name!r} does not minimise one value: its trials say nothing about a loss."
        )
    wanted = {named(spec, n): (n, distribution(spec.parameters[n])) for n in spec.free}
    found, left = [], 0
    for old in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        params = _fitting(spec, old.params, wanted)
        if params is None or old.value is None or not math.isfinite(old.value):
            left += 1
        else:
            found.append((params, float(old.value)))
    return Warmth(tuple(found), left)


def _fitting(spec: Spec, params: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    said = {}
    for theirs, (name, bounds) in wanted.items():
        value = params.get(theirs, params.get(name))
        if value is None:
            return None
        if theirs != name and theirs not in params:  # a share, where we sample its logit
            if not 0 < value < 1:
                return None
            value = logit(value)
        try:
            if not bounds._contains(bounds.to_internal_repr(value)):
                return None
        except (ValueError, TypeError):
            return None
        said[theirs] = value
    fixed = {n: p.value for n, p in spec.parameters.items() if p.kind == "fixed"}
    return None if any(n in params and params[n] != value for n, value in fixed.items()) else said


def start_from(sampler: OptunaSampler, found: Warmth) -> None:
    """Tell the study the trials of another."""
    create = optuna_library().trial.create_trial
    for params, value in found.trials:
        sampler.study.add_trial(
            create(
                params=params, distributions=dict(sampler.distributions), value=value, user_attrs={"warm_start": True}
            )
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna's remarks about experimental features and its lines about each trial are not for our users."""
    logging = optuna_library().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)

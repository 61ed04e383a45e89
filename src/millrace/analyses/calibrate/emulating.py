"""The sampler `emulate`, as the loop sees it: proposals of the emulator, and a study that is filled as trials are told.

The emulator itself (surfaces of the summaries, waves) is `kernels.emulator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.analyses.calibrate.kernels.emulator import Dimension, Emulator
from millrace.analyses.calibrate.parts import Parameter
from millrace.analyses.calibrate.sampling import distribution, frozen, named, optuna_library, quiet
from millrace.analyses.calibrate.spec import Spec
from millrace.analyses.calibrate.targets import Observed
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import WrongQuestion


@dataclass(slots=True)
class EmulateSampler:
    """Asked and told as `sampling.Sampler`. observed: the targets, whose values side by side are the summaries."""

    spec: Spec
    observed: Sequence[Observed]
    emulator: Emulator
    study: Any
    distributions: Mapping[str, Any]
    most: int | None = None

    def ask(self) -> dict[str, Any]:
        return self.clipped(self.emulator.ask(1)[0])

    def clipped(self, params: Mapping[str, float]) -> dict[str, Any]:
        """Inside the bounds, which the way to the unit cube and back may leave by a rounding."""
        return {d.name: float(min(d.high, max(d.low, params[d.name]))) for d in self.emulator.dimensions}

    def tell(self, trial: Trial) -> None:
        free = {name: trial.params[name] for name in self.spec.free}
        self.emulator.tell(free, trial.stacked(self.observed) if trial.losses else None, trial.loss)
        with quiet():
            self.study.add_trial(frozen(self.spec, self.distributions, trial))


def make(spec: Spec, observed: Sequence[Observed], seed: int, simulations: int) -> EmulateSampler:
    """simulations: of the search, the finish not counted."""
    optuna = optuna_library()
    counted = [o.name for o in observed if isinstance(o.target.simulated_of, str)]
    if counted:
        raise WrongQuestion(
            f"The sampler emulate needs `simulated_of` of the target {counted[0]!r} as a number: it models what is compared, and "
            "not how many people are behind it."
        )
    emulator = Emulator(dimensions(spec), seed, simulations, Summed(tuple(observed)))
    with quiet():
        study = optuna.create_study(study_name=spec.study_name, direction="minimize")
    distributions = {named(spec, name): distribution(spec.parameters[name]) for name in spec.free}
    return EmulateSampler(spec, observed, emulator, study, distributions)


def dimensions(spec: Spec) -> list[Dimension]:
    """Of the continuous parameters, in their order."""
    return [dimension(name, spec.parameters[name]) for name in spec.free if spec.parameters[name].continuous]


def dimension(name: str, p: Parameter) -> Dimension:
    assert p.low is not None and p.high is not None  # the model says so
    return Dimension(name, p.kind, p.low, p.high)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Summed:
    """The combined loss of many simulations at once, from their summaries side by side."""

    observed: tuple[Observed, ...]

    def __call__(self, summaries: Any) -> Any:
        """(k, m) -> (k,)."""
        total, at = 0.0, 0
        for o in self.observed:
            n = len(o.values)
            if o.target.weight:
                total = total + o.target.weight * o.losses(summaries[..., at : at + n], o.target.simulated_of)
            at += n
        return total

"""What the ledger and the store keep of a study: the question, every trial with the keys of its simulations, k, seconds spent.

Read again by rescore, replay and by a resumed study. Writes no tables: see `answer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.calibrate.question import Asked
from millrace.analyses.calibrate.spec import Spec
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.ledger import replay

if TYPE_CHECKING:
    from millrace.run.run import Run


# -- in the ledger -----------------------------------------------------------------------------------------------
def write_study(run: Run, asked: Asked, in_flight: int) -> None:
    """The question, so that it can be asked again of what it left; k as it was settled."""
    spec = asked.spec
    said = spec.model_dump(mode="python", exclude={"simulate", "summarise", "targets", "in_flight"})
    said["in_flight"] = in_flight
    said["simulate"], said["summarise"] = name_of(asked.simulate), name_of(asked.summarise)
    said["targets"] = [
        {
            **target.model_dump(exclude={"data", "loss"}),
            "loss": target.loss if isinstance(target.loss, str) else name_of(target.loss),
            "data": _columns(o),
        }
        for target, o in zip(spec.targets, asked.observed, strict=True)
    ]
    run.ledger.write("study", seed=asked.seed, identity=asked.identity, spec=said, store=run.store.url)


def _columns(observed: Any) -> dict[str, Any]:
    """The observed data as columns of plain values, under the names by which the target knows them."""
    t = observed.target
    said = {
        name: [v.item() if hasattr(v, "item") else v for v in values]
        for name, values in observed.alignment.keys.items()
    }
    said[t.observed or t.column or t.name] = observed.values.tolist()
    for name, values in ((t.sd, observed.sd), (t.of, observed.of)):
        if isinstance(name, str):
            said[name] = np.asarray(values).tolist()
    return {
        name: [str(v) if not isinstance(v, int | float | str) else v for v in column] for name, column in said.items()
    }


def name_of(function: Any) -> str | None:
    """module:function, by which it is found again; None of a function that lives in no module."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name and module != "__main__" else None


def write_trial(run: Run, trial: Trial, what: str = "trial") -> None:
    """A trial that was told (or, as `fresh`, a finalist's replicates on fresh seeds)."""
    run.ledger.write(
        what,
        trial=trial.number,
        params=dict(trial.params),
        state=trial.state,
        loss=trial.loss if math.isfinite(trial.loss) else None,
        losses=dict(trial.target_losses),
        seeds=trial.seeds,
        keys=trial.keys,
        ran=trial.ran,
        failed=trial.failed,
        seconds=trial.seconds,
    )


@dataclass(frozen=True, slots=True)
class Past:
    """A study that was run: its question (targets' data inside), its seed, its trials and finalists as they were written."""

    folder: Path
    spec: Mapping[str, Any]
    seed: int
    store: str
    trials: tuple[Mapping[str, Any], ...]
    fresh: tuple[Mapping[str, Any], ...]
    printed: tuple[Mapping[str, Any], ...]

    def trial(self, number: int) -> Mapping[str, Any]:
        for said in (*self.trials, *self.fresh):
            if said["trial"] == number:
                return said
        raise WrongQuestion(f"The run in {self.folder} has no trial {number}: it has {len(self.trials)}, from 0 on.")


def read_past(folder: str | Path) -> Past:
    """What a run of calibrate left in its folder; `WrongQuestion` when it is none."""
    path = Path(folder) / "ledger.jsonl"
    if not path.is_file():
        raise WrongQuestion(
            f"There is no run in {folder}: it has no ledger.jsonl. `millrace runs` lists the runs there are."
        )
    history = replay(path)
    studies = history.of("study")
    if not studies:
        raise WrongQuestion(f"The run in {folder} is of {history.header['analysis']}, not of calibrate.")
    study = studies[-1]
    return Past(
        Path(folder), study["spec"], study["seed"], study["store"], tuple(history.of("trial")), tuple(history.of("fresh")),
        tuple(history.of("printed")),
    )  # fmt: skip


def respecified(past: Past, **changed: Any) -> Spec:
    """The question that was asked, with what is changed."""
    said = {**past.spec, **changed}
    if said.get("simulate") is None:
        raise WrongQuestion(
            f"The simulator of the run in {past.folder} lives in no module (a notebook, a lambda): it cannot be found again. Put "
            "it into a file, and run the study with module:function."
        )
    return Spec(**said)


# -- in the store ------------------------------------------------------------------------------------------------
def settled_in_flight(run: Run, asked: Asked, default: int) -> int:
    """k: the question's, or that with which the same study began, or the machine's default, which is kept from now on."""
    if asked.spec.in_flight is not None:
        return asked.spec.in_flight
    if not asked.identity:
        return default
    key = content_key(("in flight", asked.identity))
    stored = run.store.get(key)
    if stored is not None:
        return int(stored.value)
    run.store.put(key, default)
    return default


@dataclass(slots=True)
class Spent:
    """Seconds that earlier runs of the same study had, a mark for each that passed; a budget of seconds counts them."""

    run: Run
    identity: str
    clock: Callable[[], float]
    before_s: int = 0
    begun_s: float = 0.0
    marked: int = 0

    def begin(self) -> None:
        self.begun_s = self.clock()
        while self.identity and self.run.store.get(self._key(self.before_s)) is not None:
            self.before_s += 1
        self.marked = self.before_s

    def mark(self) -> None:
        now = self.before_s + int(self.clock() - self.begun_s)
        while self.identity and self.marked < now:
            self.run.store.put(self._key(self.marked), True)
            self.marked += 1

    def _key(self, second: int) -> str:
        return content_key(("second of a study", self.identity, second))

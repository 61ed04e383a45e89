"""`calibrate rescore`: the finished trials of a run under new targets or weights, without a simulation.

What the simulations gave is in the store, under the keys that the run's ledger names. New losses and weights are always
possible; what is joined in another way, or from other outputs, needs a run with `summarise` or `persist`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace.analyses.calibrate import finishing, records
from millrace.analyses.calibrate.answer import Calibration, Verdict
from millrace.analyses.calibrate.assembling import Found, assemble
from millrace.analyses.calibrate.finishing import Finalist
from millrace.analyses.calibrate.looks import Rescore as Spec
from millrace.analyses.calibrate.question import Asked, read
from millrace.analyses.calibrate.sampling import distribution, frozen, named, optuna_library, quiet
from millrace.analyses.calibrate.targets import combined, measured
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run


@dataclass(slots=True)
class Looked:
    """A new look at a search that is over."""

    asked: Asked
    run: Run
    trials: list[Trial] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def rescore(spec: Spec, run: Run) -> Calibration:
    """The calibration as it would have been judged; its trials are those that there are."""
    past = records.read_past(spec.run)
    run.progress("rescoring", len(past.trials))
    before = read(records.respecified(past, simulate="kept:kept"), seed=past.seed, simulates=False)
    targets = spec.targets if spec.targets is not None else before.spec.targets
    unknown = sorted(set(spec.weights) - {t.name for t in targets})
    if unknown:
        raise WrongQuestion(
            f"There is no target {unknown[0]!r} to weigh; there are {', '.join(repr(t.name) for t in targets)}."
        )
    weighed = [t.model_copy(update={"weight": spec.weights.get(t.name, t.weight)}) for t in targets]
    said = records.respecified(past, simulate="kept:kept", targets=[t.model_dump() for t in weighed])
    asked = read(said, seed=past.seed, simulates=False)
    looked = Looked(asked, run)
    values = _Values(run, past, before, asked)
    looked.trials = [values.trial(one) for one in past.trials]
    fresh = [values.trial(one) for one in past.fresh]
    known = {t.number: t for t in looked.trials}
    for trial in fresh:  # an emulator's finalists were trials by their fresh seeds alone
        if trial.number not in known:
            looked.trials.append(trial)
    finalists = [Finalist(known.get(f.number, Trial(f.number, f.params, f.cap)), f) for f in fresh]
    order = finishing.ranked(looked)
    best = finishing.chosen(looked, finalists)
    if finalists and order[0] not in {f.trial.number for f in finalists}:
        run.note(
            f"The best trial by the new losses, {order[0]}, was not run again on fresh seeds: the answer is the best of those "
            "that were. Run the study with the new targets to have it looked at."
        )
    return assemble(
        Found(
            asked, looked.trials, finalists, order, best, (), int(past.spec["in_flight"]), _study(asked, looked.trials), None,
            tuple(run.notes),
        )
    )  # fmt: skip


@dataclass(slots=True)
class _Values:
    """Simulated values by key, in the order of the new targets' observations."""

    run: Run
    past: records.Past
    before: Asked
    asked: Asked

    def trial(self, said: Mapping[str, Any]) -> Trial:
        """A trial as the ledger tells it, judged anew."""
        trial = Trial(said["trial"], said["params"], len(said["seeds"]), state=said["state"], seconds=said["seconds"])
        trial.seeds, trial.keys, trial.failed = list(said["seeds"]), list(said["keys"]), list(said["failed"])
        for number in said["ran"]:
            aligned = self._aligned(said["keys"][number])
            trial.aligned[number] = aligned
            trial.by_target[number] = measured(self.asked.observed, aligned)
            trial.losses[number] = combined(self.asked.observed, trial.by_target[number])
        trial.settle(trial.state, self.asked.observed)
        return trial

    def _aligned(self, key: str) -> Mapping[str, Any]:
        stored = self.run.store.get(key) if key[:1] != "~" else None
        if stored is None:
            raise WrongQuestion(
                f"What a simulation of the run in {self.past.folder} gave is not in this store (any more). The run used "
                f"{self.past.store or 'no store that outlives it'}: give --store with it, or run the study again."
            )
        if "outputs" in stored.value:
            return self.asked.aligned(stored.value)
        had = {o.name: _joined(o) for o in self.before.observed}
        for o in self.asked.observed:
            if had.get(o.name) != _joined(o):
                raise WrongQuestion(
                    f"The target {o.name!r} takes other outputs, or joins them in another way, than the run did, which kept no "
                    "outputs: run the study with `summarise`, or with `persist`, to be free in this later."
                )
        return stored.value["aligned"]  # type: ignore[no-any-return]


def _joined(observed: Any) -> str:
    return content_key((observed.alignment, len(observed.values)))


def _study(asked: Asked, trials: list[Trial]) -> Any:
    optuna = optuna_library()
    distributions = {named(asked.spec, n): distribution(asked.spec.parameters[n]) for n in asked.spec.free}
    with quiet():
        study = optuna.create_study(study_name=asked.spec.study_name, direction="minimize")
        study.add_trials([frozen(asked.spec, distributions, t) for t in trials])
    return study

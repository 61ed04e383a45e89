"""The order of work of calibrate: the question read, the search, the finish on fresh seeds, the answer."""

from __future__ import annotations

import shlex
import time
from typing import Any

from millrace.analyses.calibrate import budgets, emulating, finishing, mirror, order, records, sampling
from millrace.analyses.calibrate.answer import Calibration, Timing
from millrace.analyses.calibrate.assembling import Found, assemble
from millrace.analyses.calibrate.facts import default_in_flight, facts_of
from millrace.analyses.calibrate.finishing import Finalist, Finish
from millrace.analyses.calibrate.kernels import lag
from millrace.analyses.calibrate.loop import Search, said_of
from millrace.analyses.calibrate.plan import plan
from millrace.analyses.calibrate.question import Asked, read
from millrace.analyses.calibrate.spec import Spec
from millrace.run.run import Run
from millrace.run.urls import spoken

TOLD_VERDICTS = 10
"""Verdicts that are notes; all of them are in the answer and its tables."""

MANY_TRIALS = 200
RESERVE = 1.3
"""Times what the finish is expected to take."""


def calibrate(spec: Spec, run: Run) -> Calibration:
    """Answer the question: search, finish, and what is known then."""
    run.progress("reading the question")
    asked = read(spec, run)
    in_flight = records.settled_in_flight(
        run, asked, default_in_flight(run.budget.cores, asked.first_round, spec.order)
    )
    facts = facts_of(asked, in_flight)
    run.follow(plan(facts, run.budget))
    _suggest(asked, run, facts.trials)
    search = prepared(asked, run, in_flight)
    begun, until_s = time.monotonic(), search.allowance.until_s
    records.write_study(run, asked, in_flight)
    run.progress("simulations", facts.simulations - facts.finish if spec.seconds is None else None)
    search.go()
    searched_s = time.monotonic() - begun
    finalists = _finish(search, until_s)
    best = finishing.chosen(search, finalists)
    finishing.as_trials(search, finalists)
    timing = timed(search, searched_s, time.monotonic() - begun)
    for text in said(search, best, timing):
        run.note(text)
    run.ledger.write("calibrated", **{name: getattr(timing, name) for name in Timing.__slots__})
    ended = [trial for trial in search.trials if trial.state != "running"]
    return assemble(
        Found(
            asked, ended, finalists, finishing.ranked(search), best, search.verdicts, in_flight, search.sampler.study, timing,
            tuple(run.notes),
        )
    )  # fmt: skip


def _suggest(asked: Asked, run: Run, trials: int) -> None:
    """What the question does not get, or could do better."""
    spec = asked.spec
    if spec.stop_early and not asked.common and spec.sampler != "emulate":
        run.note(
            "Trials have seeds of their own, so that no trial is stopped early: its losses have nothing to be paired with."
        )
    if spec.sampler == "tpe" and trials >= MANY_TRIALS and sum(p.continuous for p in spec.parameters.values()) >= 4:
        run.note(
            "With four continuous parameters and 200 trials or more the sampler cma-es usually finds better: in worlds with a "
            "known truth its loss was .55 of that at the truth, and that of tpe .96."
        )


def prepared(asked: Asked, run: Run, in_flight: int) -> Search:
    """A search that has not begun: its sampler, its budget (whose seconds begin now), its order."""
    spec = asked.spec
    sampler, begun = _sampler(asked, run, in_flight), time.monotonic()
    spent = records.Spent(run, asked.identity, time.monotonic)
    spent.begin()
    until_s = None if spec.seconds is None else begun + spec.seconds - spent.before_s
    search: Search

    def reserve_s() -> float:
        """What the finish will take, from the simulations so far."""
        done = len(search.durations)
        if not done:
            return 0.0
        pace = (time.monotonic() - begun) / done  # with all that is around a simulation
        return RESERVE * budgets.finish_simulations(spec) * max(pace, search.total_s / done / max(1, run.engine.slots))

    def replicates(number: int) -> int:
        trial = search.trials[number]
        return len(trial.losses) + len(trial.failed)

    if spec.storage != "memory":
        url = shlex.quote(spoken(spec.storage))
        run.note(
            f"Optuna's own pictures of the study {spec.study_name!r}, while it goes and later: optuna-dashboard {url}"
        )
    search = Search(
        asked=asked,
        run=run,
        sampler=sampler,
        allowance=budgets.allowance(spec, asked.most, sampler.most, until_s, reserve_s),
        order=order.make(spec.order, run, asked.identity, replicates),
        in_flight=in_flight,
        run_id=str(run.ledger.path.parent) if run.ledger.home is None else "RUN",
        mirror=mirror.open_mirror(spec, sampler.distributions, asked.identity),
        spent=spent if spec.seconds is not None else None,
    )
    return search


def _sampler(asked: Asked, run: Run, in_flight: int) -> Any:
    spec = asked.spec
    if spec.sampler == "emulate":
        if spec.warm_start is not None:
            run.note(
                "The sampler emulate learns from summaries, which another study's trials do not have: they are left out."
            )
        facts = facts_of(asked, in_flight)
        return emulating.make(spec, asked.observed, asked.seed, facts.simulations - facts.finish)
    sampler = sampling.make(spec, asked.seed, in_flight)
    found = sampling.warmth(spec)
    if spec.warm_start is not None:
        sampling.start_from(sampler, found)
        run.note(
            f"{len(found.trials)} trials of the study {spec.warm_start.name!r} are where the search starts"
            + (f"; {found.left} did not fit its parameters and bounds, or were not finished." if found.left else ".")
        )
    return sampler


def _finish(search: Search, until_s: float | None) -> list[Finalist]:
    """The best again on fresh seeds; what was left unfinished when the run's deadline came is put in order first."""
    for trial in search.trials:
        if trial.state == "running" and len(trial.losses) >= search.allowance.least:
            trial.settle("stopped", search.asked.observed)
    emulated = None
    if isinstance(search.sampler, emulating.EmulateSampler) and search.asked.spec.finish and search.history:
        emulated = [search.sampler.clipped(p) for p in search.sampler.emulator.finalists(search.asked.spec.finish)]
    found = finishing.finalists(search, emulated)
    if found and search.run.ending != "deadline":
        Finish(search, found, until_s).go()
    return found


# -- where the time went -----------------------------------------------------------------------------------------
def timed(search: Search, searched_s: float, wall_s: float) -> Timing:
    """What the driver spent its time on, and what share of the slots simulations had and could have had."""
    slots, clock = search.run.engine.slots, search.clock
    counts = [len(t.losses) for t in search.trials if t.losses]
    possible, k = 1.0, search.in_flight
    if search.durations and counts and search.asked.spec.order == "reproducible":
        at_once = search.asked.first_round
        possible, k = lag.advised(search.durations, counts, slots, search.in_flight, search.asked.seed, at_once)
    advice = ""
    if k != search.in_flight:
        advice = (
            f"With {search.in_flight} trials in flight, told in order, the spread of the simulations' times leaves at most "
            f"{possible:.0%} of {slots} slots to them: in_flight={k} or order='asap' would keep them busy."
        )
    minutes = max(wall_s, 1e-9) / 60
    many = len(search.trials)
    return Timing(
        ask_s=clock.ask_s, tell_s=clock.tell_s, loss_s=clock.loss_s, storage_s=clock.storage_s, wall_s=wall_s,
        simulation_s=search.simulated_s, slots=slots, in_flight=search.in_flight,
        utilisation=search.simulated_s / max(1e-9, slots * wall_s), possible=possible, advice=advice,
        trials_per_minute=many / minutes, trials_per_minute_worker=many / minutes / slots,
        trials_per_core_s=many / max(1e-9, slots * wall_s),
    )  # fmt: skip


def said(search: Search, best: Any, timing: Timing) -> list[str]:
    """Notes: verdicts, advice, a search that was cut."""
    notes = [f"{said_of(v)}" for v in sorted(search.verdicts, key=lambda v: (v.trial, v.seed))[:TOLD_VERDICTS]]
    if len(search.verdicts) > TOLD_VERDICTS:
        notes.append(f"{len(search.verdicts) - TOLD_VERDICTS} further simulations failed: all are in verdicts.parquet.")
    if timing.advice:
        notes.append(timing.advice)
    return notes

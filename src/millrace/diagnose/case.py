"""What a rule is given about a run, and what it says: `Case` and `Finding`. See `rules` and `findings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.diagnose import replay
from millrace.diagnose.accounting import Accounting, account
from millrace.diagnose.timeline import KILLED_STATES, Timeline, lay_out
from millrace.diagnose.words import percent
from millrace.run.ledger import STATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that costs a run time.

    `rule`: its name; `evidence`: what was seen, in figures; `advice`: what to do about it; `share`: of the core-seconds
    that it concerns; `gain`: what part of the wall time the advice saves, replayed, None where no replay can tell.
    """

    rule: str
    evidence: str
    advice: str
    share: float
    gain: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As people read it: "tail: 23 % of the core-seconds; ...; cut blocks ...: -19 % wall (replayed)"."""
        said = f"{self.rule}: {self.evidence}; {self.advice}"
        return f"{said}: {told_gain(self.gain)}" if self.gain is not None else f"{said} (gain not known)"

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"line": self.line()}


def told_gain(gain: float) -> str:
    return f"-{percent(gain)} wall (replayed)" if gain >= 0 else f"+{percent(-gain)} wall (replayed)"


@dataclass(frozen=True, slots=True)
class Case:
    """A run as rules look at it. `columns`: of the history, as arrays; `ran`: rows of attempts that ran to their end,
    `took`: their times in ns. `job_of`: of each row, its job in
    the scenario, -1 for none. `plan`: the last `plan` record, empty without one. `log`: it was read from timing lines,
    which tell nothing of processors, payloads and the driver.
    """

    history: History
    timeline: Timeline
    accounting: Accounting
    scenario: replay.Scenario
    columns: Mapping[str, Ints]
    ran: NDArray[np.intp]
    took: Ints
    job_of: Ints
    plan: Mapping[str, Any]
    log: bool

    def name(self, number: int) -> str:
        return self.history.names[number]

    def per_job(self, *measures: str) -> Ints:
        """Sums of measures (ns) over the attempts that each job of the scenario stands for."""
        each = sum((np.maximum(self.columns[m], 0) for m in measures), np.zeros(len(self.job_of), dtype=np.int64))
        placed = self.job_of >= 0
        total = np.zeros(self.scenario.jobs, dtype=np.int64)
        np.add.at(total, self.job_of[placed], each[placed])
        return total

    def gain(self, changed: replay.Scenario) -> float:
        return replay.gain(self.scenario, changed)


def case_of(history: History, timeline: Timeline | None = None, accounting: Accounting | None = None) -> Case:
    """The case of a replayed ledger; parts that are there already may be handed in."""
    timeline = timeline or lay_out(history)
    columns = {name: np.asarray(column) for name, column in history.columns.items()}
    done = np.isin(columns["state"], [STATES.index(s) for s in ("done", "raised")])
    ran = np.flatnonzero(done & (columns["started_ns"] > 0) & (columns["ended_ns"] >= columns["started_ns"]))
    plans = history.of("plan")
    played = replay.scenario(history, timeline)
    return Case(
        history,
        timeline,
        accounting or account(history, timeline),
        played,
        columns,
        ran,
        columns["ended_ns"][ran] - columns["started_ns"][ran],
        _job_of(played, timeline, len(columns["state"])),
        plans[-1] if plans else {},
        history.header.get("engine") == "logs",
    )


def _job_of(played: replay.Scenario, timeline: Timeline, attempts: int) -> Ints:
    """The attempts of a job follow each other on its slot, from its first."""
    by_first = np.full(attempts, -1, dtype=np.int64)
    by_first[played.first] = np.arange(played.jobs)
    found = np.full(attempts, -1, dtype=np.int64)
    for lane in timeline.lanes:
        heads = np.where(by_first[lane.attempts] >= 0, np.arange(len(lane.attempts)), 0)
        if len(heads):
            found[lane.attempts] = by_first[lane.attempts[np.maximum.accumulate(heads)]]
    return found


def killed(case: Case) -> NDArray[np.bool_]:
    """Jobs of the scenario that a ceiling or a death took."""
    states = case.columns["state"][case.scenario.first] if case.scenario.jobs else np.zeros(0, dtype=np.int64)
    return np.isin(states, [STATES.index(s) for s in KILLED_STATES])

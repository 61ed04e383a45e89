"""What past runs on this host teach about the next: a plan's core-seconds and wall time, corrected by what was measured.

A plan is arithmetic with constants of some machine; a `Lesson` is what one run took beside what its plan said. Of the
lessons of the same analysis, method and host, those near in size and in time count most. Without one, the constants are
scaled by the host's single-core speed. Pure; lessons are kept by `millrace.lessons`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from millrace.diagnose.accounting import Accounting
from millrace.run.budget import Plan

FADING = 0.9
"""How much less a lesson counts than the one after it."""
FROM_STORE = 0.5
"""A run that found more than this part of its tasks in the store teaches nothing: those were not the usual ones."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One finished run beside its plan. `planned_core_s`: by the formula, uncorrected; `cpu_s`, `task_s`: processor and
    wall time of its tasks; `fixed_s`: of the wall time, what was not tasks; `slots`: those it had. `question`: digest of
    what was asked where inputs are files, "" otherwise; `keys`: some of its tasks' keys, evenly taken.
    """

    analysis: str
    method: str
    planned_core_s: float
    cpu_s: float
    task_s: float
    wall_s: float
    fixed_s: float
    slots: int
    tasks: int
    worker_bytes: int
    memory_bytes: int
    question: str = ""
    keys: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Lesson:
        """From JSON; fields of a newer millrace are left out."""
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {n: tuple(v) if n == "keys" else v for n, v in told.items() if n in known}
        return cls(**given)


def lesson(a: Accounting, plan: Mapping[str, Any], question: str = "", keys: Sequence[str] = ()) -> Lesson | None:
    """What a run teaches; None when it did not end well, had no plan, or found most of its tasks in the store."""
    done = a.outcomes.get("done", 0)
    tasks = sum(a.outcomes.values())
    if a.state != "done" or not plan.get("core_s") or not done or done < (1 - FROM_STORE) * tasks:
        return None
    cpu_s, task_s = sum(f.cpu_s for f in a.tasks), sum(f.total_s for f in a.tasks)
    wall_s = a.wall_ns / 1e9
    whole = tasks / done  # as if nothing had come from the store
    return Lesson(
        a.analysis, str(plan.get("method", "")), float(plan["core_s"]), cpu_s * whole, task_s * whole, wall_s,
        max(0.0, wall_s - task_s / a.slots), a.slots, tasks, a.task_peak_bytes, a.memory_bytes, question, tuple(keys),
    )  # fmt: skip


def corrected(plan: Plan, lessons: Sequence[Lesson], speed: float = 1.0) -> Plan:
    """The plan with core-seconds and wall time as past runs teach; scaled by the host's single-core `speed` without any.

    `lessons`: of this analysis, method and host, the oldest first.
    """
    fitting = [t for t in lessons if t.planned_core_s > 0 and t.cpu_s > 0]
    if not fitting:
        why = f"no run of this kind here yet: constants scaled by one core's speed, {speed:.2f} of the reference"
        return replace(plan, core_s=plan.core_s / max(speed, 0.05), why=(*plan.why, why))
    weights = [_weight(plan.core_s, t, len(fitting) - i) for i, t in enumerate(fitting)]
    factor = weighted_median([t.cpu_s / t.planned_core_s for t in fitting], weights)
    wait = weighted_median([max(1.0, t.task_s / t.cpu_s) for t in fitting], weights)
    fixed = weighted_median([t.fixed_s for t in fitting], weights)
    nearest = max(zip(weights, fitting, strict=True), key=lambda pair: pair[0])[1]
    slots = min(plan.slots, nearest.slots) if plan.core_s <= 2 * nearest.planned_core_s else plan.slots
    count = len(fitting)
    why = f"learnt from {count} {'run' if count == 1 else 'runs'} of this kind here: {factor:.3g} times the formula"
    return replace(plan, core_s=plan.core_s * factor, wait=wait, fixed_s=fixed, busy_slots=slots, why=(*plan.why, why))


def _weight(core_s: float, taught: Lesson, age: int) -> float:
    """Near in size and in time counts most: e times the size, or a tenth of the age, for about the same."""
    apart = abs(math.log(max(core_s, 1e-9) / taught.planned_core_s))
    return float(math.exp(-apart) * FADING**age)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The value at which half of the weight is reached; between two where it is reached exactly."""
    ordered = sorted(zip(values, weights, strict=True))
    half, so_far = sum(weights) / 2, 0.0
    for place, (value, weight) in enumerate(ordered):
        so_far += weight
        if math.isclose(so_far, half, rel_tol=1e-9) and place + 1 < len(ordered):
            return (value + ordered[place + 1][0]) / 2
        if so_far > half:
            return value
    return ordered[-1][0]


def money(plan: Plan, core_hour_price: float) -> float:
    """What the cores cost while the run has them: slots x wall."""
    return plan.slots * plan.wall_s / 3600 * core_hour_price

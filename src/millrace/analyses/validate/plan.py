"""What validate will take: pure arithmetic on facts.

A task is one program on one case, whatever the budget: budget and cores change how many programs run at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.run.budget import Budget, Plan, fit

WORKER_BYTES = 24 << 20
"""Private bytes of a worker with the judge loaded, and of its zygote."""
CELL_BYTES = 14 << 20
DRIVER_BYTES = 40 << 20
CALL_S = {"auto": 0.0025, "batch": 0.0015, "candidate": 0.005}
"""Core-seconds of a small program's call, the fork and the judge included."""
UNKNOWN = 1000
"""Candidates that are counted on where nobody can know."""


@dataclass(frozen=True, slots=True)
class Facts:
    """candidates: None when only reading them would tell; cases: of one candidate; memory_bytes: of one program;
    refereed: the user's own code calls it, in a process with a limit of its own."""

    candidates: int | None
    cases: int
    memory_bytes: int
    top: int
    isolation: str
    refereed: bool = False


def plan(facts: Facts, budget: Budget) -> Plan:
    """Tasks, slots, bytes and core-seconds under a budget; `DoesNotFit` with what would do.

    A program may use all the memory that its limit allows, so each slot is counted with that.
    """
    count = facts.candidates if facts.candidates is not None else UNKNOWN
    known = f"{count:,} candidates" if facts.candidates is not None else "candidates that come one by one"
    needed = Plan(
        analysis="validate",
        method=facts.isolation,
        tasks=max(1, count * facts.cases),
        block=1,
        slots=1,
        worker_bytes=WORKER_BYTES + CELL_BYTES + facts.memory_bytes * (2 if facts.refereed else 1),
        base_bytes=WORKER_BYTES,
        driver_bytes=DRIVER_BYTES,
        shared_bytes=0,
        answer_bytes=count * 64,
        core_s=count * facts.cases * CALL_S[facts.isolation],
        why=(
            f"{known}, {facts.cases} {'case' if facts.cases == 1 else 'cases'} each at most: the first wrong one ends it",
            "core-seconds are for programs of a millisecond; what yours take is known once some have run",
        ),
    )
    return fit(needed, budget)

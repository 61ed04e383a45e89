"""All rules over one run: what costs it time, the largest gain first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from millrace.diagnose.case import Case, Finding, case_of
from millrace.diagnose.rules import idle, pattern, work

if TYPE_CHECKING:
    from millrace.run.ledger import History

RULES: tuple[Callable[[Case], Finding | None], ...] = (
    idle.tail, idle.starved, idle.driver, idle.start, idle.lost, idle.few_slots,
    work.small_tasks, work.payload, work.repeated_input, work.load, work.throttled, work.off_cpu, work.collector,
    work.threads,
    pattern.duplicates, pattern.aggregation, pattern.fixed_replicates, pattern.open_trials, pattern.split_groups,
)  # fmt: skip


def findings(case: Case) -> tuple[Finding, ...]:
    """What the rules say about a case, in order of what the advice saves."""
    told = [finding for rule in RULES if (finding := rule(case)) is not None]
    return tuple(sorted(told, key=lambda f: (-(f.gain or 0.0), -f.share)))


def findings_of(history: History) -> tuple[Finding, ...]:
    """The findings of a replayed ledger."""
    return findings(case_of(history))

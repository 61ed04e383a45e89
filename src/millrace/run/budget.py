"""Cores and memory that a run may use, and what a plan needs of them.

A budget counts the private bytes of millrace's processes and what the driver has grown by since the run began. What
does not fit is an error before the start, with the smallest budget that would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from millrace.run.errors import DoesNotFit
from millrace.run.units import format_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """`cores`: tasks at once; `private_bytes`: RssAnon + RssShmem of all of millrace together.

    `isolates`: tasks run in processes of their own; else in the driver, one at a time.
    """

    cores: int
    private_bytes: int
    isolates: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """How a question is cut, and what it will take. Pure, instant, printable.

    `tasks` of `block` items each; `slots` run at once; a worker peaks at `worker_bytes` and the driver grows by
    `driver_bytes`; `shared_bytes` lie once on disk and are mapped; `answer_bytes` is the answer's size on disk.
    `base_bytes`: that part of `worker_bytes` which is the process itself with its libraries, and not the task: where
    tasks run in the driver, nobody pays it. `core_s`, `wall_s`: predicted; `why`: the decisions, in words.
    What past runs teach: `wait`, wall over processor time of a task; `fixed_s`, wall time beside tasks; `busy_slots`,
    those that tasks of this size get, 0 for all.
    """

    analysis: str
    method: str
    tasks: int
    block: int
    slots: int
    worker_bytes: int
    driver_bytes: int
    shared_bytes: int
    answer_bytes: int
    core_s: float
    why: tuple[str, ...] = ()
    base_bytes: int = 0
    wait: float = 1.0
    fixed_s: float = 0.0
    busy_slots: int = 0

    @property
    def peak_bytes(self) -> int:
        """Of all processes together."""
        return self.driver_bytes + self.slots * self.worker_bytes

    @property
    def wall_s(self) -> float:
        slots = min(self.slots, self.tasks, self.busy_slots or self.slots)
        return self.fixed_s + self.wait * self.core_s / max(1, slots)

    @property
    def smallest_bytes(self) -> int:
        """The smallest budget that would do: one task at a time."""
        return self.driver_bytes + self.worker_bytes

    def as_dict(self) -> Mapping[str, Any]:
        names = (
            "analysis", "method", "tasks", "block", "slots", "worker_bytes", "driver_bytes", "shared_bytes",
            "answer_bytes", "core_s", "peak_bytes", "wall_s", "smallest_bytes", "why",
        )  # fmt: skip
        return {n: getattr(self, n) for n in names}


def fit(plan: Plan, budget: Budget) -> Plan:
    """The plan with as many slots as the budget carries; `DoesNotFit` when it does not carry one.

    Where tasks run in the driver there is one slot, and `worker_bytes` becomes what one task adds to it.
    """
    if not budget.isolates:
        plan = replace(plan, worker_bytes=max(0, plan.worker_bytes - plan.base_bytes), base_bytes=0)
    room = budget.private_bytes - plan.driver_bytes
    slots = min(budget.cores if budget.isolates else 1, room // max(1, plan.worker_bytes), max(1, plan.tasks))
    if slots < 1:
        needs, where = plan.smallest_bytes, "a worker" if budget.isolates else "a task"
        raise DoesNotFit(
            f"{plan.analysis} does not fit into {format_bytes(budget.private_bytes)}: one task at a time needs "
            f"{format_bytes(needs, up=True)} ({format_bytes(plan.driver_bytes)} in the driver, "
            f"{format_bytes(plan.worker_bytes)} in {where}). Give --memory {format_bytes(needs, up=True)} or more, or "
            "ask a smaller question.",
            needs,
        )
    return replace(plan, slots=int(slots))

"""What refute will take: pure arithmetic on facts.

A batch is 50 simulations, whatever the budget: budget and cores change how many batches run at once, never what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from millrace.analyses.refute.study import BATCH
from millrace.run.budget import Budget, Plan, fit

WORKER_BYTES = 77 << 20
"""Private bytes of a worker with the kernels loaded, before its first task."""
MORE_BYTES = {"matching": 8 << 20, "dml": 78 << 20, "own": 256 << 20}
"""What the libraries of an estimator add to that (dml: LightGBM; own: pandas, and what a user imports)."""
DRIVER_BYTES = 100 << 20
"""What the driver grows by besides the data: libraries, the ledger's buffers; and the process that workers are forked from."""
START_S = 1.1
"""Until a process that has done nothing yet has libraries, workers and compiled kernels; each slot waits for it."""
MORE_S = {"dml": 1.5}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan needs. each: simulations of a task, None for a batch. test_s: core-seconds of one simulation, by test;
    once_s: of all that is done once; read_s: of the driver, while workers wait. work_bytes: of a task beside mapped arrays.
    driver_rows_bytes: of the data where the driver holds them; driver_pass_bytes: of its passes over them.
    """

    estimator: str
    rows: int
    confounders: int
    cases: int
    tests: tuple[str, ...]
    simulations: int
    each: int | None
    test_s: tuple[float, ...]
    once_s: float
    read_s: float
    work_bytes: int
    shared_bytes: int
    data_bytes: int
    driver_rows_bytes: int
    driver_pass_bytes: int
    column_bytes: int


def plan(facts: Facts, budget: Budget) -> Plan:
    """Batches, slots, bytes and core-seconds of refute under a budget; `DoesNotFit` with what would do."""
    each = facts.each or BATCH
    rounds = -(-facts.simulations // BATCH)
    tasks = facts.cases * len(facts.tests) * rounds * BATCH // each
    effects = facts.cases * len(facts.tests) * facts.simulations * 16
    why = (
        f"{facts.rows:,} rows x {facts.confounders} columns of confounders, by {facts.estimator}",
        f"{tasks:,} tasks of {each} {'simulation' if each == 1 else 'simulations'}, decided in rounds of {BATCH}",
    )
    needed = Plan(
        analysis="refute",
        method=facts.estimator,
        tasks=max(1, tasks),
        block=each,
        slots=1,
        worker_bytes=WORKER_BYTES + MORE_BYTES.get(facts.estimator, 0) + facts.work_bytes,
        driver_bytes=DRIVER_BYTES
        + facts.driver_rows_bytes
        + facts.driver_pass_bytes
        + 12 * facts.column_bytes
        + 4 * effects,
        shared_bytes=facts.data_bytes + facts.shared_bytes,
        answer_bytes=effects,
        core_s=facts.cases * (facts.once_s + sum(facts.test_s) * rounds * BATCH),
        why=why,
        base_bytes=WORKER_BYTES + MORE_BYTES.get(facts.estimator, 0),
    )
    fitted = fit(needed, budget)
    waiting = START_S + MORE_S.get(facts.estimator, 0.0) + facts.cases * facts.read_s
    return replace(fitted, core_s=fitted.core_s + fitted.slots * waiting)

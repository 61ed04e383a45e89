"""What calibrate will take: pure arithmetic on facts.

A simulator tells its seconds and its memory only when it runs, so that both are assumed here, and said so; how many simulations
there are at most is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from millrace.run.budget import Budget, Plan, fit

WORKER_BYTES = 44 << 20
"""Private bytes of a worker before its first simulation."""
SIMULATOR_BYTES = 160 << 20
"""For what a simulator imports and holds; its true figure is in the report."""
SIMULATION_S = 1.0
"""Assumed of a simulation, whose seconds nobody knows before it has run."""
DRIVER_BYTES = 150 << 20
"""What the driver grows by: Optuna and what it imports, the process that workers are forked from, the ledger's buffers."""
TRIAL_BYTES, TRIAL_S = 12_000, 0.006
"""A trial in the study and in our books; asking for it and telling it, of the driver's time."""
START_S = 1.0


@dataclass(frozen=True, slots=True)
class Facts:
    """trials, simulations: at most, the finish included; in_flight: trials at once; points: observed values of all targets;
    seconds: of the budget, None when it is of another kind; least_simulations: the finish and one trial."""

    sampler: str
    trials: int
    simulations: int
    finish: int
    in_flight: int
    first_round: int
    points: int
    parameters: int
    seconds: float | None
    least_simulations: int = 1


def plan(facts: Facts, budget: Budget) -> Plan:
    """Simulations, slots and bytes of calibrate under a budget; `DoesNotFit` with what would do."""
    kept = facts.simulations * (facts.points * 16 + 400) + facts.trials * TRIAL_BYTES
    by_time = (
        f"or as many as {facts.seconds:g} s allow"
        if facts.seconds is not None
        else f"{facts.finish:,} of them the finish"
    )
    why = (
        f"{facts.trials:,} trials of {facts.parameters} parameters at most, by {facts.sampler}, {facts.in_flight} in flight",
        f"{facts.simulations:,} simulations at most, {by_time}",
        f"a simulation is taken for {SIMULATION_S:g} s and {SIMULATOR_BYTES >> 20} MiB: what it is, is known when it has run "
        "(`millrace calibrate probe`)",
    )
    core_s = facts.simulations * SIMULATION_S + facts.trials * TRIAL_S
    needed = Plan(
        analysis="calibrate",
        method=facts.sampler,
        tasks=max(1, facts.simulations),
        block=1,
        slots=1,
        worker_bytes=WORKER_BYTES + SIMULATOR_BYTES,
        driver_bytes=DRIVER_BYTES + kept,
        shared_bytes=0,
        answer_bytes=kept,
        core_s=core_s,
        why=why,
    )
    fitted = fit(needed, budget)
    limited = core_s if facts.seconds is None else min(core_s, facts.seconds * fitted.slots)
    return replace(fitted, core_s=limited + fitted.slots * START_S)

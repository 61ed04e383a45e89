"""What the plan of calibrate needs to know, read from a question that is not run: its data are read, nothing is simulated."""

from __future__ import annotations

import math

from millrace.analyses.calibrate.budgets import finish_simulations
from millrace.analyses.calibrate.plan import Facts
from millrace.analyses.calibrate.question import DEFAULT_TRIALS, Asked, read
from millrace.analyses.calibrate.spec import Spec

LEAST_IN_FLIGHT = 8


def facts(spec: Spec) -> Facts:
    """The facts of a question; trials at once as on a machine of few cores, where the question does not say."""
    return facts_of(read(spec), spec.in_flight or LEAST_IN_FLIGHT)


def facts_of(asked: Asked, in_flight: int) -> Facts:
    spec, finish = asked.spec, finish_simulations(asked.spec)
    least = spec.replicates.min
    by_seconds = spec.trials is None and spec.simulations is None and spec.seconds is not None
    if spec.simulations is not None:
        search = max(0, spec.simulations - finish)
        trials = min(spec.trials or search, search // least)
        search = min(search, trials * asked.most)
    else:
        trials = spec.trials or DEFAULT_TRIALS
        if by_seconds:  # of simulations as long as the plan takes them for, on one slot
            trials = max(1, math.ceil(float(spec.seconds or 0) / least))
        search = trials * asked.most
    return Facts(
        sampler=spec.sampler, trials=trials, simulations=search + finish, finish=finish, in_flight=in_flight,
        first_round=asked.first_round, points=sum(len(o.values) for o in asked.observed), parameters=len(spec.free),
        seconds=spec.seconds, least_simulations=finish + asked.most,
    )  # fmt: skip


def default_in_flight(slots: int, first_round: int, order: str) -> int:
    """Trials at once: max(8, 3 slots / first-round replicates), and 2 slots where trials are told as they end."""
    return max(2, 2 * slots) if order == "asap" else max(LEAST_IN_FLIGHT, math.ceil(3 * slots / first_round))

"""A fast stochastic simulator with several targets, worlds to fit it to, and their loss: an SIR epidemic after Sellke (1983).

Every agent has a threshold (exponential) and an infectious period (log-normal); an agent is infected when the pressure of
infection summed over time passes its threshold. A seed fixes thresholds and periods, so that runs on one seed at neighbouring
parameters are alike: common random numbers do here what they do in an agent-based simulator. A tenth of a
millisecond a simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

AGENTS, STEPS, DAYS_A_STEP, CONTACTS = 1_000, 40, 2.0, 4.0
PREVALENCE_AT, CUMULATIVE_AT = np.array([5, 10, 15, 20, 25, 30, 35, 40]), np.array([10, 20, 30, 40])
LOW = {2: np.log([0.02, 0.005]), 4: np.log([0.02, 0.005, 4.0, 0.3])}
HIGH = {2: np.log([0.30, 0.10]), 4: np.log([0.30, 0.10, 20.0, 1.5])}
NAMES = ("beta", "initial", "days_infectious", "drop")
OBSERVED = 500  # people tested at each time


def series(unit: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Prevalence and cumulative incidence at steps 0 .. 40. unit: (2,) beta, initial prevalence, or (4,) with the days
    infectious and the factor on beta after day 30."""
    d = len(unit)
    native = np.exp(LOW[d] + (HIGH[d] - LOW[d]) * np.asarray(unit))
    days, drop = (native[2], native[3]) if d == 4 else (10.0, 1.0)
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.exponential(size=AGENTS))
    periods = np.maximum(1, np.ceil(days * np.exp(0.5 * rng.normal(size=AGENTS) - 0.125) / DAYS_A_STEP)).astype(int)
    return _spread(thresholds, periods, int(rng.binomial(AGENTS, native[1])), native[0] * CONTACTS * DAYS_A_STEP, drop)


@numba.njit(cache=True)
def _spread(thresholds, periods, first, rate, drop):
    agents = len(thresholds)
    recovering = np.zeros(STEPS + 2 + periods.max())
    prevalence, cumulative = np.zeros(STEPS + 1), np.zeros(STEPS + 1)
    infectious, infected, now, pressure = 0.0, 0, first, 0.0
    for t in range(STEPS + 1):
        for i in range(infected, now):
            recovering[t + periods[i]] += 1
        infectious += now - infected - recovering[t]
        infected = now
        prevalence[t], cumulative[t] = infectious / agents, infected / agents
        pressure += rate * (1.0 if (t + 1) * DAYS_A_STEP <= 30 else drop) * infectious / agents
        while now < agents and thresholds[now - first] <= pressure:
            now += 1
    return prevalence, cumulative


def simulate(unit: np.ndarray, seed: int) -> np.ndarray:
    """(12,): prevalence eight times, cumulative incidence four times."""
    prevalence, cumulative = series(unit, seed)
    return np.concatenate([prevalence[PREVALENCE_AT], cumulative[CUMULATIVE_AT]])


@dataclass
class World:
    """A truth, what was observed of it, and the loss; `simulations` counts."""

    number: int
    dimensions: int = 2
    simulations: int = 0
    truth: np.ndarray = field(init=False)
    observed: np.ndarray = field(init=False)
    sd: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([7_000, self.number])
        for _ in range(100):
            self.truth = rng.uniform(0.3, 0.7, self.dimensions)
            y = simulate(self.truth, 10_000_000 + self.number * 1_000 + int(rng.integers(500)))
            if y[-1] > 0.15 and y[:8].max() > 0.03:
                break
        self.observed = rng.binomial(OBSERVED, y) / OBSERVED
        within = np.clip(self.observed, 0.01, 0.99)
        self.sd = np.sqrt(within * (1 - within) / OBSERVED)

    def seed(self, number: int) -> int:
        """Every world has seeds of its own, so that no seed's luck enters all of them."""
        return 20_000_000 + 10_000 * self.number + number

    def run(self, unit: np.ndarray, seed: int) -> np.ndarray:
        self.simulations += 1
        return simulate(unit, seed)

    def losses(self, summaries: np.ndarray) -> np.ndarray:
        """(k, 12) -> (k,): two targets, each a mean of squared standardised errors, with equal weights."""
        squared = ((np.atleast_2d(summaries) - self.observed) / self.sd) ** 2
        return squared[:, :8].mean(axis=1) + squared[:, 8:].mean(axis=1)

    def loss(self, unit: np.ndarray, seed: int) -> float:
        return float(self.losses(self.run(unit, seed))[0])

    def held_out(self, unit: np.ndarray, runs: int = 100) -> float:
        """The mean loss on seeds that no study sees."""
        found = np.array([simulate(unit, 90_000_000 + i) for i in range(runs)])
        return float(self.losses(found).mean())

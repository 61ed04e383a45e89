"""An agent-based SIR epidemic of 5,000 people on a random network, by starsim.

`simulate` has the two parameters that prevalence and cumulative infections identify: how fast contacts infect, and how many
were infected at the start. `summarise` keeps the two curves, so that kilobytes leave the worker.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("STARSIM_INSTALL_FONTS", "0")
import numpy as np
import starsim as ss

PEOPLE, DAYS, STEP = 5_000, 80, 2
TRUE = {"beta": 0.08, "initial": 0.01}
"""By which observations.csv was made: infections per contact and day, share infected on day 0."""


def simulate(params: dict[str, Any], seed: int, people: int = PEOPLE) -> dict[str, Any]:
    """One epidemic; day, prevalence and cumulative infections as shares of the population."""
    sir = ss.SIR(
        beta=ss.perday(float(params["beta"])),
        init_prev=ss.bernoulli(float(params["initial"])),
        dur_inf=ss.lognorm_ex(mean=ss.days(10), std=ss.days(5)),
        p_death=ss.bernoulli(0),
    )
    start = ss.date("2020-01-01")
    sim = ss.Sim(
        n_agents=people, start=start, stop=start + ss.days(DAYS), dt=ss.days(STEP), diseases=sir,
        networks=ss.RandomNet(n_contacts=ss.constant(4)), rand_seed=int(seed), verbose=0,
    )  # fmt: skip
    sim.run()
    results = sim.results.sir
    prevalence = np.asarray(results.prevalence, float)
    return {
        "day": np.arange(len(prevalence)) * float(STEP),
        "prevalence": prevalence,
        "infections": np.asarray(results.cum_infections, float) / people,
    }


def summarise(outputs: dict[str, Any]) -> dict[str, Any]:
    """Both curves as tables that the targets join on the day."""
    return {
        "prevalence": {"day": outputs["day"], "prevalence": outputs["prevalence"]},
        "infections": {"day": outputs["day"], "infections": outputs["infections"]},
    }


def observe(seed: int = 20_200_101, tested: int = 500) -> list[tuple[float, float, float]]:
    """What a survey of `tested` people a time would have seen of an epidemic with the true parameters."""
    outputs, draws = simulate(TRUE, seed), np.random.default_rng(seed)
    days = np.arange(10.0, DAYS + 1, 10.0)
    at = np.searchsorted(outputs["day"], days)
    seen = [draws.binomial(tested, np.clip(outputs[name][at], 0, 1)) / tested for name in ("prevalence", "infections")]
    return list(zip(days.tolist(), *(s.tolist() for s in seen), strict=True))


if __name__ == "__main__":
    with open(os.path.join(os.path.dirname(__file__), "observations.csv"), "w") as file:
        file.write("day,prevalence,infections\n")
        file.writelines(f"{day:g},{prevalence:g},{infections:g}\n" for day, prevalence, infections in observe())

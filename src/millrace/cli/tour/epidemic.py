"""An epidemic of 2,000 people, day by day: who is infected meets others, and recovers after a week or so."""

import numpy

PEOPLE, DAYS = 2_000, 60


def simulate(params, seed):
    """Share of people that are infected, by day."""
    draws = numpy.random.default_rng(seed)
    susceptible, infected = PEOPLE - 20, 20
    days, shares = [], []
    for day in range(DAYS):
        caught = draws.binomial(susceptible, 1 - numpy.exp(-params["contagion"] * infected / PEOPLE))
        well = draws.binomial(infected, 1 - numpy.exp(-1 / params["days_ill"]))
        susceptible, infected = susceptible - caught, infected + caught - well
        days.append(float(day))
        shares.append(infected / PEOPLE)
    return {"cases": {"day": days, "cases": shares}}

"""Twins of the RAND Health Insurance Experiment (20,190 person-years of 1974-1982, inside statsmodels), and what free care did.

python examples/twin_rand/run.py [FOLDER]: learns the population from half of the rows with the number of visits as outcome and
free care (no coinsurance) as treatment, assesses the twins on the other half, draws people in bad health, and simulates free
care for everybody. Plans were given by lot, so that the effect can be read from the data.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import millrace as mr


def rows(most: int | None = None) -> tuple[object, object]:
    """(training half, held-out half), pandas frames with `free` in the place of the coinsurance. most: rows of both together."""
    from statsmodels.datasets import randhie

    frame = randhie.load_pandas().data
    frame["free"] = frame.pop("lncoins") == 0
    frame = frame.drop(columns=["idp", "fmde", "lpi"])  # deductible and payments go with the plan
    frame = frame if most is None else frame.sample(most, random_state=0)
    half = np.random.default_rng(0).permutation(len(frame)) < len(frame) // 2
    return frame[half].reset_index(drop=True), frame[~half].reset_index(drop=True)


def main(folder: Path, most: int | None = None) -> None:
    train, held = rows(most)
    model = mr.twin.fit(train, outcome="mdvis", treatment="free", out=folder / "model")
    print(model.summary(), end="\n\n")
    print(mr.twin.assess(model, train, holdout=held, out=folder / "fidelity").summary(), end="\n\n")
    twins = mr.twin.generate(
        model, 2_000, where="disea > 15 and (hlthf == 1 or hlthp == 1)", out=folder / "twins.parquet"
    )
    print(twins.summary(), end="\n\n")
    free = {"name": "free_care", "effect": {"source": "learned"}, "cost_per_unit": 0}
    print(mr.twin.simulate(model, free, n=20_000, out=folder / "free").summary())


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    where.mkdir(parents=True, exist_ok=True)
    main(where)

"""Early stopping on a real simulator: over worlds of starsim it takes far fewer simulations and finds as good an answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from millrace import compose

pytest.importorskip("starsim")
TRIALS, WORLDS = 40, 20


def studied(numbers: Iterable[int], trials: int, **machine: Any) -> tuple[list[int], list[int], list[float]]:
    """Of each world: simulations searched with stopping early and without, and the log ratio of their hold-out losses."""
    from starsim_worlds import world

    early, fixed, ratios = [], [], []
    with compose.open_run("calibrate", compose.Machine(**machine)) as run:
        for number in numbers:
            made = world(number)
            found = {
                stop: compose.carry_out(
                    "calibrate", {**made.question, "trials": trials, "stop_early": stop}, compose.Machine(), run
                )
                for stop in (True, False)
            }
            early.append(sum(found[True].table["replicates"]))
            fixed.append(sum(found[False].table["replicates"]))
            losses = {stop: made.held_out(dict(answer.best.params)) for stop, answer in found.items()}
            ratios.append(math.log(losses[True] / losses[False]))
    return early, fixed, ratios


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_early_stopping_takes_far_fewer_simulations_of_starsim_and_finds_as_good_an_answer() -> None:
    early, fixed, ratios = studied(range(WORLDS), TRIALS)
    assert sum(fixed) == 5 * TRIALS * WORLDS
    assert sum(early) <= 0.6 * sum(fixed)  # .55: few trials, of which the first ten have nothing to be compared with
    bound = np.mean(ratios) + 1.645 * np.std(ratios, ddof=1) / math.sqrt(WORLDS)
    assert math.exp(bound) < 1.15

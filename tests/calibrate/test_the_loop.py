"""The event loop: what decides sees exactly what it may, budgets are kept to the last simulation, seeds that ran are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulators

import millrace as mr
from millrace.analyses.calibrate.budgets import WAIT, Allowance
from millrace.analyses.calibrate.kernels import lag, racing
from millrace.analyses.calibrate.kernels.racing import TrialLosses
from millrace.analyses.calibrate.order import AsTheyEnd, InOrder
from millrace.analyses.calibrate.question import read
from millrace.analyses.calibrate.sampling import make
from millrace.analyses.calibrate.spec import Spec

QUESTION: dict[str, Any] = {"parameters": simulators.BOUNDS, "targets": simulators.observed(), "finish": 2, "fresh": 3}


def ask(simulate: Any = simulators.simulate, **more: Any) -> Any:
    return mr.calibrate(simulate, **{**QUESTION, "engine": "inline", **more})


def naive(k: int, trials: int) -> list[tuple[dict[str, Any], list[float], str]]:
    """One trial after another, as the rule is written: trial n sees those before n - k + 1, and nothing else."""
    spec = Spec(simulate=simulators.simulate, **QUESTION, trials=trials, in_flight=k)
    asked = read(spec)
    sampler = make(spec, 0, k)
    told: list[tuple[TrialLosses, float]] = []
    found: list[tuple[dict[str, Any], list[float], str]] = []
    waiting: list[Any] = []
    for n in range(trials):
        while n - len(told) >= k:
            tell(sampler, waiting, told)
        params = sampler.ask()
        whole = [(t, loss) for t, loss in told if len(t.losses) == 5]
        incumbent = min(whole, key=lambda pair: pair[1])[0] if whole else None
        losses: list[float] = []
        state = "complete"
        while len(losses) < 5:
            outputs = simulators.simulate(params, asked.seed_of(n, len(losses)))
            aligned = asked.aligned({"outputs": outputs})
            losses.append(sum(o.target.weight * o.loss(aligned[o.name]) for o in asked.observed))
            past = [t for t, _ in told][-60:]
            if (
                len(losses) < 5
                and incumbent
                and racing.stop(past, TrialLosses(n, tuple(losses)), incumbent, positive=True)
            ):
                state = "stopped"
                break
        waiting.append((n, losses, state))
        found.append((params, losses, state))
    return found


def tell(sampler: Any, waiting: list[Any], told: list[Any]) -> None:
    from millrace.analyses.calibrate.trials import Trial

    n, losses, state = waiting.pop(0)
    trial = Trial(n, {}, 5, state=state, loss=sum(losses) / len(losses))
    trial.losses = dict(enumerate(losses))
    sampler.tell(trial)
    told.append((TrialLosses(n, tuple(losses)), trial.loss))


@pytest.mark.parametrize("k", [1, 4])
def test_decisions_see_exactly_the_trials_up_to_n_minus_k(k: int) -> None:
    wanted = naive(k, 24)
    for engine in ("inline", "processes"):
        table = ask(trials=24, in_flight=k, engine=engine, cores=2).table
        assert [(a, b) for a, b in zip(table["param_a"], table["param_b"], strict=True)] == [
            (p["a"], p["b"]) for p, _, _ in wanted
        ]
        assert table["replicates"] == [len(losses) for _, losses, _ in wanted]
        assert table["state"] == [state for _, _, state in wanted]
        assert table["loss"] == pytest.approx([sum(losses) / len(losses) for _, losses, _ in wanted], rel=1e-12)


@pytest.mark.parametrize("simulations", [30, 47, 100])
def test_a_budget_of_simulations_is_spent_to_the_last_and_never_broken(simulations: int, tmp_path: Path) -> None:
    found = ask(simulations=simulations, out=tmp_path)
    assert found.simulations == simulations
    assert found.report.accounting.finished == simulations


def test_a_budget_of_trials_is_kept_and_the_finish_is_beside_it() -> None:
    found = ask(trials=15)
    assert len(found.table["trial"]) == 15
    assert len(found.finish["trial"]) == 2
    assert all(len(seeds) == 3 for seeds in found.finish["seeds"])


def test_fresh_seeds_are_none_of_those_by_which_a_trial_was_chosen() -> None:
    found = ask(trials=12)
    before = {seed for seeds in found.table["seeds"] for seed in seeds}
    assert not before & {seed for seeds in found.finish["seeds"] for seed in seeds}
    assert found.best.loss == min(found.finish["fresh_loss"])
    assert len(found.table["seeds"][0]) == found.table["replicates"][0]


def test_the_seeds_that_are_told_give_the_losses_that_are_told() -> None:
    found = ask(trials=8)
    asked = read(Spec(simulate=simulators.simulate, **QUESTION))
    for params, seeds, loss in zip(
        zip(found.table["param_a"], found.table["param_b"], strict=True),
        found.table["seeds"],
        found.table["loss"],
        strict=True,
    ):
        outputs = [simulators.simulate({"a": params[0], "b": params[1]}, seed) for seed in seeds]
        losses = [sum(o.loss(asked.aligned({"outputs": made})[o.name]) for o in asked.observed) for made in outputs]
        assert loss == pytest.approx(np.mean(losses), rel=1e-12)


def test_replicates_are_common_or_each_its_own() -> None:
    common = ask(trials=4, replicates=3, stop_early=False).table["seeds"]
    assert all(seeds == common[0] for seeds in common)
    own = [seed for seeds in ask(trials=4, replicates=3, seeds="independent").table["seeds"] for seed in seeds]
    assert len(set(own)) == 12


def test_the_mean_of_replicates_may_be_what_is_compared() -> None:
    targets = {name: {**target, "combine": "mean"} for name, target in simulators.observed().items()}
    each = ask(trials=4, replicates=3, stop_early=False, sampler="random").table["loss_curve"]
    mean = ask(trials=4, replicates=3, stop_early=False, sampler="random", targets=targets).table["loss_curve"]
    assert all(m < e for m, e in zip(mean, each, strict=True))  # a square of a mean is below the mean of squares


def test_without_early_stop_every_trial_has_all_its_replicates() -> None:
    table = ask(trials=8, stop_early=False).table
    assert set(table["replicates"]) == {5}
    assert set(table["state"]) == {"complete"}


def test_early_stop_spares_most_simulations_of_bad_trials() -> None:
    table = ask(trials=60).table
    assert sum(table["replicates"]) < 0.6 * 5 * 60
    assert table["state"].count("stopped") > 30


def test_as_they_end_finds_the_parameters_too() -> None:
    found = ask(trials=40, order="asap", engine="processes", cores=2)
    assert found.in_flight == 4
    assert len(found.table["trial"]) == 40
    assert found.best.params["a"] == pytest.approx(2.0, rel=0.4)


def test_a_budget_of_seconds_ends_the_study_with_what_it_has() -> None:
    found = ask(simulators.simulate, seconds=2.0, trials=None)
    assert found.timing is not None
    assert 1.0 < found.timing.wall_s < 30
    # On a busy machine the finish may not fit into what is left of two seconds; then the answer says so.
    assert found.best.fresh >= 1 or any("No simulation of the finish" in note for note in found.notes)


# -- pure parts --------------------------------------------------------------------------------------------------
def test_what_is_in_flight_counts_with_all_that_it_may_need() -> None:
    a = Allowance(1, 5, None, 12, None, lambda: 0.0)
    assert a.next_cap() == 5
    a.start(5)
    a.start(5)
    assert a.next_cap() == WAIT
    a.told(5, 1)
    assert a.next_cap() == 5
    a.start(5)
    a.told(5, 5)
    a.told(5, 5)
    assert a.next_cap() == 1
    a.start(1)
    a.told(1, 1)
    assert a.next_cap() == 0


def test_trials_in_order_are_told_by_number_whatever_ends_first() -> None:
    order = InOrder()
    order.close(1)
    assert order.next_told() is None
    order.close(0)
    assert [order.next_told(), order.next_told(), order.next_told()] == [0, 1, None]


def test_a_record_of_what_ended_first_is_followed_and_then_gone_on_with() -> None:
    kept: dict[int, Any] = {}
    first = AsTheyEnd([], kept.__setitem__, lambda n: 2)
    for n in range(3):
        first.asked(n)
    first.close(2)
    assert first.next_told() == 2
    first.close(0)
    assert first.next_told() == 0
    again = AsTheyEnd([kept[i] for i in sorted(kept)], kept.__setitem__, lambda n: 9)
    for n in range(3):
        assert again.may_ask()
        again.asked(n)
    assert not again.may_ask()
    again.close(0)
    assert again.next_told() is None  # the record says 2 first
    again.close(2)
    assert [again.next_told(), again.next_told()] == [2, 0]
    assert again.replicates_of(2) == 2
    again.close(1)
    assert again.next_told() == 1
    assert kept[5] == ("tell", 1, 9)


def test_the_share_that_simulations_can_have_is_that_of_the_measured_spread() -> None:
    """8 slots, log-normal times of sigma 1, trials of two replicates at once: .6 with 8 in flight, .8 with 16."""
    spread = np.exp(np.random.default_rng(0).normal(0, 1, 4000))
    draws = [np.random.default_rng(1) for _ in range(3)]
    shares = [
        lag.utilisation(spread, [2], 8, k, d, at_once=2, trials=2000) for k, d in zip((8, 16, 64), draws, strict=True)
    ]
    assert shares[0] == pytest.approx(0.6, abs=0.05)
    assert shares[1] == pytest.approx(0.81, abs=0.05)
    assert shares[2] > 0.98
    free = lag.utilisation(spread, [2], 8, 16, np.random.default_rng(1), at_once=2, in_order=False)
    assert free > 0.95
    assert lag.utilisation([1.0], [1], 4, 4, np.random.default_rng(0)) == pytest.approx(1.0, abs=0.02)
    share, k = lag.advised(spread, [1], 8, 8, 0)
    assert share < lag.ENOUGH < lag.utilisation(spread, [1], 8, k, np.random.default_rng(0))


def test_a_failed_trial_is_told_as_infinitely_bad_and_has_no_loss() -> None:
    found = ask(simulators.raises, trials=10)
    table = found.table
    bad = [i for i, state in enumerate(table["state"]) if state == "failed"]
    assert bad
    assert all(table["param_a"][i] > simulators.HIGH and math.isnan(table["loss"][i]) for i in bad)
    values = [t.value for t in found.study.get_trials(deepcopy=False)]
    assert [i for i, value in enumerate(values) if value == math.inf] == bad
    assert len(values) == 10

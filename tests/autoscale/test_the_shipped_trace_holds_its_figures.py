"""The shipped trace under the shipped policy: the figures that docs/scaling.md tells, over its twelve seeds."""

from __future__ import annotations

import pytest

from millrace.autoscale.compare import Row, compare
from millrace.autoscale.conditions import Faults
from millrace.autoscale.contenders import contenders
from millrace.autoscale.traces import shipped_trace
from millrace.tiers import Prices, Tier, Tiers

SEEDS = range(12)


def rows(names: tuple[str, ...], faults: Faults, load: float = 1.0, most: int = 4) -> dict[str, Row]:
    tier = Tier(name="heavy", cores=16, memory=32 << 30, queues=("causal",), most=most)
    rules = [rule for rule in contenders() if rule.name in names]
    found = compare(
        Tiers(tiers={tier.name: tier}, prices=Prices()), lambda s: shipped_trace(s, load=load), SEEDS, rules, faults
    )
    return {row.contender: row for row in found}


def test_the_policy_holds_its_figures_on_the_shipped_trace() -> None:
    row = rows(("millrace",), Faults())["millrace"]
    assert row.mean("kills") == row.mean("redone_hours") == row.mean("never") == 0
    assert row.mean("peak") <= 4
    assert row.mean("delay_p95_s") <= 550
    assert row.mean("slowdown") <= 2.0
    assert row.always_on.mean <= 0.21


@pytest.mark.slow
def test_the_order_of_service_decides_the_waiting_not_the_scaler() -> None:
    fifo = "always the maximum, first come first served"
    found = rows(("millrace", "millrace, first come first served", fifo), Faults())
    assert found[fifo].mean("delay_p95_s") > 2.5 * found["millrace"].mean("delay_p95_s")
    assert found["millrace, first come first served"].mean("delay_p95_s") > 2.5 * found["millrace"].mean("delay_p95_s")
    same = found["millrace, first come first served"].mean("replica_hours")
    assert found["millrace"].mean("replica_hours") == pytest.approx(same, rel=0.03)


@pytest.mark.slow
def test_peers_kill_jobs_or_exceed_the_maximum() -> None:
    names = tuple(rule.name for rule in contenders() if rule.name.startswith("KEDA"))
    found = rows(names, Faults())
    assert found["KEDA, queue length"].mean("kills") > 100
    assert found["KEDA, queued + running, 30 s grace"].mean("kills") > 20
    assert found["KEDA, queued + running, 2 h grace"].mean("peak") > 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "load", "most"),
    [
        (Faults(error=0.7), 1.0, 4),
        (Faults(outages_per_day=8.0, outage_s=1200.0), 1.0, 4),
        (Faults(failed_boots=0.1, boot_spread=0.1), 1.0, 4),
        (Faults(strikes_per_day=6.0), 1.0, 4),
        (Faults(), 2.0, 4),
        (Faults(), 2.0, 10),
    ],
    ids=["wrong predictions", "lost signals", "failed boots", "strikes", "double load", "double load, ten replicas"],
)
def test_under_faults_nobody_is_killed_by_the_scaler_and_every_job_ends(faults: Faults, load: float, most: int) -> None:
    row = rows(("millrace",), faults, load, most)["millrace"]
    assert row.mean("kills") == row.mean("never") == 0
    assert row.mean("peak") <= most

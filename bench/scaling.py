"""The scaler beside other ways to scale, on the shipped trace: `python -m bench.scaling [--quick]`.

Prints the tables of docs/scaling.md and writes them to results/scaling.md, with the picture beside; then the processor time
of replaying a million jobs. All but the last is the same on every machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from bench.harness import RESULTS, Bench
from millrace.autoscale.compare import Row, compare, machines_table, waiting_table
from millrace.autoscale.conditions import Faults, Service
from millrace.autoscale.contenders import contenders, shipped
from millrace.autoscale.pictures import waiting_and_machines
from millrace.autoscale.simulate import Replay
from millrace.autoscale.traces import shipped_trace, synthetic
from millrace.diagnose.charts import save_chart
from millrace.tiers import Prices, Tier, Tiers, load_tiers

FAULTS: dict[str, tuple[Faults, float, int]] = {
    "as it is": (Faults(), 1.0, 4),
    "predictions off by a factor of 2": (Faults(error=0.69), 1.0, 4),
    "eight outages of signals a day, 20 min each": (Faults(outages_per_day=8.0, outage_s=1200.0), 1.0, 4),
    "one boot in ten fails": (Faults(failed_boots=0.1), 1.0, 4),
    "six replicas a day die under their jobs": (Faults(strikes_per_day=6.0), 1.0, 4),
    "double load": (Faults(), 2.0, 4),
    "double load, at most ten": (Faults(), 2.0, 10),
}


def tiers(most: int = 4) -> Tiers:
    return Tiers(tiers={"heavy": Tier(name="heavy", cores=16, memory=32 << 30, queues=("causal",), most=most)})


def markdown(table: Sequence[tuple[str, ...]]) -> list[str]:
    head, *rows = table
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def under_faults(seeds: Sequence[int]) -> list[tuple[str, ...]]:
    rule = contenders()[:1]
    lines: list[tuple[str, ...]] = [
        ("", "delay p95 s", "slowdown", "of always on", "peak", "kills", "redone h", "never", "longest wait s")
    ]
    for name, (faults, load, most) in FAULTS.items():
        (row,) = compare(tiers(most), lambda s, load=load: shipped_trace(s, load=load), seeds, rule, faults)
        delay, m = row.figures["delay_p95_s"], row.mean
        lines.append(
            (
                name, f"{delay.mean:,.0f} ± {delay.half:,.0f}", f"{m('slowdown'):.2f}", f"{row.always_on.mean:.1%}",
                f"{m('peak'):.1f}", f"{m('kills'):.0f}", f"{m('redone_hours'):.2f}", f"{m('never'):.0f}",
                f"{m('wait_max_s'):,.0f}",
            )
        )  # fmt: skip
    return lines


def held(bench: Bench, row: Row) -> None:
    bench.figure("shipped trace: p95 of turnaround - size", row.mean("delay_p95_s"), "s", 550)
    bench.figure("shipped trace: replica-hours of always on", 100 * row.always_on.mean, "%", 21)
    bench.figure("shipped trace: mean slowdown", row.mean("slowdown"), "x", 2.0)
    bench.figure("shipped trace: jobs killed by the scaler", row.mean("kills"), "jobs", 0)


def million(bench: Bench) -> None:
    """A million jobs of all tiers, made before: processor seconds of replaying them."""
    trace, spent = synthetic(100_000, seed=0, days=10), 0.0
    for tier in load_tiers(None).tiers.values():
        own = [job for job in trace if job.queue in tier.queues]
        began = time.process_time()
        Replay(tier, own, shipped(tier, Prices()), Service(), Faults(), 0).run()
        spent += time.process_time() - began
    bench.figure(f"replay of {len(trace):,} jobs: processor time", spent, "s", 60)


def main() -> int:
    bench = Bench("scaling")
    seeds = range(2 if "--quick" in sys.argv else 12)
    rows = compare(tiers(), shipped_trace, seeds, contenders(), Faults())
    held(bench, rows[0])
    parts = [waiting_table(rows), machines_table(rows, Prices()), under_faults(seeds)]
    text = "\n\n".join("\n".join(markdown(part)) for part in parts)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.md").write_text(text + "\n", encoding="utf-8")
    png, _ = save_chart(waiting_and_machines(rows), RESULTS / "scaling")
    png.unlink()
    million(bench)
    bench.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())

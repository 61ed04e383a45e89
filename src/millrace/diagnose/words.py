"""A run's accounting in a few plain lines, and how shares and times are written everywhere in a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    from millrace.diagnose.accounting import Accounting


def summary(accounting: Accounting) -> list[tuple[str, str]]:
    """Five to ten (what, text) lines in plain words, for the end of every run."""
    from millrace.diagnose.accounting import ANALYSIS, PARTS

    a = accounting
    lines = [
        (
            "time",
            f"{duration(a.wall_ns / 1e9)} on {slots(a)} ({a.engine}), {a.core_ns / 1e9:,.1f} core-seconds",
        )
    ]
    if not a.whole:
        lines.append(("ended", "the driver was killed; all of this is up to its last record"))
    where = f"{percent(a.share('on_cpu'))} on the processor, {percent(a.share('off_cpu'))} waiting for it or for something else"
    if "off_cpu" in a.unknown:
        where = "on the processor or waiting: unknown"
    elif a.share("collector") >= 0.001:
        where += f", {percent(a.share('collector'))} collecting garbage"
    lines.append(("analysis", f"{percent(a.share(*ANALYSIS))} of the core-seconds ({where})"))
    others = sorted((p for p in PARTS if p not in (*ANALYSIS, "unexplained")), key=lambda p: -a.parts_ns[p])
    told = [f"{PARTS[p]} {percent(a.share(p))}" for p in others[:4] if a.share(p) >= 0.001]
    lines.append(("besides", ", ".join([*told, f"unexplained {percent(a.share('unexplained'))}"])))
    lines.append(
        (
            "packing",
            f"{percent(a.efficiency)} of the speed that the same tasks reach when packed without a gap",
        )
    )
    lines.append(("tasks", _task_line(a)))
    if a.tasks and a.tasks[0].total_s:
        top = a.tasks[0]
        lines.append(
            (
                "longest",
                f"{top.name}: median {duration(top.median_s)}, 95 % within {duration(top.p95_s)}",
            )
        )
    if a.gpu_ns:
        busy = ", ".join(f"GPU {gpu} {percent(ns / max(1, a.wall_ns))}" for gpu, ns in a.gpu_ns.items())
        lines.append(("GPUs", f"held by tasks for a part of the time: {busy}"))
    if a.memory_bytes:
        of = f" of {format_bytes(a.budget_bytes)}" if a.budget_bytes else ""
        driver = f"{format_bytes(a.driver_peak_bytes)} in the driver" if a.whole else "the driver's own is not known"
        lines.append(("memory", f"at most {format_bytes(a.memory_bytes)}{of} ({driver})"))
    return lines


def _task_line(a: Accounting) -> str:
    told = [f"{a.finished:,} finished"]
    if a.outcomes.get("cached"):
        told.append(f"{a.outcomes['cached']:,} of them from the store")
    failed = sum(n for state, n in a.outcomes.items() if state not in ("done", "cached"))
    if failed:
        told.append(f"{failed:,} failed")
    if a.lost_attempts:
        told.append(f"{a.lost_attempts:,} attempt{'s' * (a.lost_attempts != 1)} lost")
    if a.retried:
        told.append(f"{a.retried:,} run again")
    if len(a.hosts) > 1:
        told.append(f"on {len(a.hosts)} hosts")
    rates = a.rates()
    a_minute = f"{rate(rates['per_minute'])} a minute"
    each = f" ({rate(rates['per_slot_minute'])} a worker)" if a.slots > 1 else ""
    return f"{', '.join(told)}; {a_minute}{each}, {rate(rates['per_core_s'])} per core-second"


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """As `format_duration`, but what is under a millisecond is told in microseconds."""
    return f"{seconds * 1e6:.3g}µs" if 0 < seconds < 0.9995e-3 else format_duration(seconds)


def slots(accounting: Accounting) -> str:
    return f"{accounting.slots} slot{'s' * (accounting.slots != 1)}"


def percent(share: float) -> str:
    """ "93.1 %"; what is small but there is never shown as nothing."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"

"""What a run's report says: the sections of its page, made from its ledger.

Does not lay out (`page`), draw (`charts`) or judge (`findings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace.diagnose import charts
from millrace.diagnose.accounting import PARTS, Accounting
from millrace.diagnose.case import Case, Finding, case_of, told_gain
from millrace.diagnose.findings import findings
from millrace.diagnose.page import Section
from millrace.diagnose.words import duration, percent, slots, summary
from millrace.run.units import format_bytes

if TYPE_CHECKING:
    from millrace.run.ledger import History


def run_sections(history: History) -> list[Section]:
    """Where the core-seconds went, findings, timeline, tasks, driver, plan and facts of a run, from its ledger."""
    return case_sections(case_of(history))


def case_sections(case: Case) -> list[Section]:
    """The same, of a case that is there already."""
    history, timeline, accounting = case.history, case.timeline, case.accounting
    told = findings(case)
    sections = [
        Section(
            "Where the core-seconds went",
            "\n".join(f"{what.capitalize()}: {text}." for what, text in summary(accounting)),
            _parts_table(accounting),
            charts.core_seconds(accounting),
        ),
        Section("What costs time", _healthy(case) if not told else "", findings_table(told) if told else None),
        Section("Slots over time", chart=charts.lanes(timeline, history)),
        Section("Use of the slots", chart=charts.utilisation(timeline)),
    ]
    if accounting.tasks:
        ran = any(figures.total_s for figures in accounting.tasks)
        picture = charts.durations(history, accounting) if ran else None
        sections.append(Section("Tasks", table=_tasks_table(accounting), chart=picture))
    if accounting.driver_ns:
        said = "What the driver did besides waiting; shares are of the wall time."
        sections.append(Section("The driver", said, _driver_table(accounting)))
    plans = history.of("plan")
    if plans:
        sections.append(Section("Planned and measured", table=_plan_table(plans[-1], accounting)))
    if history.notes:
        sections.append(Section("Notes", "\n".join(history.notes)))
    if accounting.gpu_ns:
        sections.append(Section("GPUs", "\n".join(gpu_lines(accounting))))
    if accounting.groups:
        sections.append(Section("Related tasks", _groups_text(accounting)))
    sections.append(Section("About this run", table=_facts_table(history, accounting)))
    return sections


def findings_table(told: Sequence[Finding]) -> list[list[Any]]:
    """What was found, what to do, and what that saves."""
    rows = [[f.rule, f.evidence, f.advice, "not known" if f.gain is None else told_gain(f.gain)] for f in told]
    return [["finding", "evidence", "advice", "gain"], *rows]


def _healthy(case: Case) -> str:
    ran = len(case.ran)
    return "No rule found anything." if ran else "Nothing ran: all of it was in the store, or there was nothing to do."


def _parts_table(a: Accounting) -> list[list[Any]]:
    rows = [
        [PARTS[p], percent(a.share(p)), _seconds(a.parts_ns[p])] for p in PARTS if a.parts_ns[p] or p == "unexplained"
    ]
    rows += [[PARTS[p], "unknown", "unknown"] for p in a.unknown]
    if not a.throttled_known and "throttled" not in a.unknown:
        rows.append([PARTS["throttled"], "not known", "not known"])
    return [["part", "share", "core-time"], *rows, ["all", "100 %", _seconds(a.core_ns)]]


def gpu_lines(a: Accounting) -> list[str]:
    """How busy each was: the time in which a task had it; what of that it computed, no clock here tells."""
    return [
        f"GPU {gpu} was held by tasks for {_seconds(ns)}, {percent(ns / max(1, a.wall_ns))} of the run."
        for gpu, ns in a.gpu_ns.items()
    ]


def _groups_text(a: Accounting) -> str:
    share = percent(a.split_groups / a.groups)
    return f"{a.split_groups:,} of {a.groups:,} groups of two tasks or more ran on several workers ({share})."


def _tasks_table(a: Accounting) -> list[list[Any]]:
    head = [
        "task",
        "done",
        "from store",
        "failed",
        "together",
        "on CPU",
        "collector",
        "median",
        "95 %",
        "in",
        "out",
        "peak memory",
    ]
    return [
        head,
        *(
            [
                f.name, f"{f.done:,}", f"{f.cached:,}", f"{f.failed:,}", duration(f.total_s),
                percent(f.cpu_s / f.total_s) if f.total_s else "–",
                percent(f.collector_s / f.total_s) if f.total_s else "–", *_if_ran(f.total_s, f.median_s, f.p95_s),
                format_bytes(f.in_median_bytes), format_bytes(f.out_median_bytes),
                format_bytes(f.peak_bytes) if f.peak_bytes else "not measured",
            ]
            for f in a.tasks[:40]
        ),
    ]  # fmt: skip


def _if_ran(total_s: float, *seconds: float) -> list[str]:
    return [duration(s) if total_s else "–" for s in seconds]


def _driver_table(a: Accounting) -> list[list[Any]]:
    rows = sorted(a.driver_ns.items(), key=lambda part: -part[1])
    return [
        ["part", "share", "time"],
        *([n, percent(ns / max(1, a.wall_ns)), _seconds(ns)] for n, ns in rows),
    ]


def _plan_table(plan: Mapping[str, Any], a: Accounting) -> list[list[Any]]:
    core_s = sum(f.total_s for f in a.tasks)
    planned = {n: "not known" if plan.get(n) is None else duration(plan[n]) for n in ("core_s", "wall_s")}
    sizes = {n: _bytes(plan.get(n) or 0, "not known") for n in ("worker_bytes", "driver_bytes", "peak_bytes")}
    return [
        ["", "planned", "measured"],
        ["core-time", planned["core_s"], duration(core_s)],
        ["wall time", planned["wall_s"], _seconds(a.wall_ns)],
        ["memory of one worker", sizes["worker_bytes"], _bytes(a.task_peak_bytes)],
        ["memory of the driver", sizes["driver_bytes"], _bytes(a.driver_peak_bytes)],
        ["memory of all, at most", sizes["peak_bytes"], _bytes(a.memory_bytes)],
    ]


def _facts_table(history: History, a: Accounting) -> list[list[Any]]:
    header = history.header
    rows: list[list[Any]] = [
        ["run", a.run_id], ["analysis", a.analysis], ["started", header.get("started_at", "")], ["ended", a.state],
        ["engine", f"{a.engine}, {slots(a)}"],
        ["memory allowed", format_bytes(a.budget_bytes) if a.budget_bytes else "no limit"],
        ["seed", header.get("seed", "")],
    ]  # fmt: skip
    for name in ("host", "versions", "spec"):
        said = header.get(name)
        if isinstance(said, Mapping):
            rows += [[f"{name}: {key}", value] for key, value in said.items() if value is not None]
        elif said:
            rows.append([name, said])
    return [["what", "is"], *([str(what), str(value)] for what, value in rows)]


def _seconds(ns: int) -> str:
    return duration(ns / 1e9)


def _bytes(size: int, unknown: str = "not measured") -> str:
    return format_bytes(size) if size else unknown

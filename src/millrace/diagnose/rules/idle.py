"""Slots that had no task: why, and what it would take to give them one."""

from __future__ import annotations

import numpy as np

from millrace.diagnose import replay
from millrace.diagnose.case import Case, Finding, killed
from millrace.diagnose.words import duration, percent
from millrace.run.ledger import STATES
from millrace.run.units import format_bytes

TAIL, STARVED, DRIVER, START, LOST = 0.05, 0.05, 0.05, 0.10, 0.01
SHORT_RUN_S = 0.5
NEAR = 0.9
PIECES = (2, 4, 8, 16)
WORTH = 0.02
"""A change that saves less than this is not worth a sentence."""


def tail(case: Case) -> Finding | None:
    """The last tasks ran while other slots had nothing left to do."""
    a = case.accounting
    share = a.share("tail")
    if share < TAIL or a.slots < 2 or not case.scenario.jobs:
        return None
    ends = replay.ends_ns(case.scenario)
    idle_from = min(int(lane.ends[-1]) if len(lane.ends) else case.timeline.from_ns for lane in case.timeline.lanes)
    alone = int((ends > idle_from - case.timeline.from_ns).sum())
    last = int(case.scenario.name[int(np.argmax(ends))])
    tried = [(case.gain(replay.cut(case.scenario, last, p)), p) for p in PIECES]
    best = max(g for g, _ in tried)
    pieces = min(p for g, p in tried if g >= best - 0.1 * abs(best))  # a gain below zero is a loss
    best = {p: g for g, p in tried}[pieces]
    sorted_gain = case.gain(replay.longest_first(case.scenario))
    name = case.name(last)
    block = int(case.plan.get("block") or 0)
    if sorted_gain >= best:
        advice, best = "let the source give the longest tasks first", sorted_gain
    elif block > 1:
        advice = f"cut {name} into blocks of {max(1, block // pieces):,} items instead of {block:,}"
    else:
        advice = f"cut each {name} into {pieces} tasks"
    if best < WORTH:
        advice = f"nothing is won by smaller tasks; {a.slots} slots are more than this question can use"
        return Finding("tail", _tail_evidence(case, share, alone, name), advice, share, None, {"alone": alone})
    figures = {"share": share, "ran_alone": alone, "pieces": pieces, "longest_first_gain": sorted_gain}
    return Finding("tail", _tail_evidence(case, share, alone, name), advice, share, best, figures)


def _tail_evidence(case: Case, share: float, alone: int, name: str) -> str:
    longest = float(case.took.max(initial=0)) / 1e9
    tasks = f"the last {alone:,} tasks" if alone > 1 else "the last task"
    return (
        f"{percent(share)} of the core-seconds; {tasks} ran while slots were idle (longest {name}: {duration(longest)})"
    )


def starved(case: Case) -> Finding | None:
    """The source had nothing to start until an outcome came."""
    share = case.accounting.share("starved")
    if share < STARVED:
        return None
    flying = case.took.sum() / 1e9 / max(1e-9, case.accounting.wall_ns / 1e9)
    of = f"{flying:.1f} of {case.accounting.slots} slots"
    evidence = f"{percent(share)} of the core-seconds had no task to start; {of} were busy"
    advice = "keep more in flight: a larger window or more trials at once, or decide as outcomes come (order = asap)"
    gain = case.gain(replay.unstarved(case.scenario))
    return Finding("starved source", evidence, advice, share, gain, {"share": share, "busy_slots": float(flying)})


def driver(case: Case) -> Finding | None:
    """Slots waited for the one process that hands out tasks and takes values."""
    a = case.accounting
    share = a.share("driver")
    if share < DRIVER or case.log:
        return None
    parts = sorted(a.driver_ns.items(), key=lambda part: -part[1])
    known = sum(ns for _, ns in parts)
    named = ", ".join(f"{name} {duration(ns / 1e9)}" for name, ns in parts[:3] if ns)
    evidence = f"{percent(share)} of the core-seconds waited for the driver ({named or 'its parts were not measured'})"
    what = parts[0][0] if known else ""
    advice = {
        "source": "make tasks cheaper to name: the source computes between them",
        "consume": "do less between two outcomes, or do it in tasks",
        "put": "return less, or keep values where they are made (keep=True)",
        "lookup": "ask for fewer, larger tasks: each is looked up in the store",
        "keys": "share large arguments (run.share): each task's are read to make its key",
        "ledger": "ask for fewer, larger tasks",
    }.get(what, "do less in the driver before, between and after the tasks")
    if known < 0.3 * share * a.wall_ns:
        advice = "most of it is before the first or after the last task (reading, assembling): do it in tasks, or share the run"
    gain = case.gain(replay.without(case.scenario, "driver"))
    return Finding("driver-bound", evidence, advice, share, gain, {"share": share, "parts_ns": dict(parts)})


def start(case: Case) -> Finding | None:
    """Workers were being made for a large part of the run."""
    a = case.accounting
    share = a.share("start")
    if share < START or a.wall_ns / 1e9 < SHORT_RUN_S:
        return None
    each = a.parts_ns["start"] / a.slots / 1e9
    run = duration(a.wall_ns / 1e9)
    evidence = f"{percent(share)} of the core-seconds: a slot took {duration(each)} to start, for {run} of run"
    advice = "share one pool among calls (with mr.Run() as run: ..., run=run), or run it inline"
    gain = case.gain(replay.without(case.scenario, "start"))
    return Finding("worker start", evidence, advice, share, gain, {"share": share, "start_s": each})


def lost(case: Case) -> Finding | None:
    """Attempts that a death or a ceiling took, and what came again because of it."""
    a = case.accounting
    share = a.share("lost")
    if not a.lost_attempts or share < LOST:
        return None
    states = case.columns["state"]
    by = {s: int((states == STATES.index(s)).sum()) for s in ("memory", "cpu", "wall", "lost")}
    named = ", ".join(f"{n} by {_WHY[s]}" for s, n in by.items() if n)
    died = a.lost_attempts - sum(by.values())
    named = ", ".join(filter(None, [named, f"{died} with a worker that died" if died > 0 else ""]))
    evidence = f"{a.lost_attempts:,} attempts were lost ({named}), {percent(share)} of the core-seconds"
    advice = "look at what ended them in the answer's failures; give --memory more" if by["memory"] else (
        "raise the limits that were too short" if by["cpu"] + by["wall"] > died else
        "find what kills workers: a crash in native code, an exit, or the kernel (dmesg tells of out of memory)"
    )  # fmt: skip
    gone = killed(case)
    gain = case.gain(replay.without(replay.dropped(case.scenario, gone), "lost"))
    return Finding("lost attempts", evidence, advice, share, gain, {"share": share, "attempts": a.lost_attempts, **by})


_WHY = {
    "memory": "the memory limit",
    "cpu": "the limit of processor time",
    "wall": "the limit of wall time",
    "lost": "quarantine",
}


def few_slots(case: Case) -> Finding | None:
    """Memory allowed fewer slots than there are cores, or is all but used up."""
    a = case.accounting
    cores = int((case.history.header.get("budget") or {}).get("cores") or 0)
    planned = case.plan
    tasks = int(planned.get("tasks") or 0)
    wanted = min(cores, tasks) if tasks else cores
    if planned and 0 < int(planned.get("slots") or 0) < wanted:
        needs = int(planned["driver_bytes"]) + wanted * int(planned["worker_bytes"])
        evidence = (
            f"the budget of {format_bytes(a.budget_bytes)} carries {planned['slots']} of {cores} slots "
            f"({format_bytes(int(planned['worker_bytes']))} each)"
        )
        advice = f"give --memory {format_bytes(needs, up=True)} for {wanted} slots"
        gain = case.gain(replay.on_slots(case.scenario, wanted))
        return Finding(
            "memory, few slots", evidence, advice, 1 - planned["slots"] / wanted, gain, {"needs_bytes": needs}
        )
    if a.budget_bytes and a.memory_bytes >= NEAR * a.budget_bytes:
        part = a.memory_bytes / a.budget_bytes
        evidence = f"{format_bytes(a.memory_bytes)} of {format_bytes(a.budget_bytes)} were held ({percent(part)})"
        advice = "give --memory more, or fewer --cores, before a task breaks its share and runs again alone"
        return Finding("memory near budget", evidence, advice, 0.0, None, {"held_bytes": a.memory_bytes})
    return None

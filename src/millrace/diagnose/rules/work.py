"""Time within tasks that is not the analysis, or not all that a core could give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from millrace.diagnose import replay
from millrace.diagnose.case import Case, Finding
from millrace.diagnose.words import duration, percent
from millrace.run.units import format_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL_S, SMALL_COUNT, SMALL_SHARE = 2e-3, 64, 0.10
MOVED_SHARE, LARGE_BYTES = 0.05, 1 << 20
LOAD, THROTTLED, WAITING, COLLECTOR = 0.05, 0.02, 0.15, 0.05
REPEATED_BYTES, REPEATED_COUNT = 1 << 18, 8
THREADS = 1.3
SHARED = 0.5
"""Some task of the machine waited for a processor for this part of the run: its cores are in others' use."""
TOGETHER = 64


def small_tasks(case: Case) -> Finding | None:
    """Tasks so short that what is around them counts."""
    a = case.accounting
    share = a.share("transfer", "engine", "driver", "load", "write")
    if case.log or len(case.took) < SMALL_COUNT or share < SMALL_SHARE:
        return None
    names = case.columns["name"][case.ran]
    number = int(np.bincount(names).argmax())
    took = case.took[names == number]
    median = float(np.median(took)) / 1e9
    if median > SMALL_S:
        return None
    around = (
        a.parts_ns["transfer"] + a.parts_ns["engine"] + a.parts_ns["driver"] + a.parts_ns["load"] + a.parts_ns["write"]
    )
    evidence = (
        f"{len(took):,} tasks of {case.name(number)} took {duration(median)} (median), "
        f"and {duration(around / 1e9 / len(case.took))} around each"
    )
    together = max(2, min(TOGETHER, int(20e-3 / max(median, 1e-6))))
    less = case.per_job("unpack_ns", "write_ns") * (together - 1) // together
    around_each = ("transfer", "engine", "driver")
    before = {k: ns // together if k in around_each else ns for k, ns in case.scenario.before.items()}
    changed = replay.shortened(replace(case.scenario, before=before), less)
    advice = f"give a task about {together} of these items at once"
    return Finding(
        "too small tasks", evidence, advice, share, case.gain(changed), {"median_s": median, "tasks": len(took)}
    )


def payload(case: Case) -> Finding | None:
    """Large values are packed, sent and unpacked."""
    a = case.accounting
    share = a.share("write", "transfer") + _unpacked(case)
    sizes_out, sizes_in = _sizes(case, "out_bytes"), _sizes(case, "in_bytes")
    if case.log or share < MOVED_SHARE or max(sizes_out, sizes_in) < LARGE_BYTES or repeated_bytes(case):
        return None
    way, size = ("returned", sizes_out) if sizes_out >= sizes_in else ("was sent", sizes_in)
    evidence = f"{percent(share)} of the core-seconds went into packing and sending; a task {way} {format_bytes(int(size))} (p95)"
    advice = "return summaries, or keep the values where they are made (keep=True)" if way == "returned" else (
        "share large inputs (run.share), which every worker maps, and send their Refs"
    )  # fmt: skip
    changed = replay.shortened(replay.without(case.scenario, "transfer"), case.per_job("write_ns", "unpack_ns"))
    return Finding(
        "large payloads", evidence, advice, share, case.gain(changed), {"share": share, "p95_bytes": int(size)}
    )


def _unpacked(case: Case) -> float:
    core = case.accounting.core_ns
    return float(case.columns["unpack_ns"][case.ran].sum()) / core if core else 0.0


def _sizes(case: Case, column: str) -> float:
    sizes = case.columns[column][case.ran]
    return float(np.percentile(sizes, 95)) if len(sizes) else 0.0


def repeated_bytes(case: Case) -> int:
    """How much each task was sent when all were sent as much, and much; 0 otherwise."""
    sizes = case.columns["in_bytes"][case.ran]
    if len(sizes) < REPEATED_COUNT:
        return 0
    low, median, high = np.percentile(sizes, (5, 50, 95))
    return int(median) if median >= REPEATED_BYTES and high - low <= 0.02 * median else 0


def repeated_input(case: Case) -> Finding | None:
    """Every task carries the same large input."""
    size = repeated_bytes(case)
    if case.log or not size:
        return None
    count = len(case.ran)
    a = case.accounting
    total = format_bytes(size * count)
    evidence = f"each of {count:,} tasks was sent {format_bytes(size)}, the same size every time: {total} in all"
    changed = replay.shortened(replay.without(case.scenario, "transfer"), case.per_job("unpack_ns"))
    advice = "share the input once (run.share, or shared= of run.map): workers map it"
    share = a.share("transfer") + _unpacked(case)
    return Finding("repeated input", evidence, advice, share, case.gain(changed), {"bytes": size, "tasks": count})


def load(case: Case) -> Finding | None:
    """Imports, and making what tasks need, inside tasks."""
    a = case.accounting
    share = a.share("load")
    sent = max(_sizes(case, "in_bytes"), float(repeated_bytes(case)))
    if case.log or share < LOAD or sent >= LARGE_BYTES:
        return None
    unpack = int(case.columns["unpack_ns"][case.ran].sum())
    enter = int(case.columns["enter_ns"][case.ran].sum())
    what = "making warm resources" if enter > unpack else "reading functions and importing their modules"
    spent = f"{duration((unpack + enter) / 1e9)} in {len(case.ran):,} tasks"
    evidence = f"{percent(share)} of the core-seconds went into {what} ({spent})"
    advice = "import lazily what a task does not need, and keep the pool for the next call (with mr.Run() as run)" if (
        enter <= unpack
    ) else "make the resource cheaper, or use fewer workers: each enters it once"  # fmt: skip
    changed = replay.shortened(case.scenario, case.per_job("unpack_ns", "enter_ns"))
    return Finding("deserialising and imports", evidence, advice, share, case.gain(changed), {"share": share})


def throttled(case: Case) -> Finding | None:
    """The quota held tasks back."""
    a = case.accounting
    share = a.share("throttled")
    if not a.throttled_known or share < THROTTLED:
        return None
    waits = _waiting(case)
    told = np.minimum(case.per_job("throttled_ns"), waits)
    less = told if told.any() else (waits * (a.parts_ns["throttled"] / max(1, int(waits.sum())))).astype(np.int64)
    evidence = f"the quota held the run back for {duration(a.parts_ns['throttled'] / 1e9)}, {percent(share)} of the core-seconds"
    advice = f"raise the quota of the container, or run fewer workers than {a.slots} (`millrace doctor` tells how many)"
    gain = case.gain(replay.shortened(case.scenario, less))
    return Finding("throttled by quota", evidence, advice, share, gain, {"share": share})


def _waiting(case: Case) -> NDArray[np.int64]:
    """Of each job: its time without a processor."""
    busy = np.minimum(case.per_job("cpu_ns"), case.scenario.took)
    return case.scenario.took - busy


def off_cpu(case: Case) -> Finding | None:
    """Tasks wait: for files, for the network, for locks, for other programs' use of the cores."""
    a = case.accounting
    share = a.share("off_cpu")
    if case.log or share < WAITING:
        return None
    wall, cpu = case.took.sum(), np.minimum(case.columns["cpu_ns"][case.ran], case.took).sum()
    waiting = 1 - float(cpu) / max(1.0, float(wall))
    slots = math.ceil(a.slots / max(0.1, 1 - waiting))
    worst = max(a.tasks, key=lambda f: f.total_s - f.cpu_s)
    evidence = (
        f"{percent(share)} of the core-seconds were tasks that waited; {worst.name} had a processor "
        f"{percent(min(1.0, worst.cpu_s / worst.total_s) if worst.total_s else 0.0)} of its time"
    )
    strain = case.history.of("strain")
    pressure = strain[-1].get("cpu_waiting") if strain else None
    if pressure is not None and pressure >= SHARED:
        evidence += f"; processors were waited for in {percent(pressure)} of the time"
        advice = "other programs use these cores: end or move them, or give the run as many --cores as are free"
        gain = case.gain(replay.shortened(case.scenario, _waiting(case)))
        return Finding("cores in others' use", evidence, advice, share, gain, {"share": share, "pressure": pressure})
    advice = f"if they wait for files or the network, --cores {slots} fills the gaps"
    gain = case.gain(replay.on_slots(case.scenario, slots))
    return Finding("off-CPU waits", evidence, advice, share, gain, {"share": share, "waiting": waiting, "slots": slots})


def collector(case: Case) -> Finding | None:
    """Python's collector takes a part of the tasks."""
    a = case.accounting
    share = a.share("collector")
    if share < COLLECTOR:
        return None
    worst = max(a.tasks, key=lambda f: f.collector_s)
    evidence = f"{percent(share)} of the core-seconds went into Python's collector, most of it in {worst.name}"
    advice = "call gc.freeze() once what stays is made, keep fewer small objects, or raise gc.set_threshold"
    gain = case.gain(replay.shortened(case.scenario, case.per_job("gc_ns")))
    return Finding("collector", evidence, advice, share, gain, {"share": share, "task": worst.name})


def threads(case: Case) -> Finding | None:
    """Tasks use more than one core each: threads of all slots fight for the same cores."""
    a = case.accounting
    if case.log or not len(case.took):
        return None
    cpu, wall = float(case.columns["cpu_ns"][case.ran].sum()), float(case.took.sum())
    if a.slots < 2 or cpu < THREADS * max(wall, 1.0):
        return None
    evidence = f"tasks used {cpu / wall:.1f} cores each on {a.slots} slots: {cpu / wall * a.slots:.0f} threads at work"
    advice = "give libraries one thread (OMP_NUM_THREADS=1, n_jobs=1): slots are the parallelism"
    return Finding("threads in tasks", evidence, advice, 0.0, None, {"cores_each": cpu / wall})

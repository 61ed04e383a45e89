"""The warden of a worker: claims jobs of one tier, starts processes for them, keeps their leases, and tells their ends.

One thread, one loop (`step`). A warden that is killed takes its job processes with it; the leases run out, and others go
on from the store. Does not compute, and does not decide what follows from an end (see `states.after`).
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from millrace.jobs.database import DatabaseAway
from millrace.jobs.queues import Errand, Queue
from millrace.jobs.states import Job, JobLost, Told
from millrace.jobs.table import GONE_S, JobTable, Progress, Seen, Sweeper
from millrace.jobs.worker import process, temporary
from millrace.jobs.worker.process import Slot
from millrace.run.units import format_bytes, format_duration
from millrace.tiers import Tier, Tiers

LOOK_S, MEASURE_S = 0.005, 0.1
TELL_S = 1.0
"""A worker that turns from idle to busy and back all the time tells it no more often."""
SCRATCH_S = 2.0
AWAY_S = 1.0
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are carried out: the jobs' folder, the store that all runs share, and where temporary files go (by default
    below the jobs' folder)."""

    home: Path
    store: str
    engine: str = "auto"
    scratch: Path | None = None

    @property
    def temporary(self) -> Path:
        return self.scratch or self.home / "scratch"


@dataclass(slots=True)
class Warden:
    """A worker of `tier` (as this host can carry it). `say` gets a line for people now and then; `told` each state that the
    table is told. `stays`: once it has left its work, it waits for SIGTERM instead of ending (a pod that ends is started
    again)."""

    table: JobTable
    queue: Queue
    tiers: Tiers
    tier: Tier
    place: Place
    version: str
    say: Callable[[str], None]
    name: str = ""
    told: Callable[[str], None] | None = None
    stays: bool = False
    slots: list[Slot] = field(default_factory=list)
    unsettled: list[tuple[Job, Told]] = field(default_factory=list)
    leaving: str = ""
    served: int = 0
    _sweeper: Sweeper | None = None
    _beat_s: float = 0.0
    _seen_s: float = 0.0
    _measured_s: float = 0.0
    _away_s: float = 0.0
    _grace_s: float = 0.0
    _began: float = 0.0
    _idle_s: float = 0.0
    _scratch_s: float = 0.0
    _state: str = ""
    _since: float = 0.0

    def __post_init__(self) -> None:
        self.name = self.name or f"{self.tier.name}-{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._sweeper = Sweeper(self.table, max(0.5, self.tiers.lease_s / 15))
        self._began, self._idle_s = self.table.clock(), time.monotonic()
        (self.place.home / "work").mkdir(parents=True, exist_ok=True)
        temporary.sweep(self.place.temporary)

    # -- what signals ask ----------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Claim no more, and end. One that is busy stays: who asked could not know. Safe in a signal handler."""
        if not self.busy:
            self.leaving = self.leaving or "idle"

    def drain(self) -> None:
        """As `leave`, and what runs is paused now: it is queued again, with all that it has finished kept."""
        self.leaving = "now"

    @property
    def busy(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.busy]

    @property
    def idle_s(self) -> float:
        """How long nothing has run here."""
        return 0.0 if self.busy else time.monotonic() - self._idle_s

    def serve(self, idle_s: float = 0.0) -> None:
        """Until it is to leave and nothing runs any more; or nothing has run for `idle_s` (0: for ever)."""
        try:
            while not self._has_left():
                self.step()
                if idle_s and self.idle_s >= idle_s:
                    self.leave()
        finally:
            self.close()

    def _has_left(self) -> bool:
        if not self.leaving or self.busy or self.unsettled:
            return False
        return self.leaving == "now" or not self.stays

    def step(self, claim: bool = True) -> None:
        """One turn: hear the processes, keep limits and leases, claim."""
        self._listen()
        self._keep_limits()
        now = time.monotonic()
        if now < self._away_s:
            return
        try:
            self._keep_leases(now)
            if self.leaving:
                self.queue.leave()
            elif claim and self.queue.woken():
                self._take_on()
            self._keep_warm()
        except DatabaseAway as e:
            self.say(f"{self.name}: {e}")
            self._away_s = now + AWAY_S

    def close(self) -> None:
        for slot in self.slots:
            process.close(slot)
        self.slots.clear()
        self.queue.close()
        try:
            self.table.forget(self.name)
        except DatabaseAway as e:
            self.say(f"{self.name}: {e}")

    # -- claiming ------------------------------------------------------------------------------------------------
    def _take_on(self) -> None:
        """Errands first, which nobody else has; then the best jobs of the table."""
        while self._has_place() and self._free_bytes() >= self.tier.slot_bytes:
            errand = self.queue.errand()
            if errand is None:
                break
            self._run_errand(errand)
        while self._has_place() and self.queue.claimed(self._claim()):
            pass

    def _has_place(self) -> bool:
        """Whether one more can run now. A light job waits for a warm process, or another worker, rather than for a start."""
        if len(self.busy) >= self.tier.at_once:
            return False
        return not self.tier.warm or any(slot.ready and not slot.busy for slot in self.slots)

    def _free_bytes(self) -> int:
        return max(0, (self.tier.memory or 0) - sum(max(slot.ceiling_bytes, 0) for slot in self.busy))

    def _run_errand(self, errand: Errand) -> None:
        slot = self._process()
        tasks = self.place.home / "work" / "tasks"
        given = {
            **errand.given, "folder": str(tasks / "now"), "memory_bytes": self.tier.slot_bytes, "cwd": os.getcwd(),
        }  # fmt: skip
        process.give(slot, errand, given)
        errand.began(slot.process.pid)

    def _claim(self) -> Job | None:
        """Claim the best job that fits and give it to a process; None when there is none."""
        share = self.tier.slot_bytes
        job = self.table.claim(self.name, self.tier.name, self._free_bytes(), share)
        if job is None:
            return None
        memory = max(share, job.predicted_bytes or 0)
        result = f"work/{job.id}/{job.attempt}"
        question = json.loads(job.question)
        given = {
            "analysis": job.analysis, "question": question["question"], "cwd": question["cwd"], "seed": job.seed,
            "folder": str(self.place.home / result), "result": result,
            "home": str(self.place.home), "inputs": str(self.place.home / "inputs"),
            "store": self.place.store, "engine": "inline" if self.tier.slot_cores == 1 else self.place.engine,
            "cores": self.tier.slot_cores, "memory_bytes": memory, "nice": 0, "light": self.tier.warm,
            "number": job.id, "attempt": job.attempt, "trace": question.get("trace", ""),
        }  # fmt: skip
        process.give(self._process(), job, given)
        return job

    def _process(self) -> Slot:
        """A warm process without a job; else a new one."""
        free = (s for s in self.slots if s.ready and not s.busy and s.process.poll() is None)
        return next(free, None) or self._start()

    def _start(self) -> Slot:
        slot = process.start(
            self.tier.nice, self.place.home / "work" / "processes.log", temporary.fresh(self.place.temporary),
            self.tier.warm,
        )  # fmt: skip
        self.slots.append(slot)
        return slot

    def _keep_warm(self) -> None:
        """One process more than there are jobs, within the jobs at once: who comes next does not wait for a start."""
        if self.tier.warm and not self.leaving and len(self.slots) == len(self.busy) < self.tier.at_once:
            self._start()

    # -- watching ------------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        heard: list[Any] = [s.link for s in self.slots]
        wait = MEASURE_S / 2
        if self.queue.bell is not None and time.monotonic() >= self._away_s:
            heard.append(self.queue.bell)
        elif self._has_place() and not self.leaving:
            wait = LOOK_S
        for link in select.select(heard, [], [], wait)[0]:
            found = next((s for s in self.slots if s.link is link), None)
            if found is None:
                continue  # the bell: the queue tells what it rang for
            told = process.heard(found)
            if told is not None:
                self._end(found, told)
        for found in list(self.slots):
            if found.process.poll() is None:
                continue
            told = process.heard(found) or process.ended(found)  # it may have told its end before it ended
            if found.busy and told is not None:
                self._end(found, told)
            if found in self.slots:
                self._drop(found)

    def _end(self, slot: Slot, told: Told) -> None:
        job, errand, slot.job, slot.errand = slot.job, slot.errand, None, None
        self._idle_s = time.monotonic()
        if job is None and errand is None:
            return
        slot.jobs_done += 1
        if slot.scratch is not None:
            temporary.emptied(slot.scratch)
        self.served += 1
        if told.ending == "paused" and slot.stopping:
            told = replace(told, why=slot.stopping)  # the run cannot know why it was asked
        told = slot.verdict or told
        if errand is not None:
            errand.ended(told, slot.reply)
            self.say(f"{self.name}: {errand.label} {told.ending}{f' ({told.why})' if told.why else ''}")
        if job is not None:
            self.unsettled.append((job, told))
            self._settle()
            self.queue.ended(job)
        if not self.tier.warm or slot.jobs_done >= self.tier.recycle_after or slot.worn or slot.verdict is not None:
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        self.slots.remove(slot)
        process.close(slot)

    def _settle(self) -> None:
        """Tell the table what has ended; what cannot be told now is told later."""
        for job, told in list(self.unsettled):
            above = self.tiers.above(self.tiers.tier(self.tier.name))
            up = (above.name, above.queues[0]) if above is not None and above.queues else None
            try:
                settled = self.table.settle(job, told, up)
            except JobLost as e:
                self.say(f"{self.name}: {e}")
            except DatabaseAway as e:
                self.say(f"{self.name}: {e}")
                self._away_s = time.monotonic() + AWAY_S
                return
            else:
                self.queue.publish(settled)
                about = settled.why or f"{job.label}, {format_duration(told.seconds)}"
                self.say(f"{self.name}: job {job.id} {told.ending} ({about})")
            self.unsettled.remove((job, told))

    def _keep_limits(self) -> None:
        """Memory, temporary files, the soft and the hard limit of the slice, the grace of a drain."""
        now = time.monotonic()
        if self.leaving == "now" and not self._grace_s:
            self._grace_s = now + self.tiers.grace_s
        if now - self._measured_s < MEASURE_S:
            return
        self._measured_s = now
        for slot in self.busy:
            held = process.measure(slot)
            if held > slot.ceiling_bytes:
                why = f"it held {format_bytes(held)} of private memory, and may hold {format_bytes(slot.ceiling_bytes)}"
                self._kill(slot, "out of memory", why)
            elif slot.seconds >= self._limit_s(slot, "hard_s"):
                limit_s = self._limit_s(slot, "hard_s")
                self._kill(slot, "timed out", f"a slice of {slot.seconds:.0f} s, the hard limit is {limit_s:.0f} s")
            elif self._grace_s and now >= self._grace_s:
                self._kill(slot, "killed", "its worker had to leave, and it did not stop within the grace")
            elif slot.seconds >= self._limit_s(slot, "soft_s"):
                self._stop(slot, "soft limit")
            elif self.leaving == "now" and slot.job is not None:  # an errand cannot be paused: it has the grace to end
                self._stop(slot, "the worker leaves")
        if now - self._scratch_s >= SCRATCH_S:
            self._scratch_s = now
            self._keep_scratch()

    def _keep_scratch(self) -> None:
        for slot in self.busy:
            held = 0 if slot.scratch is None else temporary.size(slot.scratch)
            if held > self.tier.slot_scratch:
                most = format_bytes(self.tier.slot_scratch)
                self._kill(slot, "raised", f"it held {format_bytes(held)} in temporary files, and may hold {most}")

    def _limit_s(self, slot: Slot, name: str) -> float:
        """The tier's limit; an errand may have a lower one of its own."""
        own = getattr(slot.errand, name, None)
        return min(getattr(self.tier, name), own) if own is not None else float(getattr(self.tier, name))

    def _kill(self, slot: Slot, ending: str, why: str) -> None:
        if slot.verdict is None:
            told = Told(ending, why, slot.seconds, None, slot.peak_bytes, None, slot.progressed)  # type: ignore[arg-type]
            process.kill(slot, told)

    def _stop(self, slot: Slot, why: str, number: int = signal.SIGTERM) -> None:
        """Ask again every second: a signal that comes just as the process takes its job is not heard."""
        now = time.monotonic()
        if slot.ready and (now - slot.asked_s >= ASK_AGAIN_S or (number == signal.SIGUSR1 and slot.stopping != why)):
            slot.stopping, slot.asked_s = why, now
            process.ask(slot, number)

    def _keep_leases(self, now: float) -> None:
        if self.unsettled:
            self._settle()
        if now - self._beat_s >= self.tiers.lease_s / 6:
            self._beat_s = now
            for slot in self.busy:
                if slot.job is not None:
                    self._beat(slot)
        assert self._sweeper is not None
        for job in self._sweeper.tick():
            self.say(f"{self.name}: job {job.id} was lost by its worker: {job.state}")
        self.queue.tick()
        since_s = now - self._seen_s
        if since_s >= GONE_S / 6 or (since_s >= TELL_S and self.state != self._state):
            self._seen_s = now
            self.seen()

    def _beat(self, slot: Slot) -> None:
        job = slot.job
        assert job is not None
        at = slot.progress
        try:
            cancelled = self.table.beat(job, Progress(at.stage, at.finished, at.total, slot.peak_bytes))
            if cancelled:
                self._stop(slot, "cancelled", signal.SIGUSR1)
            elif slot.seconds >= self.tiers.slice_s and self.table.outranked(job):
                self._stop(slot, "its slice is over, and others go first")
        except JobLost as e:
            self.say(f"{self.name}: {e}")
            slot.job = None
            self.queue.ended(job)
            self._idle_s = time.monotonic()
            self._drop(slot)

    @property
    def state(self) -> str:
        return "draining" if self.leaving else "busy" if self.busy else "idle"

    def seen(self) -> None:
        """Tell the table that this worker is there; learn whether it is to leave."""
        now, state, tier = self.table.clock(), self.state, self.tier
        if state != self._state:
            self._since = now - (self.idle_s if state == "idle" else 0.0)
        asked = self.table.see(
            Seen(
                self.name, tier.name, platform.node(), os.getpid(), self.version, state, tier.at_once, tier.memory or 0,
                self._began, now, self._since,
            )
        )  # fmt: skip
        self._state = state
        if self.told is not None:
            self.told(state)
        if asked:
            self.leave()

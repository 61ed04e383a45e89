"""What a job is, the states it goes through, and what follows from the end of an attempt. Pure; see `table` for the truth.

queued -> running -> succeeded | failed | cancelled
             `-> queued (a slice is over, a cause that may pass)
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from millrace.run.errors import MillraceError, WrongQuestion

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
OPEN: tuple[State, ...] = ("queued", "running")

Ending = Literal[
    "finished", "paused", "cancelled", "raised", "passing", "out of memory", "crashed", "timed out", "killed"
]
"""How an attempt ended. `raised`: the question or the work itself is wrong; `passing`: a cause that may pass (a store or a
database out of reach); `killed`: from outside; the others speak for themselves."""
OWN: tuple[Ending, ...] = ("out of memory", "crashed", "timed out")
"""Ends that the job itself brought about."""

ASKED_BY_TASK = "celery:"
"""Idempotency keys of jobs whose caller waits to be told of the end begin so."""

MOST_OWN = 3
MOST_LOSSES = 20
BACKOFF_S, BACKOFF_MOST_S = 1.0, 300.0


class JobLost(MillraceError):
    """The lease is gone: another worker has the job, or it was cancelled. What this one made is thrown away."""


class NoSuchJob(WrongQuestion):
    """There is no job of that number."""

    http_status = 404


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a job will take; None is unknown. `seconds`: in a slot of its tier; `core_s`: of all cores together;
    `peak_bytes`: private memory of all its processes."""

    seconds: float | None = None
    core_s: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A request for a job. `question`: plain values; data and models are names or digests of inputs (see `inputs`).

    `analysis`: of the catalogue, or "run" with {"function": "module:name", "items": INPUT}. `max_total_s`: of all slices
    together, 0 is no bound. `idempotency_key`: a second order with the same key is the same job.
    """

    analysis: str
    question: Mapping[str, Any]
    queue: str
    tier: str
    seed: int = 0
    priority: int = 0
    owner: str = ""
    label: str = ""
    idempotency_key: str | None = None
    prediction: Prediction = Prediction()
    max_total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the job table. Times are seconds since 1970; None is "not yet" or "not known".

    `attempt` counts claims, `own_ends` and `losses` those that ended badly (losses in a row). `attained_s`: seconds in
    slots so far. `result`: the folder of the answer below the jobs' folder; `digest`: of the answer. `why`: the last
    reason: why it failed, waits, or was requeued.
    """

    id: int
    analysis: str
    label: str
    question: str
    seed: int
    queue: str
    tier: str
    priority: int
    service_key: float
    state: State
    owner: str
    idempotency_key: str | None
    created_at: float
    not_before: float
    attempt: int
    worker: str | None
    lease_until: float | None
    claimed_at: float | None
    first_started_at: float | None
    ended_at: float | None
    attained_s: float
    predicted_s: float | None
    predicted_core_s: float | None
    predicted_bytes: int | None
    core_s: float | None
    peak_bytes: int | None
    stage: str
    finished_tasks: int
    total_tasks: int | None
    own_ends: int
    losses: int
    escalated: bool
    cancel_asked: bool
    max_total_s: float
    result: str | None
    digest: str | None
    ending: str | None
    why: str
    published_at: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """How an attempt ended, as its worker tells it. `seconds` in the slot; `progressed`: it finished at least one task.

    `answer` is of "finished" alone: (folder, digest)."""

    ending: Ending
    why: str = ""
    seconds: float = 0.0
    core_s: float | None = None
    peak_bytes: int | None = None
    answer: tuple[str, str] | None = None
    progressed: bool = False


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a job: its state, whether the end counts as its own or as a loss, and when it may go again."""

    state: State
    why: str
    own_ends: int
    losses: int
    delay_s: float = 0.0
    escalate: bool = False


def after(job: Job, told: Told, draw: random.Random) -> Next:
    """What follows from the end of an attempt: a pure decision, jitter drawn from `draw`."""
    own, losses = job.own_ends, job.losses
    spent = job.attained_s + told.seconds
    if told.ending == "finished":
        return Next("succeeded", "", own, 0)
    if told.ending == "cancelled" or job.cancel_asked:
        return Next("cancelled", told.why or "cancelled", own, losses)
    if told.ending == "raised":
        return Next("failed", told.why, own, losses)
    if job.max_total_s and spent >= job.max_total_s:
        return Next("failed", f"it took {spent:.0f} s, and max_total_s is {job.max_total_s:.0f}", own, losses)
    if told.ending == "paused":
        return Next("queued", told.why or "its slice is over", own, 0)
    if told.ending == "timed out" and not told.progressed:
        return Next("failed", f"a single task is longer than the hard limit of its tier: {told.why}", own + 1, losses)
    if told.ending in OWN:
        escalate = told.ending == "out of memory" and not job.escalated
        if own + 1 >= MOST_OWN:
            return Next("failed", f"poison: it ended {own + 1} attempts itself, the last: {told.why}", own + 1, losses)
        return Next("queued", told.why, own + 1, losses, backoff_s(own, draw), escalate)
    if losses + 1 >= MOST_LOSSES:
        return Next(
            "failed", f"{losses + 1} workers in a row were lost under it, the last: {told.why}", own, losses + 1
        )
    return Next("queued", told.why, own, losses + 1, backoff_s(losses, draw))


def backoff_s(failures: int, draw: random.Random) -> float:
    """1 s, doubled for each earlier failure, at most 300 s; half of it is drawn, so that jobs do not come back in step."""
    whole = min(BACKOFF_MOST_S, BACKOFF_S * 2**failures)
    return whole * (0.5 + 0.5 * draw.random())

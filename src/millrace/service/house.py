"""What the routes share: the desk, the tokens, the warm explainers, and what the service has seen."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from millrace.jobs.states import Job, NoSuchJob
from millrace.service import names
from millrace.service.questions import Naming

if TYPE_CHECKING:
    from millrace.analyses.explain.explainers import Explainers
    from millrace.jobs.desk import Desk
    from millrace.service.access import Caller, Tokens
    from millrace.service.collecting import Collector
    from millrace.service.lookout import Lookout
    from millrace.service.quota import Room
    from millrace.service.times import Times
    from millrace.service.twins import Samplers
    from millrace.settings import Settings


@dataclass(slots=True)
class House:
    """`rows`: the threads that explain rows; `collector`: what puts single rows together; `room`: what users may keep;
    `checks`: how many readers of what was sent there may be at once; `streams`: events that are
    followed, by user."""

    settings: Settings
    desk: Desk
    tokens: Tokens | None
    explainers: Explainers
    lookout: Lookout
    times: Times
    rows: ThreadPoolExecutor
    roots: names.Roots
    samplers: Samplers
    collector: Collector
    room: Room
    checks: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))
    streams: dict[str, int] = field(default_factory=dict)

    def naming(self, caller: Caller) -> Naming:
        """What the caller's words mean."""
        return Naming(
            lambda kind, name: self._find(caller, kind, name),
            lambda given: str(self.desk.inputs / given),
            self.settings.functions,
        )

    def _find(self, caller: Caller, kind: str, name: str) -> str:
        """By name; the model job-7 is what the job 7 fitted, where the caller sees that."""
        of_job = re.fullmatch(r"job-([1-9]\d{0,17})", name) if kind == "model" else None
        if of_job is None:
            return names.find(self.desk, self.roots, caller, kind, name)
        return names.fitted(self.desk, self.roots, self.job(caller, int(of_job[1])))

    def job(self, caller: Caller, number: int) -> Job:
        """The job, when the caller may see it: that of another one is as if it were not there."""
        nothing = NoSuchJob(f"There is no job {number} of yours. GET /v1/jobs lists what there is.")
        try:
            job = self.desk.table.get(number)
        except NoSuchJob:
            raise nothing from None  # in the same words, or they would tell whose jobs there are
        if not caller.sees(job):
            raise nothing
        return job


def house_of(request: Request) -> House:
    house: House = request.app.state.house
    return house

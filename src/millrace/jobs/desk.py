"""What one jobs' folder holds, together: the table, the inputs, the tiers; and what becomes of old files.

jobs.sqlite        the job table, unless it is in PostgreSQL
inputs/DIGEST      data and models
work/JOB/log.txt   what the job printed
work/JOB/ATTEMPT/  what that attempt left: ledger, answer, report
workers.log        what workers of `millrace scale once` say
up.lock            held by the `millrace up` that serves the folder
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from millrace.jobs.queues import Publisher
from millrace.jobs.states import OPEN, Job
from millrace.jobs.table import JobTable
from millrace.run.errors import WrongQuestion
from millrace.tiers import DEFAULT_QUEUES, Tiers

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Desk:
    """`home`: the jobs' folder. `publisher`: who is told of changes; None: whoever waits looks at the table."""

    home: Path
    table: JobTable
    tiers: Tiers
    publisher: Publisher | None = None

    @property
    def inputs(self) -> Path:
        return self.home / "inputs"

    def publish(self, job: Job) -> Job:
        """Tell of a job that is new, goes again, or has ended."""
        if self.publisher is not None:
            self.publisher.publish(job)
        return job

    def folder(self, number: int) -> Path:
        return self.home / "work" / str(number)

    def answer(self, job: Job) -> Path:
        """The folder of the answer of a job that succeeded; says why there is none otherwise."""
        if job.state != "succeeded" or job.result is None:
            why = f": {job.why}" if job.why else "."
            raise WrongQuestion(f"Job {job.id} has no result, it is {job.state}{why}")
        folder = self.home / job.result
        if not (folder / "result.json").is_file():
            raise WrongQuestion(
                f"The result of job {job.id} has gone from {folder}: results are kept {self.tiers.results_days:g} days. "
                "Submit the job again; what is still in the store is not computed again."
            )
        return folder

    def check(self) -> list[str]:
        """What is wrong with the tiers, and with the open jobs against the tiers as they are now, a sentence each."""
        served = {tier.name for tier in self.tiers.tiers.values() if tier.most != 0}
        unserved = {
            queue: kind for kind, queue in DEFAULT_QUEUES.items() if self.tiers.of_queue(queue).name not in served
        }
        return [
            f"{kind} jobs go to the queue {queue!r} of the tier {self.tiers.of_queue(queue).name}, which may have no worker "
            "(most = 0): those that fit no other tier are refused."
            for queue, kind in unserved.items()
        ] + [
            f"{load.jobs} open jobs of the queue {load.queue!r} are of the tier {load.tier!r}, which has no worker: cancel "
            "them, or give the tier back its workers."
            for load in self.table.load()
            if load.tier not in served
        ]

    def keep_within_days(self) -> None:
        """Take out results and ledgers that are older than the settings keep them, and the folders of forgotten jobs."""
        now = self.table.clock()
        work = self.home / "work"
        for folder in work.iterdir() if work.is_dir() else ():
            if not folder.name.isdigit():
                continue
            age_s = now - folder.stat().st_mtime
            if age_s < DAY_S * min(self.tiers.results_days, self.tiers.ledgers_days):
                continue
            found = next((j for j in [_found(self.table, int(folder.name))] if j is not None), None)
            if found is None or age_s >= DAY_S * max(self.tiers.ledgers_days, self.tiers.results_days):
                shutil.rmtree(folder, ignore_errors=True)
            elif found.state not in OPEN and age_s >= DAY_S * self.tiers.results_days:
                for path in folder.glob("*/*"):
                    if path.name != "ledger.jsonl":
                        path.unlink(missing_ok=True)

    def prune(self, older_s: float) -> list[int]:
        """Forget jobs that ended longer ago than that, with their folders."""
        numbers = self.table.prune(self.table.clock() - older_s)
        for number in numbers:
            shutil.rmtree(self.folder(number), ignore_errors=True)
        return numbers


def _found(table: JobTable, number: int) -> Job | None:
    from millrace.jobs.states import NoSuchJob

    try:
        return table.get(number)
    except NoSuchJob:
        return None

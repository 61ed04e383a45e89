"""A desk of real jobs: a module with functions, items, a warden in this process whose job processes are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import psutil

from millrace import __version__, ordering
from millrace.jobs.database import open_database
from millrace.jobs.desk import Desk
from millrace.jobs.queues import TableQueue
from millrace.jobs.states import Job
from millrace.jobs.table import JobTable
from millrace.jobs.worker.warden import Place, Warden
from millrace.tiers import Tiers, load_tiers

WORK = '''
import os
import signal
import time


def told(item, text=""):
    with open("calls.log", "a") as file:
        file.write(f"{item}\\n")


def square(item):
    return item * item


def pid(item):
    return os.getpid()


def slow(item):
    told(item)
    time.sleep(0.25)
    return item + 1


def nap(item):
    time.sleep(0.3)
    return item + 1


def stuck(item):
    told(item)
    time.sleep(600)


def once_stuck(item):
    """Item 3 never ends, but when somebody has put a file there; the others take a while."""
    time.sleep(0.3)
    told(item)
    while item == 3 and not os.path.exists("go"):
        time.sleep(0.05)
    return item + 1


def crash(item):
    told(item)
    os.kill(os.getpid(), signal.SIGSEGV)


def grows(item):
    """In small pieces, which no limit of the kernel sees coming."""
    held = []
    while True:
        held.append(bytearray(64 << 10))
        time.sleep(0.0005)


def maps(item):
    """Reads a large mapped file: resident, and not private."""
    import mmap
    with open("large", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        total = sum(view[i] for i in range(0, len(view), 4096))
    time.sleep(0.5)
    return total


def litters(item):
    """Temporary files, more and more."""
    import tempfile
    told(tempfile.gettempdir())
    for _ in range(600):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(os.urandom(1 << 20))
        time.sleep(0.05)


def forks(item):
    """What is forked and told to end at once ends: also when it is told before it knows that it is a fork."""
    ends = []
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(1)
        os.kill(pid, signal.SIGTERM)
        ends.append(os.waitpid(pid, 0)[1])
    return sorted(set(ends))


def bad(item):
    raise ValueError("there is no such thing")
'''
GIVE_UP_S = 300.0


class Office:
    """A jobs' folder, its tables, and wardens over it."""

    def __init__(self, folder: Path, place: str | None = None, tiers: str = "") -> None:
        self.folder = folder
        (folder / "work.py").write_text(WORK)
        file = None
        if tiers:
            file = folder / "tiers.toml"
            file.write_text(tiers)
        self.tiers: Tiers = load_tiers(file)
        self.home = folder / "jobs"
        self.home.mkdir(exist_ok=True)
        self.place = place or str(self.home / "jobs.sqlite")
        self.desk = Desk(self.home, self.table(), self.tiers)
        self.said: list[str] = []

    def table(self) -> JobTable:
        return JobTable(open_database(self.place), lease_s=self.tiers.lease_s)

    def submit(self, function: str, items: list[object], **about: object) -> Job:
        (self.folder / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
        with chdir(self.folder):
            question = {"function": f"work:{function}", "items": "items.jsonl"}
            return ordering.order(self.desk, "run", question, **about)  # type: ignore[arg-type]

    def warden(self, tier: str = "light", **changed: object) -> Warden:
        table = self.table()
        chosen = self.tiers.tier(tier)
        chosen = chosen.model_copy(update={"cores": 1, "memory": chosen.memory, "nice": 0, **changed})
        place = Place(self.home, str(self.folder / "store"))
        return Warden(table, TableQueue(table), self.tiers, chosen, place, __version__, self.said.append)

    def calls(self) -> list[str]:
        log = self.folder / "calls.log"
        return log.read_text().split() if log.exists() else []

    def values(self, job: Job) -> list[object]:
        lines = (self.desk.answer(job) / "results.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def until(
    true: Callable[[], object], step: Callable[[], object] = lambda: time.sleep(0.05), give_up_s: float = GIVE_UP_S
) -> None:
    give_up = time.monotonic() + give_up_s
    while not true():
        assert time.monotonic() < give_up, "it did not come about"
        step()


def serve_until_ended(office: Office, warden: Warden, *numbers: int) -> list[Job]:
    def ended() -> bool:
        return all(office.desk.table.get(number).ended_at is not None for number in numbers)

    until(ended, warden.step)
    return [office.desk.table.get(number) for number in numbers]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


BELOW_UP = {"job": "worker.child", "worker": " worker --tier", "service": " serve --socket"}
"""How the processes below `up` are called."""


def victims(up: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    """The processes below `up` by what they are."""
    found: dict[str, list[int]] = {"up": [up.pid], "worker": [], "job": [], "service": []}
    try:
        below = psutil.Process(up.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return found
    for process in below:
        try:
            line = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        for kind, words in BELOW_UP.items():
            if words in line:
                found[kind].append(process.pid)
    return found


def millrace(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real command, in that folder."""
    command = [sys.executable, "-m", "millrace", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)

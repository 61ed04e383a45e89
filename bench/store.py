"""What keeping a value costs: CPU of small puts, hits and misses; a large array put, attached and read by others.

`python -m bench.store`. Peers: a file per value, SQLite (a table of key and value, a transaction per 256 rows), and
`numpy.save` for the large array. All write to the same disk, none syncs. Stores elsewhere are measured in wall time over
servers on this host (Valkey; moto for S3, whose own time dominates), beside redis-py's bare set and get.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.harness import Bench
from millrace.stores.directory import DirectoryStore
from millrace.stores.memory import MemoryStore
from millrace.stores.redis import RedisStore
from millrace.stores.remote import RemoteStore

SMALL = 40_000
FEW = 2_000
LARGE_ROWS, LARGE_COLUMNS = 100_000, 200

ATTACH = """
import sys, time
import numpy
from millrace.stores.directory import open_by_url
def private():
    lines = open("/proc/self/status")
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) << 10
open_by_url(sys.argv[1]).attach(sys.argv[3])
before, start = private(), time.perf_counter()
array = open_by_url(sys.argv[1]).attach(sys.argv[2])
took = time.perf_counter() - start
array.sum()
print(took, private() - before)
"""

PUT = """
import sys, time
import numpy
from millrace.stores.directory import open_by_url
store, array = open_by_url(sys.argv[1]), numpy.random.rand(5_000_000)
print(flush=True)
sys.stdin.readline()
start = time.perf_counter()
store.put(sys.argv[2], array)
print(time.perf_counter() - start)
"""


def key(i: object) -> str:
    return hashlib.sha1(repr(i).encode()).hexdigest()


def value(i: int) -> list[Any]:
    return [i, i * 0.5, "v" * 80]


class Files:
    """A file per value, as many caches do."""

    def __init__(self, root: Path) -> None:
        self.root, self.encode = root, msgspec.msgpack.Encoder().encode

    def put(self, key: str, value: object) -> None:
        draft = f"{self.root}/.{key}"
        with open(draft, "wb", buffering=0) as file:
            file.write(self.encode(value))
        os.makedirs(f"{self.root}/{key[:2]}", exist_ok=True)
        os.rename(draft, f"{self.root}/{key[:2]}/{key}")

    def get(self, key: str) -> object:
        try:
            with open(f"{self.root}/{key[:2]}/{key}", "rb", buffering=0) as file:
                return msgspec.msgpack.decode(file.read())
        except FileNotFoundError:
            return None

    def flush(self) -> None: ...


class Database:
    """SQLite with a write-ahead log."""

    def __init__(self, root: Path) -> None:
        self.base, self.encode = (
            sqlite3.connect(root / "values.db", isolation_level=None),
            msgspec.msgpack.Encoder().encode,
        )
        self.base.execute("pragma journal_mode=wal")
        self.base.execute("pragma synchronous=off")
        self.base.execute("create table if not exists kept (key blob primary key, value blob) without rowid")
        self.waiting: list[tuple[bytes, bytes]] = []

    def put(self, key: str, value: object) -> None:
        self.waiting.append((bytes.fromhex(key), self.encode(value)))
        if len(self.waiting) == 256:
            self.flush()

    def flush(self) -> None:
        self.base.execute("begin immediate")
        self.base.executemany("insert or ignore into kept values (?, ?)", self.waiting)
        self.base.execute("commit")
        self.waiting.clear()

    def get(self, key: str) -> object:
        row = self.base.execute("select value from kept where key = ?", (bytes.fromhex(key),)).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0])


def cpu_us(work: Callable[[], object], count: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / count * 1e6


def small(bench: Bench, root: Path) -> None:
    keys, others = [key(i) for i in range(SMALL)], [key((i, "no")) for i in range(SMALL)]
    makes: dict[str, Callable[[Path], Any]] = {
        "directory": DirectoryStore,
        "memory": lambda root: MemoryStore(),
        "a file each": Files,
        "SQLite": Database,
    }
    best: dict[tuple[str, str], float] = {}
    for turn in range(3):
        for name, make in makes.items():
            folder = root / f"{name}-{turn}"
            folder.mkdir()
            store = make(folder)

            def put(store: Any = store) -> None:
                for i, k in enumerate(keys):
                    store.put(k, value(i))
                store.flush()

            works = {
                "put": put,
                "hit": lambda store=store: [store.get(k) for k in keys],
                "miss": lambda store=store: [store.get(k) for k in others],
            }
            for work, function in works.items():
                best[name, work] = min(best.get((name, work), 1e9), cpu_us(function, SMALL))
    for work, hold in (("put", 12.0), ("hit", 6.0), ("miss", 5.0)):
        for name in makes:
            bench.figure(
                f"{work} of a small value, {name}", best[name, work], "us CPU", hold if name == "directory" else None
            )


def large(bench: Bench, root: Path) -> None:
    array = np.random.default_rng(0).standard_normal((LARGE_ROWS, LARGE_COLUMNS))
    store = DirectoryStore(root / "large")
    count = iter(range(10_000))

    def put() -> None:
        k = key(("large", next(count)))
        store.put(k, array)
        store.evict(0)

    def save() -> None:
        np.save(root / "peer.npy", array)
        os.unlink(root / "peer.npy")

    bench.against("put of an array of 160 MB", put, {"numpy.save": (save, 1, 0.5)}, turns=5)
    data = memoryview(array).cast("B")
    sums: dict[str, Callable[[], object]] = {
        "adler32": lambda: zlib.adler32(data),
        "sha256": lambda: hashlib.sha256(data).digest(),
        "blake2b": lambda: hashlib.blake2b(data).digest(),
    }
    peers = {name: (function, 1.0, None) for name, function in sums.items()}
    bench.against("checksum of 160 MB (CRC-32)", lambda: zlib.crc32(data), peers)
    store.put(key("array"), array)
    store.put(key("first"), np.arange(3))
    store.flush()
    said = [
        subprocess.run(
            [sys.executable, "-c", ATTACH, store.url, key("array"), key("first")],
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(3)
    ]
    took_s, grown = zip(*([float(x) for x in each.stdout.split()] for each in said), strict=True)
    bench.figure("attach of 160 MB in a second process", min(took_s) * 1e3, "ms", 10.0)
    bench.figure("private memory after reading all of it there", max(grown) / 2**20, "MiB", 4.0)
    bench.figure("first get of 160 MB (verified)", min(_first_get(store) for _ in range(3)) * 1e3, "ms")


def _first_get(store: DirectoryStore) -> float:
    other = DirectoryStore(store.path)
    start = time.perf_counter()
    other.get(key("array"))
    took = time.perf_counter() - start
    other.close()
    return took


def together(bench: Bench, root: Path) -> None:
    """Puts of 40 MB by one process, and by two at once."""
    store = DirectoryStore(root / "together")
    took: dict[int, float] = {}
    for workers in (1, 2):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        commands = [[sys.executable, "-c", PUT, store.url, key((workers, i))] for i in range(workers)]
        children = [subprocess.Popen(command, **pipes) for command in commands]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        took[workers] = max(float(out.split()[0]) for out in _all_go(children))
    bench.figure("put of 40 MB by two processes at once, against one alone", took[2] / took[1], "x")


def _all_go(children: list[subprocess.Popen[str]]) -> list[str]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return [child.communicate()[0] for child in children]


def elsewhere(bench: Bench, root: Path) -> None:
    """Redis and S3 beside redis-py alone: FEW small values, an array of 40 MB."""
    import pytest

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "stores"))
    import servers

    with pytest.MonkeyPatch.context() as patched, servers.valkey(root / "valkey") as server:
        import redis

        turn = iter(range(10_000))
        client = redis.Redis(port=server.port)
        store = RedisStore(server.url, root / "copies")
        encode = msgspec.msgpack.Encoder().encode

        def put() -> None:
            n = next(turn)
            for i in range(FEW):
                store.put(key((n, i)), value(i))
            store.flush()

        def look_and_put() -> None:
            """As a run does: ask, compute, put."""
            n = next(turn)
            for i in range(FEW):
                if store.get(key((n, i))) is None:
                    store.put(key((n, i)), value(i))
            store.flush()

        def bare() -> None:
            n = next(turn)
            for i in range(FEW):
                client.set(key((n, i)), encode(value(i)))

        def bare_look_and_set() -> None:
            n = next(turn)
            for i in range(FEW):
                if client.get(key((n, i))) is None:
                    client.set(key((n, i)), encode(value(i)))

        bench.against(f"Redis: put {FEW:,} small values", put, {"redis-py set": (bare, 1, None)})
        bench.against(
            f"Redis: ask for and put {FEW:,}", look_and_put, {"redis-py get, set": (bare_look_and_set, 1, None)}
        )
        names = [key(("there", i)) for i in range(FEW)]
        for i, name in enumerate(names):
            store.put(name, value(i))
            client.set(name, encode(value(i)))
        store.flush()
        bench.against(
            f"Redis: get {FEW:,} small values",
            lambda: [store.get(name) for name in names],
            {"redis-py get": (lambda: [msgspec.msgpack.decode(client.get(name)) for name in names], 1, None)},
        )
        array = np.random.default_rng(0).standard_normal(5_000_000)
        bench.against(
            "Redis: put an array of 40 MB",
            lambda: store.put(key(("large", next(turn))), array),
            {"redis-py set": (lambda: client.set("large", array.tobytes()), 1, None)},
        )
        store.put(key("mapped"), array)
        bench.against(
            "Redis: attach 40 MB that this host has",
            lambda: store.attach(key("mapped")),
            {"redis-py get": (lambda: np.frombuffer(client.get("large")), 1, None)},
        )
        store.close()
        client.close()
        with servers.s3(root / "s3", patched):
            remote = RemoteStore("s3://team/bench", root / "copies")
            start = time.perf_counter()
            for i in range(FEW):
                remote.put(key(i), value(i))
            remote.flush()
            bench.figure("S3 on this host: put of a small value", (time.perf_counter() - start) / FEW * 1e6, "us")
            start = time.perf_counter()
            found = [remote.get(key(i)) for i in range(FEW)]
            bench.figure(
                "S3 on this host: get of a small value", (time.perf_counter() - start) / len(found) * 1e6, "us"
            )
            start = time.perf_counter()
            remote.put(key("array"), array)
            bench.figure("S3 on this host: put of an array of 40 MB", time.perf_counter() - start, "s")
            remote.close()


def main() -> None:
    bench = Bench("store")
    root = Path(tempfile.mkdtemp(prefix="millrace-bench-", dir="/var/tmp"))
    try:
        small(bench, root)
        large(bench, root)
        together(bench, root)
        elsewhere(bench, root)
    finally:
        shutil.rmtree(root)
    bench.write()


if __name__ == "__main__":
    main()

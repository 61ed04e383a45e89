"""One row explained over HTTP at 50 requests a second, by a model of 300 trees: alone, and while a heavy job has all cores.

`python -m bench.service`. The client is an asyncio one of its own over kept connections; requests go out by the clock, whether
the one before was answered or not, and each counts from when it was to go out. Beside it the same rows without HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from bench.harness import Bench

RATE, SECONDS, TREES, COLUMNS = 50, 20, 300, 20
CONNECTIONS = 16


def furnish(folder: Path) -> None:
    import lightgbm
    import pyarrow
    from pyarrow import parquet

    numbers = numpy.random.default_rng(0)
    x = numbers.normal(size=(20_000, COLUMNS))
    treated = (x[:, 0] + numbers.normal(size=len(x)) > 0).astype(float)
    y = treated + x[:, 0] + x[:, 1] * x[:, 2] + numbers.normal(size=len(x))
    options = {"num_leaves": 31, "num_threads": 1, "verbosity": -1, "seed": 0, "deterministic": True}
    lightgbm.train(options, lightgbm.Dataset(x, y), TREES).save_model(folder / "model.txt")
    columns = {f"c{j}": x[:, j] for j in range(COLUMNS)}
    parquet.write_table(pyarrow.table({**columns, "treated": treated, "y": y}), folder / "people.parquet")


@contextmanager
def up(folder: Path) -> Iterator[int]:
    """`millrace up` there; the port of its service."""
    log = folder / "up.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace", "up", "--port", "0"], cwd=folder, stderr=said, env=os.environ
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            time.sleep(0.1)
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)


def ask(port: int, path: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as told:
        return json.load(told)


async def load(port: int, bodies: list[bytes]) -> list[float]:
    """Latencies in ms of RATE requests a second for SECONDS, each from when it was to go out."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.2
    found: list[float] = []

    async def one(number: int) -> None:
        due = begin + number / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))
        reader, writer = await free.get()
        body = bodies[number % len(bodies)]
        writer.write(b"POST /v1/explain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)  # fmt: skip
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
        assert head.startswith(b"HTTP/1.1 200"), head
        found.append(1000 * (loop.time() - due))
        free.put_nowait((reader, writer))

    await asyncio.gather(*(one(number) for number in range(RATE * SECONDS)))
    while not free.empty():
        free.get_nowait()[1].close()
    return found


def told(bench: Bench, name: str, found: list[float]) -> None:
    cut = statistics.quantiles(found, n=100)
    bench.figure(f"a row over HTTP, {name}: 50 % within", cut[49], "ms", 20)
    bench.figure(f"a row over HTTP, {name}: 99 % within", cut[98], "ms", 100)
    bench.figure(f"a row over HTTP, {name}: the longest", max(found), "ms")


def main() -> None:
    bench = Bench("service")
    numbers = numpy.random.default_rng(1)
    rows = numbers.normal(size=(200, COLUMNS)).tolist()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        furnish(folder)
        for kind, word, file in (("model", "trees", "model.txt"), ("data", "people", "people.parquet")):
            subprocess.run([sys.executable, "-m", "millrace", "register", kind, word, file], cwd=folder, check=True)
        with up(folder) as port:
            bodies = [json.dumps({"model": "trees", "row": row, "form": "minimal"}).encode() for row in rows]
            for row in rows[:20]:
                ask(port, "/v1/explain", {"model": "trees", "row": row})
            alone = asyncio.run(load(port, bodies))
            told(bench, "alone", alone)
            batch = [
                ask(port, "/v1/explain", {"model": "trees", "batch": rows * 5, "form": "minimal"})["ms"]
                for _ in range(3)
            ]
            bench.figure("1,000 rows in one call", statistics.median(batch), "ms")
            causes = [f"c{j}" for j in range(COLUMNS)]
            question = {"data": "people", "treatment": "treated", "outcome": "y", "common_causes": causes,
                        "estimator": "matching", "simulations": 20_000, "tests": ["placebo", "subset"]}  # fmt: skip
            job = ask(port, "/v1/jobs", {"analysis": "refute", "question": question, "queue": "causal"})
            while not ask(port, f"/v1/jobs/{job['id']}")["progress"]["finished"]:
                time.sleep(0.5)
            beside = asyncio.run(load(port, bodies))
            assert ask(port, f"/v1/jobs/{job['id']}")["state"] == "running", "the heavy job ended too soon"
            told(bench, "beside a heavy job", beside)
            ask(port, f"/v1/jobs/{job['id']}", method="DELETE")
        bare(bench, folder, rows)
    bench.write()


def bare(bench: Bench, folder: Path, rows: list[list[float]]) -> None:
    """The same rows in this process: what HTTP adds is the difference."""
    import millrace as mr

    explainer = mr.explainer(str(folder / "model.txt"))
    found = []
    for row in rows:
        begin = time.perf_counter()
        explainer.row(row)
        found.append(1000 * (time.perf_counter() - begin))
    bench.figure("a row without HTTP: 50 % within", statistics.median(found), "ms")


if __name__ == "__main__":
    main()

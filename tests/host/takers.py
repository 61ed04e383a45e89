"""Processes that take tokens, for the tests: real ones, told what to do by their arguments and by files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from millrace.host.tokens import CoreTokens

PATIENCE_S = 120.0


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.005)


def start(folder: Path, do: str, cores: int = 2, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(folder), str(cores), do, *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def _hold(folder: Path, cores: int, count: int) -> None:
    """Hold so many tokens until stdin ends."""
    tokens = [CoreTokens(folder, cores) for _ in range(count)]
    for one in tokens:
        one.take()
    print("held", flush=True)
    sys.stdin.read()


def _turns(folder: Path, cores: int, number: int, piece_s: float) -> None:
    """Take and give back pieces until there is a file `stop`; a line a piece, and one for every core that was not ours
    alone. The first turn waits for `go`, so that all begin together."""
    tokens = CoreTokens(folder, cores)
    print("ready", flush=True)
    until(lambda: (folder / "go").exists(), "go")
    with open(folder / f"count-{number}", "ab", buffering=0) as told:
        while not (folder / "stop").exists():
            tokens.take()
            busy = folder / f"busy-{tokens.core}"
            try:
                os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                (folder / f"clash-{number}").touch()
            time.sleep(piece_s)
            busy.unlink(missing_ok=True)
            told.write(b".")
            tokens.release()


def _gate(folder: Path) -> None:
    """Stand in the gate until stdin ends."""
    import fcntl

    fd = os.open(folder / "gate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    place, cores, do, *more = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    if do == "hold":
        _hold(place, cores, int(more[0]))
    elif do == "gate":
        _gate(place)
    else:
        _turns(place, cores, int(more[0]), float(more[1]))

"""What it costs to ask for help, in processor time: a command line that is slow to say anything is not used.

Processor time, not wall time, and the least of several turns: neighbours on the machine make both larger, never
smaller. What a process loads beyond Python itself is told by name when something heavy slips in.
"""

from __future__ import annotations

import resource
import subprocess
import sys

from bench.harness import Bench

TURNS = 7
HOLD_MS = 250.0
HEAVY = ("numpy", "pandas", "pyarrow", "numba", "rich", "pydantic", "msgspec", "lightgbm", "scipy", "asyncio")
CASES: tuple[tuple[str, tuple[str, ...], float | None], ...] = (
    ("python itself", ("-c", "pass"), None),
    ("import millrace", ("-c", "import millrace"), HOLD_MS),
    ("millrace --help", ("-m", "millrace", "--help"), HOLD_MS),
    ("millrace explain --help", ("-m", "millrace", "explain", "--help"), None),
    ("millrace runs", ("-m", "millrace", "runs"), None),
)
LIGHT = (
    ("import millrace", "import millrace"),
    ("millrace --help", "from millrace.cli.main import main; main(['--help'])"),
)


def main() -> int:
    bench = Bench("startup")
    for work, arguments, hold in CASES:
        bench.figure(f"{work}, processor time", min(cpu_ms(arguments) for _ in range(TURNS)), "ms", hold)
    for work, statement in LIGHT:
        found = loaded(statement)
        bench.figure(f"{work}, heavy packages loaded {' '.join(found)}".rstrip(), len(found), "", 0)
    bench.write()
    return 0


def cpu_ms(arguments: tuple[str, ...]) -> float:
    """User and system time of one process, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def loaded(statement: str) -> list[str]:
    """Heavy packages that are there after a statement; asked of the process itself."""
    script = "import contextlib, io, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n    " + statement
    script += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return [name for name in HEAVY if name in done.stdout.split()]


if __name__ == "__main__":
    sys.exit(main())

"""The real command in a process of its own, as a person would call it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "millrace")


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What was said on stderr, in one line."""
        return " ".join(self.err.split())


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the machine's own settings, store and runs."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("MILLRACE_", "XDG_", "COV_"))}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **more}


def millrace(*arguments: object, at: Path, timeout_s: float = 240, **environ: str) -> Ended:
    """Call the command in the folder `at`, which is also its home."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=at,
        env=environment(at, **environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def is_one_paragraph(text: str) -> bool:
    """One line that says something, no traceback."""
    return bool(text.strip()) and "\n" not in text.strip() and "Traceback" not in text

"""`python -m bench [NAME ...]`: run the benchmarks named, or all, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ALL = (
    "startup", "store", "engine", "dask", "run", "sharing", "explain", "explain_kernel", "refute", "calibrate", "validate",
    "explain_stream", "plans", "twin", "twin_effects", "twin_speed", "jobs", "broker", "service", "scaling",
)  # fmt: skip


DOWHY = Path(".venv/dowhy/bin/python")
"""DoWhy has an environment of its own; refute is measured there, beside it, where it has been set up."""


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or ALL:
        print(f"\n== {name} ==", flush=True)
        python = str(DOWHY) if name == "refute" and DOWHY.exists() else sys.executable
        failed |= subprocess.run([python, "-m", f"bench.{name}"]).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())

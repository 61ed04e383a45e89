"""`python -m bench [NAME ...]`: run the benchmarks named, or all, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

ALL = (
    "startup", "store", "engine", "dask", "run", "sharing", "explain", "explain_kernel", "refute", "calibrate", "validate",
    "jobs",
    "service", "scaling",
)  # fmt: skip


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or ALL:
        print(f"\n== {name} ==", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())

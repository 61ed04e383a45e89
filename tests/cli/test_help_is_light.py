"""Help costs next to nothing: no heavy package is loaded, and the processor time is bounded."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import environment, millrace

HEAVY = {
    "numpy",
    "pandas",
    "pyarrow",
    "numba",
    "rich",
    "pydantic",
    "pydantic_core",
    "msgspec",
    "lightgbm",
    "scipy",
    "typer",
}
HELP_MS = 250.0


def loaded(at: Path, *arguments: str) -> set[str]:
    """Modules that are there after this command; asked of the process itself, as -X importtime passes over
    what importlib imports."""
    script = (
        "import sys, millrace\n"
        "if sys.argv[1:]:\n"
        "    from millrace.cli.main import main\n"
        "    assert main() == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=at, env=environment(at), capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [(), ("--help",), ("plan", "--help"), ("cache", "--help")], ids=" ".join)
def test_help_and_import_load_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = loaded(tmp_path, *arguments)
    assert "millrace" in found
    assert not found & HEAVY


def test_help_of_an_analysis_loads_its_question_and_no_numbers(tmp_path: Path) -> None:
    found = loaded(tmp_path, "explain", "--help")
    assert "millrace.analyses.explain.spec" in found
    assert not found & (HEAVY - {"pydantic", "pydantic_core"})


def test_help_takes_at_most_a_quarter_of_a_second_of_processor_time(tmp_path: Path) -> None:
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert millrace("--help", at=tmp_path).code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(1e3 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime))
    assert min(taken) <= HELP_MS  # of the least: neighbours make it larger, never smaller

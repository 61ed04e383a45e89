"""Help costs next to nothing: no heavy package is loaded. Its processor time is measured by bench/startup.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from terminal import environment

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

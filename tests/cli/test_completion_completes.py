"""What the shell asks when Tab is pressed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from terminal import millrace


def asked(words: str, at: Path) -> set[str]:
    """What bash would be offered for the last word."""
    done = millrace(
        at=at, _MILLRACE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    return {line.rpartition(",")[2] for line in done.out.splitlines()}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("millrace ex", "explain"),
        ("millrace plan ", "run"),
        ("millrace cache ev", "evict"),
        ("millrace explain --max", "--max-evaluations"),
        ("millrace explain --precision ", "float32"),
    ],
)
def test_commands_options_and_choices_are_offered(words: str, offered: str, tmp_path: Path) -> None:
    assert offered in asked(words, tmp_path)


def test_the_script_for_bash_is_one_that_bash_can_read(tmp_path: Path) -> None:
    done = millrace("--show-completion", "bash", at=tmp_path)
    assert done.code == 0
    assert "_MILLRACE_COMPLETE=bash_complete" in done.out
    assert subprocess.run(["bash", "-n"], input=done.out, text=True).returncode == 0

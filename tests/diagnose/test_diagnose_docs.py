"""Every command and snippet of the two pages runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import usual_pattern

from millrace.cli.main import main
from millrace.diagnose.findings import RULES

DOCS = Path(__file__).parents[2] / "docs"
SIMULATE = "def one(item):\n    return {'item': item, 'total': sum(i * i for i in range(2000 * item))}\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("desk")
    (here / "simulate.py").write_text(SIMULATE)
    (here / "items.jsonl").write_text("\n".join(map(str, range(20))))
    (here / "worker.log").write_text("\n".join(line.text for line in usual_pattern()))
    (here / "kubectl").write_text("#!/bin/sh\ncat worker.log\n")
    (here / "kubectl").chmod(0o755)
    return here


@pytest.mark.parametrize("page", ["diagnose.md", "coming-from-log-greps.md"])
def test_commands_run_as_they_stand(desk, page, monkeypatch, capsys):
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) > 4
    place = f"{desk}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for name, value in {"PATH": place, "XDG_CACHE_HOME": str(desk / "cache"), "HOME": str(desk)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for command in commands:
        program, *words = shlex.split(command)
        if program == "millrace" and "|" not in words:  # in this process: most of what they cost is importing
            code, told = main(words), capsys.readouterr().err
        else:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, check=False)
            code, told = done.returncode, done.stderr
        assert code == 0, (command, told)


def test_snippets_run_as_they_stand(desk, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(desk / "cache"))
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "diagnose.md").read_text(), re.DOTALL):
        exec(compile(block, "diagnose.md", "exec"), {})
    assert capsys.readouterr().out.startswith("1 ")


def test_every_finding_that_a_rule_may_tell_is_on_the_page():
    text = (DOCS / "diagnose.md").read_text()
    folder = Path(sys.modules[RULES[0].__module__].__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    told = set(re.findall(r'Finding\(\s*"([^"]+)"', source)) | {"duplicate simulations", "aggregation tasks"}
    assert len(told) > 15
    for name in told:
        assert name in text, name

"""The pages for users say what is so: their snippets run, in Python and on the command line, in the order of the page."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.analyses.validate.kernels.jail import LAYERS
from millrace.analyses.validate.writing import CODES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["validate", "coming-from-arc-scripts"])
def test_every_snippet_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = (DOCS / f"{page}.md").read_text()
    space = {"__name__": "page"}
    for number, (kind, snippet) in enumerate(re.findall(r"^```(python|console)\n(.*?)^```$", text, re.M | re.S), 1):
        if kind == "python":
            exec(compile(snippet, f"docs/{page}.md, snippet {number}", "exec"), space)
        else:
            (tmp_path / "tasks").mkdir()
            (tmp_path / "tasks" / "t.json").write_text(json.dumps(space["task"]))
            lines = [json.dumps({"id": str(i), "source": s}) for i, s in enumerate(space["programs"])]
            (tmp_path / "programs.jsonl").write_text("\n".join(lines))
            run_commands(snippet)
    if page == "validate":
        assert list(space["answer"].verdicts().values()) == ["pass", "pass", "wrong", "cpu_limit"]
        assert (tmp_path / "validated" / "matrix.png").exists() and list((tmp_path / "best").rglob("*.py"))
        assert (tmp_path / "inlined" / "inlined.jsonl").exists()


def run_commands(text):
    for line in text.splitlines():
        words = shlex.split(line.removeprefix("$ "))
        command = [str(Path(sys.executable).with_name("millrace")), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr


def test_the_page_names_every_verdict_and_layer():
    text = (DOCS / "validate.md").read_text()
    for name in (*CODES[1:], "rejected", *LAYERS):
        assert f"`{name}`" in text, name

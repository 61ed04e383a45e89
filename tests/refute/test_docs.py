"""The page for users says what is so: its snippets run, in Python and on the command line, in the order of the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from millrace.analyses.refute import gate
from millrace.analyses.refute.spec import ESTIMATORS, TESTS
from millrace.analyses.refute.verdicts import DEFAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "refute.md").read_text()
SNIPPETS = re.findall(r"^```(python|console)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_snippet_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for number, (kind, text) in enumerate(SNIPPETS, 1):
        if kind == "python":
            exec(compile(text, f"docs/refute.md, snippet {number}", "exec"), space)
        else:
            _run(text)
    assert (tmp_path / "refuted" / "report.html").exists()
    assert (tmp_path / "refuted-too" / "result.json").exists()
    assert space["chosen"].common_causes == ("age", "severity")  # type: ignore[attr-defined]
    assert space["clustered"].estimate.how == "cluster"  # type: ignore[attr-defined]
    assert any("stopped there" in note for note in space["own"].notes)  # type: ignore[attr-defined]


def _run(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "))
        assert words[0] == "millrace", line
        command = [str(Path(sys.executable).with_name("millrace")), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_the_page_names_every_test_estimator_and_gate() -> None:
    for name in (*TESTS, *ESTIMATORS, *gate.RULES):
        assert f"`{name}`" in PAGE, name


def test_the_thresholds_of_the_page_are_the_defaults() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in PAGE.splitlines() if line.startswith("| `")}
    for test in ("subset", "bootstrap"):
        for low, high in (getattr(DEFAULTS, f"{test}_pass"), getattr(DEFAULTS, f"{test}_warning")):
            assert f"{low:g}".removeprefix("0") + " .. " + f"{high:g}" in rows[test], test
    assert f"p >= {DEFAULTS.blocks_pass:g}".replace("0.", ".") in rows["blocks"]
    assert f"p >= {DEFAULTS.blocks_warning:g}".replace("0.", ".") in rows["blocks"]
    assert f"<= {DEFAULTS.placebo_errors:g} sd/sqrt(B)" in rows["placebo"]
    assert f"<= {DEFAULTS.random_cause_pass:g} se".replace("0.", ".") in rows["random_common_cause"]
    assert f"<= {DEFAULTS.smd_pass:g}".replace("0.", ".") in rows["overlap"]
    assert f"{100 * DEFAULTS.outside_pass:g} % outside" in rows["overlap"]
    assert f">= {100 * DEFAULTS.ess_pass:g} % of the rows" in rows["overlap"]
    assert {f.name for f in fields(DEFAULTS)} >= set(re.findall(r"random_cause_matching|smd_pass", PAGE))


def test_the_weights_of_the_page_are_those_of_the_gates() -> None:
    table = PAGE.partition("## The gate")[2].partition("```")[0]
    for rule, column in (("default", 2), ("classic", 3)):
        for line in table.splitlines():
            cells = line.split("|")
            if len(cells) < 5 or not re.match(r" [a-z_, ]+ $", cells[1]) or cells[1].strip() == "test":
                continue
            names = [n.strip() for n in cells[1].split(",")]
            given = re.findall(r"(?<![\d])\.?\d+|-", cells[column])
            given = given * len(names) if len(given) == 1 and "each" in cells[column] else given
            for name, weight in zip(names, given, strict=False):
                wanted = gate.RULES[rule].weights.get(name)
                assert wanted == (None if weight == "-" else float(weight)), (rule, name)
            for name in names:
                critical = name in gate.RULES[rule].critical
                assert critical == ("critical" in cells[column]), (rule, name)

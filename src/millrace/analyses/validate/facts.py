"""What the plan needs to know of a question: counts, read from names and sizes of files where these tell them."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

from millrace.analyses.validate.cases import read_cases
from millrace.analyses.validate.plan import Facts
from millrace.analyses.validate.spec import Spec

SAMPLE_BYTES = 1 << 20


def facts(spec: Spec) -> Facts:
    """Counts of `spec`; candidates None where only reading them would tell."""
    cases = read_cases(spec.cases)
    tasks = max(1, len(cases.by_task))
    each = max(1, round(cases.count / tasks))
    count = _count(spec.candidates)
    if count is not None and spec.limit is not None:
        count = min(count, spec.limit)
    refereed = any(case.kind != "compare" for group in cases.by_task.values() for case in group)
    return Facts(
        count if count is not None else spec.limit, each, spec.memory_bytes, spec.top, spec.isolation, refereed
    )


def _count(source: object) -> int | None:
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return sum(1 for _ in path.rglob("*.py"))
        if path.suffix in (".jsonl", ".ndjson") and path.exists():
            return _lines(path)
        return path.read_text().count("\ndef solve_") if path.suffix == ".py" and path.exists() else None
    return len(source) if isinstance(source, Sized) else None


def _lines(path: Path) -> int:
    """How many lines; of a long file by the length of its first ones."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    lines = max(1, head.count(b"\n"))
    return lines if size <= SAMPLE_BYTES else round(lines * size / len(head))

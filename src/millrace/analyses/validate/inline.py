"""`validate inline`: candidates in their canonical form, one line each; equal programs have equal digests. Runs no program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from millrace.analyses.validate.analysis import BLOCK, search_path
from millrace.analyses.validate.candidates import Candidate, read_candidates
from millrace.analyses.validate.cases import Cases
from millrace.analyses.validate.kernels import judge
from millrace.analyses.validate.kernels.cell import survey
from millrace.analyses.validate.spec import Names
from millrace.run.answer import Saved
from millrace.run.keys import content_key
from millrace.run.run import Run

NAME = "inlined.jsonl"


class Spec(BaseModel):
    """Which programs are written in their canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    candidates: Any = Field(description="a folder of .py files, a .py file of functions solve_<task>, or a .jsonl file")
    library: Names = Field((), description="modules that programs may use")
    entry: str | None = Field(None, description="the function that counts (not given: the last one of a program)")
    limit: int | None = Field(None, ge=1, description="the first N candidates")


@dataclass(frozen=True, slots=True)
class Inlined(Saved):
    """table: the file of JSON lines, one a candidate: id, digest, size, lane, source, or id and rejected. rows, programs,
    rejected: how many there are, how many distinct ones, how many are no program."""

    table: Path
    rows: int
    programs: int
    rejected: int
    digest: str
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    def findings(self) -> list[str]:
        return [f"{self.rows:,} candidates are {self.programs:,} distinct programs; {self.rejected:,} are none."]

    def summary(self) -> str:
        return self.findings()[0]

    def as_dict(self) -> dict[str, Any]:
        return {"candidates": self.rows, "programs": self.programs, "rejected": self.rejected}

    def charts(self) -> dict[str, dict[str, Any]]:
        return {}

    def write_tables(self, folder: Path) -> list[Path]:
        import shutil

        if folder / NAME != self.table:
            shutil.copyfile(self.table, folder / NAME)
        return [folder / NAME]


def inline(spec: Spec, run: Run) -> Inlined:
    """Read every candidate; a line each, in candidate order."""
    names, _ = survey(spec.library, search_path(spec.candidates))
    table, digest = Path(run.ledger.path.parent) / NAME, content_key("")
    run.progress("reading programs")
    seen: set[str] = set()
    rows = rejected = 0
    pending: list[list[Candidate]] = []
    coming = _blocks(read_candidates(spec.candidates, Cases({}), spec.entry or "", spec.limit), pending)
    with table.open("w") as file:
        for forms in run.map(judge.read_block, coming, shared=(names,), name="read programs"):
            for candidate, form in zip(pending.pop(0), forms, strict=True):
                rows += 1
                rejected += "rejected" in form
                seen.add(form.get("digest", ""))
                line = json.dumps({"id": candidate.id, **form}, ensure_ascii=False)
                digest = content_key((digest, line))
                file.write(line + "\n")
    return Inlined(table, rows, len(seen - {""}), rejected, digest, notes=tuple(run.notes))


def _blocks(candidates: Iterator[Candidate], pending: list[list[Candidate]]) -> Iterator[list[tuple[str | bytes, str]]]:
    block: list[Candidate] = []
    for candidate in candidates:
        block.append(candidate)
        if len(block) == BLOCK:
            pending.append(block)
            yield [(c.source, c.entry) for c in block]
            block = []
    if block:
        pending.append(block)
        yield [(c.source, c.entry) for c in block]

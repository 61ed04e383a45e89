"""The result of validate: a verdict on every candidate, and the best of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.answer import Saved
from millrace.run.keys import content_key
from millrace.run.units import format_figure

if TYPE_CHECKING:
    import pyarrow

    from millrace.analyses.validate.entrants import Entrant

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Winner:
    """One of the best programs. score: in [0, 1]; cpu_s: of all its cases, the median of repeats alone in a fresh process;
    verified: it got the same verdicts there (None: a deadline came first)."""

    id: str
    task: str
    passes: int
    cases: int
    score: float
    size: int
    digest: str
    source: str
    verified: bool | None
    cpu_s: float | None

    @classmethod
    def of(cls, entrant: Entrant, verified: bool | None, cpu_s: float | None) -> Winner:
        program = entrant.program
        return cls(
            entrant.candidate.id, entrant.candidate.task, entrant.passes, len(entrant.cases), entrant.score,
            program["size"], program["digest"], program["source"], verified, cpu_s,
        )  # fmt: skip

    @property
    def timeless(self) -> tuple[Any, ...]:
        return self.id, self.task, self.passes, self.cases, self.score, self.size, self.digest, self.verified


@dataclass(frozen=True)  # no slots: what is computed on demand is kept
class Validation(Saved):
    """table: the Parquet file with one row a candidate: number, id, task, verdict, detail, passes, score, failed_at (index of
    the case that decided, -1 for none), cases and scores (of each case; see `writing.CODES`), size, digest, lane, same_as
    (number of the first candidate that is the same program, -1 when it is this one), cpu_s.

    counts: candidates by verdict; programs: distinct ones; layers: of the jail, in force when they ran; cases: their labels by
    task; whole: every candidate was decided.
    """

    table: Path
    counts: Mapping[str, int]
    programs: int
    rows: int
    rows_digest: str
    winners: tuple[Winner, ...]
    layers: tuple[str, ...]
    cases: Mapping[str, tuple[str, ...]]
    stop: str
    scale: float
    whole: bool
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @cached_property
    def digest(self) -> str:
        return content_key([self.rows_digest, [w.timeless for w in self.winners], self.whole])

    @property
    def says_no(self) -> bool:
        """No candidate passes."""
        return not self.counts.get("pass")

    def rows_of(self, *columns: str) -> pyarrow.Table:
        """The table, or some of its columns, in memory."""
        from pyarrow import parquet

        return parquet.read_table(self.table, columns=list(columns) or None)

    def verdicts(self) -> dict[str, str]:
        """Verdict by candidate id."""
        read = self.rows_of("id", "verdict")
        return dict(zip(read["id"].to_pylist(), read["verdict"].to_pylist(), strict=True))

    def findings(self) -> list[str]:
        passed = self.counts.get("pass", 0)
        count = sum(map(len, self.cases.values()))
        said = [
            f"{passed:,} of {self.rows:,} candidates pass ({self.programs:,} distinct programs, {count:,} "
            f"{'case' if count == 1 else 'cases'})."
        ]
        others = [f"{n:,} {verdict}" for verdict, n in sorted(self.counts.items()) if verdict != "pass"]
        if others:
            said.append(f"Of the others: {', '.join(others)}.")
        if not self.whole:
            said.append("The deadline came first: candidates that were not decided have no row.")
        said.append(f"They ran behind {', '.join(self.layers) or 'no layer of the jail'}.")
        return said

    def summary(self) -> str:
        lines = self.findings()
        for winner in self.winners[:SHOWN]:
            task = f" of {winner.task}" if winner.task else ""
            time = "" if winner.cpu_s is None else f", {1e3 * winner.cpu_s:.3g} ms"
            odd = {None: ", not verified", False: ", NOT the same when alone", True: ""}[winner.verified]
            score = format_figure(winner.score * self.scale)
            lines.append(
                f"{winner.id}{task}: {winner.passes} of {winner.cases} cases, score {score}, {winner.size} nodes{time}{odd}"
            )
        if len(self.winners) > SHOWN:
            lines.append(f"and {len(self.winners) - SHOWN} more in winners.parquet")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        winners = [{n: getattr(w, n) for n in w.__slots__ if n != "source"} for w in self.winners]
        return {
            "candidates": self.rows, "programs": self.programs, "verdicts": dict(self.counts), "winners": winners,
            "layers": list(self.layers), "cases": sum(map(len, self.cases.values())), "whole": self.whole,
        }  # fmt: skip

    def write_tables(self, folder: Path) -> list[Path]:
        import pyarrow
        from pyarrow import parquet

        table, winners = folder / self.table.name, folder / "winners.parquet"
        if table != self.table:
            shutil.copyfile(self.table, table)
        columns = {name: [getattr(w, name) for w in self.winners] for name in Winner.__slots__}
        parquet.write_table(pyarrow.table(columns), winners)
        return [table, winners]

    def charts(self) -> dict[str, dict[str, Any]]:
        from millrace.analyses.validate import views

        return views.charts(self)

    def plot(self, kind: str = "matrix") -> Any:
        """A picture by name, see `views`."""
        from millrace.analyses.validate import views

        return views.plot(self, kind)

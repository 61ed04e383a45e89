"""The answer of assess: every measure, a score and a grade from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from millrace.run.answer import Saved
from millrace.run.keys import content_key

GRADES = ((0.95, "excellent"), (0.88, "good"), (0.75, "fair"), (-1.0, "poor"))


@dataclass(frozen=True)
class Fidelity(Saved):
    """shapes: float64 (columns,); trends: (columns, columns); c2st: AUC, .5 is perfect; gains: what each column gave the
    classifier away. margins: of three columns, beside real rows' own (None: not known). utility: target, kind, twins, real.
    violations: twins that break a constraint, by constraint. coverage: outcome, promised, held, rows. It and privacy are None
    without a holdout."""

    model: str
    columns: tuple[str, ...]
    rows: int
    unseen: bool
    shapes: Any
    trends: Any
    c2st: float
    gains: Any
    margins: float
    margins_real: float | None
    utility: Mapping[str, Any] | None
    violations: Mapping[str, int]
    privacy: Mapping[str, Any] | None
    pictures: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coverage: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        said = [
            self.model,
            self.shapes,
            self.trends,
            self.c2st,
            self.margins,
            dict(self.utility or {}),
            dict(self.violations),
        ]
        beside = [] if self.coverage is None else [dict(self.coverage)]
        return content_key([*said, dict(self.privacy or {}), *beside])

    @property
    def shape(self) -> float:
        return float(numpy.mean(self.shapes))

    @property
    def trend(self) -> float:
        d = len(self.columns)
        return float(self.trends[numpy.triu_indices(d, 1)].mean()) if d > 1 else 1.0

    @property
    def score(self) -> float:
        """Mean of shape, trend, 1 - 2 |C2ST - .5| and, where a target is known, utility beside that of real rows."""
        parts = [self.shape, self.trend, 1.0 - 2.0 * abs(self.c2st - 0.5)]
        if self.utility is not None:
            base = 0.5 if self.utility["kind"] == "AUC" else 0.0
            gain = self.utility["real"] - base
            if gain > 0.02:
                parts.append(float(numpy.clip((self.utility["twins"] - base) / gain, 0.0, 1.0)))
        return float(numpy.mean(parts)) if not sum(self.violations.values()) else 0.0

    @property
    def grade(self) -> str:
        return next(name for least, name in GRADES if self.score >= least)

    @property
    def says_no(self) -> bool:
        return self.grade == "poor"

    # -- for people --------------------------------------------------------------------------------------------------
    def findings(self) -> list[str]:
        where = "held-out real rows" if self.unseen else "the real rows"
        said = [
            f"Fidelity {self.score:.3f} ({self.grade}): {self.rows:,} {where} beside as many twins of {self.model}.",
            f"Shape {self.shape:.4f}, trend {self.trend:.4f}, margins of three columns {self.margins:.4f}"
            + (f" (real rows among themselves {self.margins_real:.4f})." if self.margins_real is not None else "."),
            f"A classifier tells twins from real rows with an AUC of {self.c2st:.3f} (0.5: not at all){self._by()}.",
        ]
        if self.utility is not None:
            u = self.utility
            said.append(
                f"Trained on twins, {u['target']} is predicted with {u['kind']} {u['twins']:.3f}; "
                f"trained on real rows with {u['real']:.3f}."
            )
        broken = {k: v for k, v in self.violations.items() if v}
        said.append(
            f"{sum(broken.values()):,} violations of constraints: {', '.join(broken)}."
            if broken
            else "No twin breaks a constraint."
        )
        if self.coverage is not None:
            c = self.coverage
            said.append(
                f"Intervals of {c['outcome']} that promise {c['promised']:.0%} hold {c['held']:.1%} of {c['rows']:,} held-out "
                "rows."
            )
        if self.privacy is None:
            said.append("Privacy: unknown without held-out rows.")
        else:
            p = self.privacy
            said.append(
                f"Privacy: {p['share_nearer']:.1%} of the twins are nearer to a training row than to a held-out one (50 % is "
                f"ideal); who was in training is guessed with an AUC of {p['membership']:.3f} (0.5: not at all); "
                f"{p['copies']:.2%} of the twins equal a training row ({p['copies_held']:.2%} equal a held-out one)."
            )
        return said

    def _by(self) -> str:
        if self.c2st < 0.55 or not self.gains.sum():
            return ""
        top = numpy.argsort(-self.gains)[:3]
        return f", most by {', '.join(self.columns[j] for j in top)}"

    def page_tables(self) -> dict[str, list[list[Any]]]:
        """Every measure beside what is ideal."""
        p, real = self.privacy, self.margins_real
        rows: list[list[Any]] = [
            ["measure", "is", "ideal"],
            ["shape of single columns", f"{self.shape:.4f}", "1"],
            ["trend of pairs", f"{self.trend:.4f}", "1"],
            ["margins of three columns", f"{self.margins:.4f}", "1" if real is None else f"{real:.4f} of real rows"],
            ["a classifier between them (AUC)", f"{self.c2st:.3f}", "0.5"],
        ]
        if self.utility is not None:
            u = self.utility
            rows.append([
                f"{u['target']} learnt from twins ({u['kind']})", f"{u['twins']:.3f}", f"{u['real']:.3f} from real rows",
            ])  # fmt: skip
        rows.append(["twins that break a constraint", f"{sum(self.violations.values()):,}", "0"])
        if self.coverage is not None:
            c = self.coverage
            rows.append([f"rows that intervals of {c['outcome']} hold", f"{c['held']:.1%}", f"{c['promised']:.0%}"])
        if p is not None:
            rows += [
                ["nearer to a training row than to a held-out one", f"{p['share_nearer']:.1%}", "50%"],
                ["who was in training, guessed (AUC)", f"{p['membership']:.3f}", "0.5"],
                [
                    "twins that equal a training row",
                    f"{p['copies']:.2%}",
                    f"{p['copies_held']:.2%} equal a held-out one",
                ],
            ]
        return {"Measures": rows}

    def summary(self) -> str:
        return "\n".join(self.findings())

    def as_dict(self) -> dict[str, Any]:
        p = self.privacy
        return {
            "model": self.model, "score": self.score, "grade": self.grade, "rows": self.rows, "held_out": self.unseen,
            "shape": self.shape, "trend": self.trend, "c2st": self.c2st, "margins": self.margins,
            "margins_real": self.margins_real,
            "utility": None if self.utility is None else dict(self.utility), "violations": dict(self.violations),
            "coverage": None if self.coverage is None else dict(self.coverage),
            "privacy": None if p is None else {k: v for k, v in p.items() if isinstance(v, float)},
            "columns": {n: float(s) for n, s in zip(self.columns, self.shapes, strict=True)},
        }  # fmt: skip

    def charts(self) -> dict[str, dict[str, Any]]:
        return dict(self.pictures)

    def write_tables(self, folder: Path) -> list[Path]:
        """columns.parquet (shape and what gave each away), pairs.parquet (trend of each pair)."""
        import pyarrow
        from pyarrow import parquet

        share = self.gains / max(1e-12, float(self.gains.sum()))
        parquet.write_table(
            pyarrow.table({"column": list(self.columns), "shape": self.shapes, "told_by": share}),
            folder / "columns.parquet",
        )
        a, b = numpy.triu_indices(len(self.columns), 1)
        pairs = {
            "first": [self.columns[i] for i in a],
            "second": [self.columns[i] for i in b],
            "trend": self.trends[a, b],
        }
        parquet.write_table(pyarrow.table(pairs), folder / "pairs.parquet")
        return [folder / "columns.parquet", folder / "pairs.parquet"]

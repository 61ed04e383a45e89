"""The result of refute: the estimate, what each test said of it, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.refute.gate import Gate
from millrace.analyses.refute.laws import normal_point, student_point
from millrace.analyses.refute.overlap import Overlap
from millrace.analyses.refute.sensitivity import Sensitivity
from millrace.analyses.refute.study import Fit
from millrace.analyses.refute.verdicts import TestResult, Thresholds
from millrace.analyses.refute.words import figure, listed
from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import pyarrow

WORST = {"proceed": 0, "review": 1, "block": 2}


@dataclass(frozen=True)
class Part:
    """One estimate. label: "" when it is the only one. rows: complete cases; treated: of them, None for a number. effects: by
    test, float64 (simulations, 2), effects and standard errors (NaN where there are none). records: one plain mapping a
    test, for tables of such records."""

    label: str
    outcome: str
    treatment: str
    rows: int
    treated: int | None
    estimate: Fit
    tests: tuple[TestResult, ...]
    gate: Gate
    effects: Mapping[str, Any]
    times_s: Mapping[str, float]
    overlap: Overlap | None
    sensitivity: Sensitivity | None
    records: tuple[Mapping[str, Any], ...]

    def test(self, name: str) -> TestResult:
        for found in self.tests:
            if found.name == name:
                return found
        raise WrongQuestion(f"There was no test {name!r}; there were {', '.join(t.name for t in self.tests)}.")

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the normal law; by Student's with the degrees of freedom of least squares, or of the clusters less one."""
        fit = self.estimate
        df = (
            fit.details["clusters"] - 1
            if "clusters" in fit.details
            else fit.df
            if numpy.isfinite(fit.se_classic)
            else 0
        )
        reach = fit.se * (student_point(0.975, df) if df > 0 else normal_point(0.975))
        return fit.effect - reach, fit.effect + reach

    def sentence(self, of: str, estimator: str, unit: str) -> str:
        low, high = self.interval
        many = f"{self.rows:,} rows" + (f", {self.treated:,} of them treated" if self.treated is not None else "")
        spread = f" (95 % interval {figure(low)} to {figure(high)})" if numpy.isfinite(low) else ""
        found = f"{figure(self.estimate.effect)}{spread}"
        return f"The effect of {self.treatment} on {of} is {found}, by {estimator} on {many}{unit}."


@dataclass(frozen=True)  # no slots: what is computed on demand is kept
class Refutation(Saved):
    """All estimates that were asked for, each with its tests and its gate. The properties speak of the first one."""

    parts: tuple[Part, ...]
    estimator: str
    target: str
    common_causes: tuple[str, ...]
    data_digest: str
    thresholds: Thresholds
    seed: int = 0
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    # -- what it is ------------------------------------------------------------------------------------------------
    @property
    def digest(self) -> str:
        """Of the answer alone: equal on every engine, under every budget, from every store."""
        said = [
            (p.label, p.estimate.effect, p.estimate.se, [(t.name, t.status, t.statistic, t.p_value) for t in p.tests],
             p.gate.decision, {name: numpy.asarray(found) for name, found in p.effects.items()})
            for p in self.parts
        ]  # fmt: skip
        return content_key((self.estimator, self.target, self.data_digest, said))

    @property
    def estimate(self) -> Fit:
        return self.parts[0].estimate

    @property
    def tests(self) -> tuple[TestResult, ...]:
        return self.parts[0].tests

    @property
    def gate(self) -> Gate:
        """The worst one, of several estimates."""
        return max((p.gate for p in self.parts), key=lambda g: WORST[g.decision])

    @property
    def score(self) -> float | None:
        return self.gate.score

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.gate.reasons

    @property
    def says_no(self) -> bool:
        """The gate blocks."""
        return self.gate.decision == "block"

    @property
    def records(self) -> list[dict[str, Any]]:
        """One legacy-shaped record a test (test_name, status, original_effect, refuted_effect, p_value, delta_percent, details,
        execution_time_ms); with several estimates each also has `estimate`."""
        named = len(self.parts) > 1
        return [{**({"estimate": p.label} if named else {}), **r} for p in self.parts for r in p.records]

    # -- tables ----------------------------------------------------------------------------------------------------
    @property
    def table(self) -> pyarrow.Table:
        """One row a test of an estimate: what came out, and the sentence."""
        import pyarrow

        names = ("name", "status", "statistic", "p_value", "threshold", "refuted_effect", "delta_percent", "simulations",
                 "failed_simulations", "direction", "false_alarm", "sentence")  # fmt: skip
        rows = [
            {"estimate": p.label, "effect": p.estimate.effect, "se": p.estimate.se} | {n: getattr(t, n) for n in names}
            for p in self.parts
            for t in p.tests
        ]
        return pyarrow.Table.from_pylist(rows)

    @property
    def simulated(self) -> pyarrow.Table:
        """One row a simulation: estimate, test, its number, effect, standard error."""
        import pyarrow

        parts = []
        for p in self.parts:
            for test, found in p.effects.items():
                n = len(found)
                parts.append(
                    pyarrow.table({
                        "estimate": pyarrow.array([p.label] * n, pyarrow.string()),
                        "test": pyarrow.array([test] * n, pyarrow.string()),
                        "simulation": numpy.arange(n), "effect": found[:, 0].copy(), "standard_error": found[:, 1].copy(),
                    })
                )  # fmt: skip
        empty = {"estimate": pyarrow.string(), "test": pyarrow.string(), "simulation": pyarrow.int64(),
                 "effect": pyarrow.float64(), "standard_error": pyarrow.float64()}  # fmt: skip
        return pyarrow.concat_tables(parts) if parts else pyarrow.schema(empty).empty_table()

    @property
    def balance(self) -> pyarrow.Table:
        """One row a column of confounders: difference between the arms before and after adjustment."""
        import pyarrow

        rows = []
        for p in self.parts:
            if p.overlap is not None:
                o = p.overlap
                rows += [
                    {"estimate": p.label, "confounder": name, "measure": o.kind, "before": float(b), "after": float(a)}
                    for name, b, a in zip(o.names, o.before, o.after, strict=True)
                ]
        return pyarrow.Table.from_pylist(rows)

    def write_tables(self, folder: Path) -> list[Path]:
        """tests.parquet, simulations.parquet and, where overlap was looked at, balance.parquet."""
        from pyarrow import parquet

        made = {"tests": self.table, "simulations": self.simulated, "balance": self.balance}
        paths = []
        for name, table in made.items():
            if table.num_columns:
                parquet.write_table(table, folder / f"{name}.parquet", compression="zstd")
                paths.append(folder / f"{name}.parquet")
        return paths

    # -- for people ------------------------------------------------------------------------------------------------
    def findings(self) -> list[str]:
        """Sentences, only from the numbers."""
        said = []
        for p in self.parts:
            of = f"{p.outcome}, {p.label}," if p.label and p.label != p.outcome else p.outcome
            said.append(
                p.sentence(of, _by(self.estimator, self.target), f", adjusted for {listed(self.common_causes)}")
            )
            said.append(f"{p.gate.sentence[0].upper()}{p.gate.sentence[1:]}")
            said += [t.sentence for t in p.tests]
        return said

    def summary(self) -> str:
        lines = []
        for p in self.parts:
            of = f"{p.outcome}, {p.label}," if p.label and p.label != p.outcome else p.outcome
            lines.append(p.sentence(of, _by(self.estimator, self.target), ""))
            wide = max((len(t.name) for t in p.tests), default=0)
            lines += [f"  {t.name:<{wide}}  {t.status:<7}  {t.reason}" for t in p.tests]
            lines.append(f"{p.gate.sentence[0].upper()}{p.gate.sentence[1:]}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "estimator": self.estimator,
            "target": self.target,
            "common_causes": list(self.common_causes),
            "data_digest": self.data_digest,
            "decision": self.gate.decision,
            "score": self.score,
            "estimates": [self._part(p) for p in self.parts],
        }

    def _part(self, p: Part) -> dict[str, Any]:
        low, high = (v if numpy.isfinite(v) else None for v in p.interval)
        return {
            "label": p.label, "treatment": p.treatment, "outcome": p.outcome, "rows": p.rows, "treated": p.treated,
            "effect": p.estimate.effect, "se": p.estimate.se if numpy.isfinite(p.estimate.se) else None, "how": p.estimate.how,
            "interval": [low, high], "decision": p.gate.decision, "score": p.gate.score, "reasons": list(p.gate.reasons),
            "effective_rows": None if p.overlap is None else list(p.overlap.ess), "tests": [dict(r) for r in p.records],
        }  # fmt: skip

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs of the first estimate: tests, effects of each test, contour, tipping point, balance, overlap,
        specifications."""
        from millrace.analyses.refute import views

        p, unit = self.parts[0], f"units of {self.parts[0].outcome}"
        made = {"tests": views.overview(p.tests, p.gate.decision, p.gate.score)}
        for name, found in p.effects.items():
            if name != "specification":
                made[name] = views.effects(
                    p.test(name), found[:, 0], p.estimate.effect, unit, promised_sd=_promised(p, name)
                )
        if p.sensitivity is not None:
            made["contour"] = views.contour(p.sensitivity, unit)
            made["tipping_point"] = views.tipping(p.sensitivity, unit)
        if p.overlap is not None:
            made["balance"] = views.love(p.overlap, self.thresholds)
            seen = views.propensity(p.overlap)
            if seen is not None:
                made["overlap"] = seen
        if "specification" in p.effects:
            rows = p.test("specification").details["specifications"]
            found = p.effects["specification"]
            labels = [row["specification"] for row in rows]
            made["specifications"] = views.specifications(labels, found[:, 0], found[:, 1], p.estimate.effect, unit)
        return made

    def plot(self, kind: str = "tests") -> Any:
        """A chart that notebooks show; its kinds are the names in `charts()`."""
        import altair

        made = self.charts()
        if kind not in made:
            raise WrongQuestion(f"There is no picture {kind!r} of this refutation; there are {', '.join(made)}.")
        return altair.Chart.from_dict(made[kind])


def _by(estimator: str, target: str) -> str:
    """How it was estimated, and of whom, in words."""
    known = {
        "ols": "least squares", "ols_interacted": "least squares with interactions", "ipw": "inverse propensity weights",
        "aipw": "the doubly robust estimator", "dml": "double machine learning", "matching": "matching",
    }  # fmt: skip
    of = {"ate": "", "att": " of those who were treated,", "atc": " of those who were not treated,"}[target]
    return f"{known.get(estimator, f'your estimator {estimator}')}{of}"


def _promised(p: Part, test: str) -> float | None:
    """The spread that the standard error promises."""
    fit = p.estimate
    if not numpy.isfinite(fit.se):
        return None
    if test == "bootstrap":
        return fit.se
    if test == "subset":
        expected = p.test("subset").details.get("expected_sd")
        return float(expected) if expected else None
    return None

"""The result of `twin simulate`: what each intervention would do, how surely, for whom, at what cost, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin.intervention import Intervention
from millrace.analyses.twin.power import Experiment
from millrace.analyses.twin.recommend import Recommendation
from millrace.analyses.twin.simulate_measures import Estimate, Group, Targeting
from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.units import format_figure as figure

SHOWN = 8


def share(value: float) -> str:
    """A share as people write it: 57%, and 0.1% where it is small."""
    return f"{value:.0%}" if value >= 0.01 or value == 0 else f"{value:.1%}" if value >= 0.001 else "less than 0.1%"


@dataclass(frozen=True)
class Scenario:
    """One intervention. ate: effect on a unit that is offered it; att: on one that takes it up. groups: of the `by` columns.
    best: chance that it is the best of all scenarios. experiment: that would show the effect; seen: the chance that one on half
    of the real eligible rows against the other half would see it. net: money of offering it to all, a unit."""

    intervention: Intervention
    twins: int
    eligible: int
    ate: Estimate
    att: Estimate
    groups: tuple[Group, ...]
    targeting: Targeting
    recommendation: Recommendation
    experiment: Experiment | None
    seen: float | None
    best: float
    net: float | None

    @property
    def name(self) -> str:
        return self.intervention.name

    def sentences(self, outcome: str, level: float) -> list[str]:
        i, a, t = self.intervention, self.ate, self.targeting
        said = [
            f"{self.name} changes {outcome} by {figure(a.effect)} for each of the {self.eligible:,} eligible twins that is "
            "offered it "
            f"({level:.0%} interval {figure(a.low)} to {figure(a.high)}), and by {figure(self.att.effect)} for one that takes "
            "it up; "
            f"effect {i.label}.",
            self.recommendation.sentence,
        ]
        if t.best:
            money = f", for {figure(t.spent)}" + (f" and {figure(t.net_total)} net" if t.net_total is not None else "")
            said.append(
                f"Treat the first {share(t.best / t.eligible)} by effect ({figure(t.units)} units): {figure(t.gain_total)} "
                f"{outcome}{money}."
            )
        if self.experiment is not None:
            e = self.experiment
            days = "" if e.days is None else f" over {figure(e.days)} days"
            said.append(
                f"A real experiment would need {e.n_treated:,} treated and {e.n_control:,} others{days} to see "
                f"{figure(e.effect)} with a "
                f"chance of {e.power:.0%}."
            )
        told = [g for g in self.groups if g.p < 1 - level]
        if told:
            said.append(
                "Corrected for their number, groups with an effect: "
                + "; ".join(f"{g.name} {figure(g.effect)} ({figure(g.low)} to {figure(g.high)})" for g in told[:SHOWN])
                + (f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
                + "."
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        i, t = self.intervention, self.targeting
        return {
            "name": self.name, "effect_source": i.effect.source, "label": i.label, "eligible": self.eligible, "twins": self.twins,
            "ate": _estimate(self.ate), "att": _estimate(self.att), "recommendation": self.recommendation.action,
            "rule": self.recommendation.rule, "reason": self.recommendation.reason, "best": self.best, "net": self.net,
            "groups": [{n: getattr(g, n) for n in Group.__slots__} for g in self.groups],
            "targeting": {"treat": t.best, "of": t.eligible, "units": t.units, "gain": t.gain_total, "cost": t.spent,
                          "net": t.net_total, "threshold": t.threshold if t.best else None},
            "experiment": None if self.experiment is None else {n: getattr(self.experiment, n) for n in Experiment.__slots__},
            "seen": self.seen,
        }  # fmt: skip


def _estimate(e: Estimate) -> dict[str, Any]:
    return {"effect": e.effect, "low": e.low, "high": e.high, "se": e.se, "parts": dict(e.parts)}


@dataclass(frozen=True)
class Simulation(Saved):
    """scenarios: the best first. outcome: what is changed; question: treatment, columns that were adjusted for and the model's
    digest, by which it is handed on. uplift: of the effect model on real rows that it had not seen, None where there is none.
    The properties speak of the first scenario."""

    scenarios: tuple[Scenario, ...]
    outcome: str
    level: float
    question: Mapping[str, Any]
    fidelity: float | None = None
    uplift: Mapping[str, Any] | None = field(default=None, repr=False)
    overlap: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)
    refuter: Callable[..., Any] | None = field(default=None, repr=False)
    learnt_from: tuple[Any, int | None] | None = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> Scenario:
        return self.scenarios[0]

    @property
    def recommendation(self) -> Recommendation:
        return self.first.recommendation

    @property
    def ate(self) -> Estimate:
        return self.first.ate

    @property
    def att(self) -> Estimate:
        return self.first.att

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.first.groups

    @property
    def says_no(self) -> bool:
        """No scenario is to be deployed."""
        return all(s.recommendation.action != "deploy" for s in self.scenarios)

    def scenario(self, name: str) -> Scenario:
        for s in self.scenarios:
            if s.name == name:
                return s
        raise WrongQuestion(
            f"No intervention {name!r} was simulated; there are {', '.join(repr(s.name) for s in self.scenarios)}."
        )

    @property
    def digest(self) -> str:
        said = [s.as_dict() for s in self.scenarios]
        rows = [numpy.asarray(s.targeting.rows) for s in self.scenarios]
        return content_key([self.outcome, self.level, self.question["model"], said, rows])

    def refute(self, data: Any = None, **more: Any) -> Any:
        """Try to break the effect that was learned: `mr.refute` of the same treatment, outcome and columns, on the real rows.
        data: these rows; not needed where the model was fitted in this process. A model's folder does not hold them. more: as
        `mr.refute`'s."""
        if "learned" not in {s.intervention.effect.source for s in self.scenarios}:
            raise WrongQuestion("No effect of this simulation was learned from data: there is nothing to refute.")
        if self.refuter is None:
            raise WrongQuestion(
                "This simulation was read from a folder: call mr.refute(data, treatment, outcome, ...) with its question."
            )
        if data is None:
            data = self._rows()
        q = self.question
        given = {"common_causes": list(q["common_causes"]), "estimator": "aipw", **more}
        return self.refuter(data, q["treatment"], q["outcome"], **given)

    def _rows(self) -> Any:
        """Those that the model was fitted on in this process."""
        from millrace.analyses.twin.features import as_table

        if self.learnt_from is None:
            raise WrongQuestion(
                "The model was read from a folder, which does not hold the rows that its effect was learned from: give them, "
                ".refute(rows)."
            )
        given, limit = self.learnt_from
        return given if limit is None else as_table(given, limit=limit)

    # -- for people ------------------------------------------------------------------------------------------------------
    def findings(self) -> list[str]:
        said = self.first.sentences(self.outcome, self.level)
        said += [" ".join(s.sentences(self.outcome, self.level)[:2]) for s in self.scenarios[1:]]
        if len(self.scenarios) > 1:
            s = self.first
            said.insert(
                0,
                f"Of {len(self.scenarios)} scenarios {s.name} comes first; the chance that it is the best is {s.best:.0%}.",
            )
        return said

    def page_tables(self) -> dict[str, list[list[Any]]]:
        """The interventions, the best first; whom to treat; effects on groups, corrected for their number."""
        from millrace.analyses.twin import simulate_tables

        return simulate_tables.tables(self)

    def summary(self) -> str:
        wide = max(len(s.name) for s in self.scenarios)
        lines = [f"Effect on {self.outcome} of each unit that is offered it, {self.level:.0%} intervals"]
        for s in self.scenarios:
            net = "" if s.net is None else f"  net {figure(s.net)} a unit"
            lines.append(
                f"  {s.name:<{wide}}  {figure(s.ate.effect):>8}  {figure(s.ate.low)} to {figure(s.ate.high)}{net}  "
                f"[{s.intervention.effect.source}]  {s.recommendation.action.upper()}"
            )
        for s in self.scenarios[:3]:
            lines += [f"{s.name}: {s.recommendation.sentence}", *s.sentences(self.outcome, self.level)[2:]]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome, "level": self.level, "question": dict(self.question), "fidelity": self.fidelity,
            "recommendation": self.recommendation.action, "scenarios": [s.as_dict() for s in self.scenarios],
        }  # fmt: skip

    def write_tables(self, folder: Path) -> list[Path]:
        """scenarios.parquet, groups.parquet, targeting.parquet: a row a scenario, a group, a point of the curve; and
        treat.parquet, the twins to treat, by the number of their row."""
        import pyarrow
        from pyarrow import parquet

        scenarios = [
            {"intervention": s.name, "source": s.intervention.effect.source, "eligible": s.eligible, "effect": s.ate.effect,
             "low": s.ate.low, "high": s.ate.high, "se": s.ate.se, **{f"sd_{n}": v for n, v in s.ate.parts.items()},
             "effect_taken_up": s.att.effect, "net": s.net, "best": s.best, "action": s.recommendation.action,
             "rule": s.recommendation.rule, "reason": s.recommendation.reason}
            for s in self.scenarios
        ]  # fmt: skip
        groups = [
            {"intervention": s.name, **{n: getattr(g, n) for n in Group.__slots__}}
            for s in self.scenarios
            for g in s.groups
        ]
        made = {"scenarios": pyarrow.Table.from_pylist(scenarios)}
        if groups:
            made["groups"] = pyarrow.Table.from_pylist(groups)
        made["targeting"] = pyarrow.concat_tables([
            pyarrow.table({"intervention": [s.name] * len(s.targeting.share), "share": s.targeting.share,
                           "gain": s.targeting.gain,
                           "cost": s.targeting.cost}) for s in self.scenarios
        ])  # fmt: skip
        made["treat"] = pyarrow.concat_tables([
            pyarrow.table({"intervention": pyarrow.array([s.name] * len(s.targeting.rows), pyarrow.string()),
                           "twin": pyarrow.array(s.targeting.rows, pyarrow.int64())}) for s in self.scenarios
        ])  # fmt: skip
        for name, table in made.items():
            parquet.write_table(table, folder / f"{name}.parquet")
        return [folder / f"{name}.parquet" for name in made]

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs: scenarios, doubts, groups, uplift, overlap."""
        from millrace.analyses.twin import simulate_views

        return simulate_views.charts(self)

    def plot(self, kind: str = "scenarios") -> Any:
        """A chart that notebooks show; its kinds are the names in `charts()`."""
        import altair

        made = self.charts()
        if kind not in made:
            raise WrongQuestion(f"There is no picture {kind!r} of this simulation; there are {', '.join(made)}.")
        sized = {"width": 640} if made[kind].get("width") == "container" else {}
        return altair.Chart.from_dict({**made[kind], **sized})


def with_refuter(answer: Simulation, refuter: Callable[..., Any], model: Any) -> Simulation:
    """The simulation with the way to refute, which a face knows, and with the rows where the model still has them."""
    return replace(answer, refuter=refuter, learnt_from=getattr(getattr(model, "effects", None), "learnt_from", None))

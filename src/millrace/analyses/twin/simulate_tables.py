"""Tables of a simulation's report: interventions, whom to treat, experiments, groups. Figures as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millrace.run.units import format_figure as figure

if TYPE_CHECKING:
    from millrace.analyses.twin.simulate_answer import Scenario, Simulation

Rows = list[list[Any]]
MOST_GROUPS = 60


def tables(answer: Simulation) -> dict[str, Rows]:
    """By title; what there is nothing to show of is left out."""
    made = {"Interventions": interventions(answer)}
    if any(s.targeting.best for s in answer.scenarios):
        made["Whom to treat"] = targeting(answer)
    if any(s.experiment is not None for s in answer.scenarios):
        made["Experiments that would show it"] = experiments(answer)
    if answer.groups:
        made[f"Groups: {answer.first.name}"] = groups(answer)
    return made


def interventions(answer: Simulation) -> Rows:
    money = any(s.net is not None for s in answer.scenarios)
    head = ["intervention", "do", "because", "effect", f"{answer.level:.0%} interval", "its effect is"]
    rows: Rows = [[*head, *["net, a unit"] * money]]
    for s in answer.scenarios:
        net = [figure(s.net) if s.net is not None else "not known"] if money else []
        rows.append([
            s.name, s.recommendation.action, s.recommendation.rule, figure(s.ate.effect), _interval(s.ate.low, s.ate.high),
            s.intervention.effect.source, *net,
        ])  # fmt: skip
    return rows


def targeting(answer: Simulation) -> Rows:
    from millrace.analyses.twin.simulate_answer import share

    head = ["intervention", "first, by effect", "units", f"gain in {answer.outcome}", "cost", "net"]
    return [
        head,
        *([*_who(s, share(s.targeting.best / s.targeting.eligible))] for s in answer.scenarios if s.targeting.best),
    ]


def _who(s: Scenario, first: str) -> list[str]:
    t = s.targeting
    net = figure(t.net_total) if t.net_total is not None else "not known"
    return [s.name, first, figure(t.units), figure(t.gain_total), figure(t.spent), net]


def experiments(answer: Simulation) -> Rows:
    rows: Rows = [["intervention", "to see an effect of", "treated", "others", "days", "power"]]
    for s in answer.scenarios:
        if s.experiment is not None:
            e = s.experiment
            days = "not known" if e.days is None else figure(e.days)
            rows.append([s.name, figure(e.effect), f"{e.n_treated:,}", f"{e.n_control:,}", days, f"{e.power:.0%}"])
    return rows


def groups(answer: Simulation) -> Rows:
    head = ["group", "twins", "effect", "interval of all groups at once", "of it alone", "p, by Holm"]
    shown = answer.groups[:MOST_GROUPS]
    rows: Rows = [
        [
            g.name,
            f"{g.of:,}",
            figure(g.effect),
            _interval(g.low, g.high),
            _interval(g.plain_low, g.plain_high),
            f"{g.p:.2g}",
        ]
        for g in shown
    ]
    left = len(answer.groups) - len(shown)
    return [head, *rows, *([[f"and {left:,} more, in groups.parquet", "", "", "", "", ""]] if left else [])]


def _interval(low: float, high: float) -> str:
    return f"{figure(low)} to {figure(high)}"

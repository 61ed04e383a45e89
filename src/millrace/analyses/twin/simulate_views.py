"""Pictures of a simulation and of a model's record as Vega-Lite specs (plain dicts).

Each says its finding in the title and how to read it in the caption. Colour says what is recommended, shapes say it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from millrace.run.units import format_figure as figure

if TYPE_CHECKING:
    from millrace.analyses.twin.simulate_answer import Scenario, Simulation
    from millrace.analyses.twin.track import Tracking

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, LIGHT_BLUE, ORANGE, RED, GREY = "#2f7fc4", "#5a97cf", "#bd7400", "#d0481f", "#8b94a1"
ACTIONS = {"deploy": (BLUE, "circle"), "refine": (ORANGE, "triangle-up"), "skip": (GREY, "square")}
PARTS = {
    "effect": "the effect itself", "model": "ways of modelling it", "sampling": "the real sample", "adoption": "adoption",
    "twins": "number of twins",
}  # fmt: skip
SHADES = ("#2f7fc4", "#bd7400", "#5d8f3f", "#8a5fb0", "#8b94a1")
MOST_GROUPS = 40


def charts(answer: Simulation) -> dict[str, Spec]:
    """All pictures by name; what there is nothing to show of is left out."""
    made = {"scenarios": scenarios(answer), "doubts": doubts(answer), "targeting": targeting(answer)}
    if answer.groups:
        made["groups"] = groups(answer)
    if answer.uplift is not None:
        made["uplift"] = uplift(answer.uplift, answer.outcome)
    if answer.overlap is not None:
        made["overlap"] = overlap(answer.overlap)
    return made


def of_effects(model: Any) -> dict[str, Spec]:
    """Pictures of an effect model."""
    return {"uplift": uplift(model.uplift, model.outcome), "overlap": overlap(model.overlap)}


def scenarios(answer: Simulation) -> Spec:
    """Effect of each scenario with its interval."""
    rows = [
        {"name": s.name, "effect": s.ate.effect, "low": s.ate.low, "high": s.ate.high, "action": s.recommendation.action,
         "rule": s.recommendation.rule, "source": s.intervention.effect.source}
        for s in answer.scenarios
    ]  # fmt: skip
    first = answer.first
    title = f"{first.name}: {figure(first.ate.effect)} a unit that is offered it. {first.recommendation.action.capitalize()}"
    shown = [a for a in ACTIONS if any(r["action"] == a for r in rows)]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": [r["name"] for r in rows],
        "title": None,
        "axis": {"labelLimit": 170},
    }
    x = {"type": "quantitative", "title": f"effect on {answer.outcome}"}
    key = {"orient": "top", "title": None}
    colour = {
        "field": "action",
        "type": "nominal",
        "scale": {"domain": shown, "range": [ACTIONS[a][0] for a in shown]},
        "legend": key,
    }
    shape = {**colour, "scale": {"domain": shown, "range": [ACTIONS[a][1] for a in shown]}}
    tip = [_tip("name", "intervention"), _tip("effect", "effect"), _tip("low", "from"), _tip("high", "to"), _tip("rule", "rule"),
           _tip("source", "effect is")]  # fmt: skip
    return _spec(
        title, f"Points: effect of each unit that is offered it. Lines: {answer.level:.0%} intervals.",
        f"Effects of {len(rows)} interventions. {title}.", height=30 * len(rows), data={"values": rows},
        layer=[
            {"mark": {"type": "rule", "color": GREY, "strokeDash": [3, 3]}, "encoding": {"x": {"datum": 0, **x}}},
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}, "color": colour}},
            {"mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"y": y, "x": {"field": "effect", **x}, "color": colour, "shape": shape, "tooltip": tip}},
        ],
    )  # fmt: skip


def doubts(answer: Simulation) -> Spec:
    """Why each effect is unsure: shares of its variance."""
    rows = []
    for s in answer.scenarios:
        whole = sum(v**2 for v in s.ate.parts.values()) or 1.0
        rows += [
            {"name": s.name, "part": PARTS[n], "share": v**2 / whole, "sd": v, "order": place}
            for place, (n, v) in enumerate((n, s.ate.parts[n]) for n in PARTS)
        ]
    first = answer.first
    largest = max(first.ate.parts, key=lambda n: first.ate.parts[n])
    title = f"{first.name} is unsure most of all because of {PARTS[largest]}"
    names = list(PARTS.values())
    return _spec(
        title, "Shares of the variance of each effect. More twins make only the last of them smaller.",
        f"What makes effects unsure. {title}.", height=26 * len(answer.scenarios), data={"values": rows}, mark={"type": "bar"},
        encoding={
            "y": {"field": "name", "type": "nominal", "sort": [s.name for s in answer.scenarios], "title": None,
                  "axis": {"labelLimit": 170}},
            "x": {"field": "share", "type": "quantitative", "title": "share of the variance", "axis": {"format": "%"},
                  "scale": {"domain": [0, 1]}},
            "color": {"field": "part", "type": "nominal", "scale": {"domain": names, "range": list(SHADES)},
                      "legend": {"orient": "bottom", "title": None, "columns": 1}},
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [_tip("part", "because of"), _tip("sd", "standard deviation"), _tip("share", "share of the variance")],
        },
    )  # fmt: skip


def groups(answer: Simulation) -> Spec:
    """Effects on groups of the first scenario, with plain and corrected intervals."""
    shown = answer.groups[:MOST_GROUPS]
    rows = [
        {"name": g.name, "effect": g.effect, "low": g.low, "high": g.high, "plain_low": g.plain_low, "plain_high": g.plain_high,
         "of": g.of, "p": g.p}
        for g in shown
    ]  # fmt: skip
    told = [g for g in shown if g.p < 1 - answer.level]
    count = f"{len(told)} of {len(shown)} groups have" if len(told) != 1 else f"1 of {len(shown)} groups has"
    title = f"{answer.first.name}: {count} an effect, corrected for their number"
    x = {"type": "quantitative", "title": f"effect on {answer.outcome}"}
    y = {
        "field": "name",
        "type": "nominal",
        "sort": [r["name"] for r in rows],
        "title": None,
        "axis": {"labelLimit": 170},
    }
    tip = [_tip("name", "group"), _tip("of", "twins"), _tip("effect", "effect"), _tip("low", "from"), _tip("high", "to"),
           _tip("p", "p, by Holm")]  # fmt: skip
    return _spec(
        title, f"Thick: {answer.level:.0%} interval of a group alone. Thin: of all at once (Bonferroni).",
        f"Effects on groups. {title}.", height=22 * len(rows), data={"values": rows},
        layer=[
            {"mark": {"type": "rule", "color": GREY, "strokeDash": [3, 3]}, "encoding": {"x": {"datum": 0, **x}}},
            {"mark": {"type": "rule", "color": LIGHT_BLUE}, "encoding": {"x": {"datum": answer.ate.effect, **x}}},
            {"mark": {"type": "rule", "color": BLUE}, "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
            {"mark": {"type": "rule", "color": BLUE, "strokeWidth": 4, "opacity": 0.6},
             "encoding": {"y": y, "x": {"field": "plain_low", **x}, "x2": {"field": "plain_high"}}},
            {"mark": {"type": "point", "filled": True, "size": 60, "color": BLUE},
             "encoding": {"y": y, "x": {"field": "effect", **x}, "tooltip": tip}},
        ],
    )  # fmt: skip


def targeting(answer: Simulation) -> Spec:
    """What treating the first share of the twins gains, in money where a value is given."""
    from millrace.analyses.twin.simulate_answer import share

    money = answer.first.targeting.net is not None
    rows = []
    paying = [s for s in answer.scenarios if s.targeting.best] or [answer.first]
    for s in paying:
        t = s.targeting
        values = t.net if t.net is not None else t.gain
        rows += [{"name": s.name, "share": float(a), "gain": float(b)} for a, b in zip(t.share, values, strict=True)]
    marks = [_best(s) for s in paying if s.targeting.best]
    t = answer.first.targeting
    title = (
        f"{answer.first.name}: treat the first {share(t.best / t.eligible)} by effect"
        if t.best
        else "Nobody is worth treating"
    )
    x = {"type": "quantitative", "title": "share of the eligible twins that is treated", "axis": {"format": "%"}}
    what = "net money" if money else f"gain in {answer.outcome}"
    y = {"type": "quantitative", "title": f"{what}, for each eligible twin"}
    names = [s.name for s in paying]
    colour = {
        "field": "name",
        "type": "nominal",
        "scale": {"domain": names},
        "legend": {"orient": "top", "title": None, "columns": 2},
    }
    return _spec(
        title, "Treated first are those with the largest effect, as the model has it. Points: as far as it pays.",
        f"What targeting gains. {title}.", height=240,
        layer=[
            {"data": {"values": rows}, "mark": {"type": "line"},
             "encoding": {"x": {"field": "share", **x}, "y": {"field": "gain", **y}, "color": colour}},
            {"data": {"values": marks}, "mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"x": {"field": "share", **x}, "y": {"field": "gain", **y}, "color": colour,
                          "tooltip": [_tip("name", "intervention"), _tip("share", "share"), _tip("units", "units")]}},
        ],
    )  # fmt: skip


def _best(s: Scenario) -> Mapping[str, Any]:
    t = s.targeting
    values = t.net if t.net is not None else t.gain
    share = t.best / t.eligible
    return {"name": s.name, "share": share, "gain": float(numpy.interp(share, t.share, values)), "units": t.units}


def uplift(found: Mapping[str, Any], outcome: str) -> Spec:
    """What ranking by the learned effect gains on real rows that it had not seen, beside treating at random."""
    u = {n: numpy.asarray(v) for n, v in found.items()}
    low, high = u["gain"] - 1.96 * u["se"], u["gain"] + 1.96 * u["se"]
    rows = [
        {"share": float(a), "gain": float(b), "low": float(c), "high": float(d), "even": float(a * u["gain"][-1])}
        for a, b, c, d in zip(u["share"], u["gain"], low, high, strict=True)
    ]
    half = len(u["share"]) // 2
    more = float(u["gain"][half] - u["share"][half] * u["gain"][-1])
    title = f"Treating the better half gains {figure(u['gain'][half])}, {figure(more)} more than a random half"
    x = {
        "field": "share",
        "type": "quantitative",
        "title": "share of the real rows that is treated, best first",
        "axis": {"format": "%"},
    }
    y = {"type": "quantitative", "title": f"gain in {outcome} for each row"}
    return _spec(
        title, "Blue: ranked by effects that were learned without these rows, with a 95 % band. Grey: at random.",
        f"Uplift on real rows. {title}.", height=240, data={"values": rows},
        layer=[
            {"mark": {"type": "area", "color": LIGHT_BLUE, "opacity": 0.25},
             "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}}},
            {"mark": {"type": "line", "color": GREY, "strokeDash": [4, 3]}, "encoding": {"x": x, "y": {"field": "even", **y}}},
            {"mark": {"type": "line", "color": BLUE}, "encoding": {"x": x, "y": {"field": "gain", **y}}},
        ],
    )  # fmt: skip


def overlap(o: Any) -> Spec:
    """Chances of treatment of both arms."""
    rows = [
        {"low": float(o.edges[i]), "high": float(o.edges[i + 1]), "share": float(o.histogram[arm][i]), "arm": name}
        for arm, name in enumerate(("not treated", "treated"))
        for i in range(len(o.edges) - 1)
    ]
    low, high = o.limits
    title = f"{o.outside:.1%} of the real rows have a chance of treatment outside {low} to {high}"
    x = {"type": "quantitative", "title": "chance of treatment", "scale": {"domain": [0, 1]}}
    return _spec(
        title, "Shares of the real rows of each arm. Where only one arm is, there is nobody to compare with.",
        f"Overlap of treated and others. {title}.", height=220,
        layer=[
            {"data": {"values": rows}, "mark": {"type": "bar", "opacity": 0.55},
             "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"},
                          "y": {"field": "share", "type": "quantitative", "title": "share of the arm", "stack": None,
                                "axis": {"format": "%"}, "scale": {"domainMin": 0}},
                          "y2": {"datum": 0},
                          "color": {"field": "arm", "type": "nominal", "legend": {"orient": "top", "title": None},
                                    "scale": {"domain": ["not treated", "treated"], "range": [GREY, BLUE]}}}},
            {"data": {"values": [{"at": low}, {"at": high}]}, "mark": {"type": "rule", "color": RED, "strokeDash": [3, 3]},
             "encoding": {"x": {"field": "at", **x}}},
        ],
    )  # fmt: skip


def history(tracking: Tracking) -> Spec:
    """Simulated and real effects of a model's record."""
    grades = {"excellent": BLUE, "good": LIGHT_BLUE, "fair": ORANGE, "poor": RED}
    rows = [
        {"number": i + 1, "predicted": r.predicted, "low": r.low, "high": r.high, "actual": r.actual, "grade": r.grade,
         "name": r.intervention, "at": r.at}
        for i, r in enumerate(tracking.history)
    ]  # fmt: skip
    s = tracking.score
    title = f"Fidelity {s.fidelity:.2f}: the last result is {tracking.grade}"
    x = {"field": "number", "type": "ordinal", "title": "result", "axis": {"labelAngle": 0}}
    y = {"type": "quantitative", "title": "effect"}
    colour = {"field": "grade", "type": "nominal", "legend": {"orient": "top", "title": None},
              "scale": {"domain": list(grades), "range": list(grades.values())}}  # fmt: skip
    tip: Sequence[Spec] = [
        _tip("name", "intervention"),
        _tip("predicted", "simulated"),
        _tip("actual", "real"),
        _tip("grade", "grade"),
    ]
    return _spec(
        title, "Lines: simulated intervals. Points: real effects, coloured by grade.", f"Simulated and real effects. {title}.",
        width=max(160, min(640, 40 * len(rows))), height=220, data={"values": rows},
        layer=[
            {"mark": {"type": "rule", "color": GREY, "strokeWidth": 3},
             "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}}},
            {"mark": {"type": "tick", "color": GREY, "thickness": 2}, "encoding": {"x": x, "y": {"field": "predicted", **y}}},
            {"mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"x": x, "y": {"field": "actual", **y}, "color": colour, "tooltip": list(tip)}},
        ],
    )  # fmt: skip


def _tip(field: str, title: str) -> Spec:
    return {"field": field, "title": title}


def _spec(title: str, caption: str, description: str, **more: Any) -> Spec:
    return {
        "$schema": SCHEMA,
        "description": description,
        "title": {"text": title, "subtitle": caption, "anchor": "start"},
        "background": "transparent",
        "width": "container",
        **more,
    }

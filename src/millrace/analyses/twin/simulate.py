"""`twin simulate`: what interventions would do to the twins of a model.

The order of work: the question read and checked (see `simulate_question`); blocks of twins, a task each (see
`simulate_blocks`); effects with all their doubts from sums over blocks in block order (see `simulate_measures`); the real
experiment that would show them; a recommendation (see `recommend`); scenarios ranked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin import power, simulate_blocks, simulate_measures, simulate_plan, track_record
from millrace.analyses.twin.deadline import whole
from millrace.analyses.twin.intervention import Intervention
from millrace.analyses.twin.model import TwinModel
from millrace.analyses.twin.plan import block_rows
from millrace.analyses.twin.recommend import Evidence, decide
from millrace.analyses.twin.simulate_answer import Scenario, Simulation
from millrace.analyses.twin.simulate_measures import LEAST_GROUP, Doubts, Draws, Estimate, Group
from millrace.analyses.twin.simulate_question import ATTEMPTS, Asked, read_question, rows_of
from millrace.analyses.twin.simulate_spec import Simulate as Spec
from millrace.run.errors import WrongQuestion
from millrace.run.run import Run

LEAST_ELIGIBLE = 100
DRAWS_OF_DOUBT = 21
"""Where the random numbers of the doubts begin, among those of the run."""

Array = numpy.ndarray[Any, Any]


def simulate(spec: Spec, run: Run) -> Simulation:
    """Answer the question. `WrongQuestion` for what the model cannot tell, and for fewer than 100 eligible twins."""
    run.progress("reading the question")
    asked = read_question(spec, run)
    n = rows_of(asked.twins) if asked.twins else spec.n
    run.follow(simulate_plan.plan_simulate(simulate_plan.facts(spec, asked.model, asked.interventions, n), run.budget))
    parts = _measured(asked, run)
    found = simulate_measures.draws(run.rng(DRAWS_OF_DOUBT))
    fidelity, record = _fidelity(spec, asked.model)
    rows = numpy.concatenate([[0], numpy.cumsum([block[0]["rows"] for block in parts])])
    made, several = [], []
    for i, intervention in enumerate(asked.interventions):
        scenario, draws = _scenario(
            _Gathered.of([block[i] for block in parts], rows), intervention, asked, found, fidelity, run
        )
        made.append(scenario)
        several.append(draws if scenario.net is None else draws * spec.value_per_unit - intervention.cost_per_unit)
    ranked = _ranked(made, several, spec)
    effects = asked.model.effects
    learned = any(i.effect.source == "learned" for i in asked.interventions)
    return Simulation(
        scenarios=ranked,
        outcome=_outcome(asked.model),
        level=spec.level,
        question=_question(asked, record),
        fidelity=fidelity,
        uplift=effects.uplift if learned else None,
        overlap=effects.overlap if learned else None,
        notes=tuple(run.notes),
    )


def _question(asked: Asked, record: Path | None) -> dict[str, Any]:
    """By which the simulation is handed on."""
    effects = asked.model.effects
    return {
        "model": asked.model.name, "where": asked.where, "goal": asked.spec.goal,
        "treatment": None if effects is None else effects.treatment, "outcome": _outcome(asked.model),
        "common_causes": [] if effects is None else list(effects.encoding.names),
        "record": None if record is None else str(record),
    }  # fmt: skip


def _outcome(model: TwinModel) -> str:
    for part in (model.effects, model.outcome):
        if part is not None:
            return str(part.outcome)
    return "the outcome"


# -- blocks --------------------------------------------------------------------------------------------------------------
def _measured(asked: Asked, run: Run) -> list[list[dict[str, Any]]]:
    """By block, by intervention: what `simulate_blocks.measure` told."""
    model, spec = asked.model, asked.spec
    sources = {i.effect.source for i in asked.interventions}
    needed = [n for n, source in (("effects", "learned"), ("outcome", "structural")) if source in sources]
    plain = {n: getattr(model, n).plain if n in needed else None for n in ("effects", "outcome")}
    said = {
        "model": f"{model.digest} {' '.join(needed)}", "where": asked.where, "seed": run.seed, "attempts": ATTEMPTS,
        "twins": asked.twins,
        "interventions": [i.model_dump() for i in asked.interventions], "groups": [dict(g) for g in asked.groups],
    }  # fmt: skip
    if asked.twins:
        from pyarrow import parquet

        items = [(g, 0) for g in range(parquet.ParquetFile(asked.twins).metadata.num_row_groups)]
        said["file"] = _fingerprint(asked.twins)
    else:
        size = block_rows(len(model.columns))
        items = [(begin, min(begin + size, spec.n)) for begin in range(0, spec.n, size)]
    run.progress("twins", len(items))
    shared = tuple(
        None if part is None else run.share(part) for part in (model.plain, plain["effects"], plain["outcome"])
    )
    tasks = (
        run.task(
            simulate_blocks.measure, item, *shared, said, resources=(simulate_blocks.held,), keep=True, name="twins"
        )
        for item in items
    )
    values = whole(run.values(tasks, True, "twins"), len(items), "twins")
    return [run.value(v) for v in values]


def _fingerprint(path: str) -> list[Any]:
    """What tells one content of a file from another: size, and the digest of its footer."""
    import hashlib

    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 20)))
        return [size, hashlib.blake2b(file.read(), digest_size=16).hexdigest()]


@dataclass(frozen=True)
class _Gathered:
    """All blocks of one intervention: rows (m,) numbers of the eligible twins, effect (m,), codes (groups, m), sums by group, and
    moments of the outcome; twins: how many there were."""

    rows: Array
    effect: Array
    codes: Array
    sums: Mapping[str, Array]
    outcome: Array
    twins: int

    @classmethod
    def of(cls, blocks: Sequence[Mapping[str, Any]], begins: Array) -> _Gathered:
        rows = numpy.concatenate([b["eligible"] + begin for b, begin in zip(blocks, begins, strict=False)])
        effect = numpy.concatenate([b["effect"] for b in blocks])
        codes = numpy.concatenate([b["codes"] for b in blocks], axis=1)
        sums = {name: sum(numpy.asarray(b["sums"][name]) for b in blocks) for name in blocks[0]["sums"]}
        return cls(rows, effect, codes, sums, sum(b["outcome"] for b in blocks), int(begins[-1]))


# -- one scenario --------------------------------------------------------------------------------------------------------
def _scenario(
    g: _Gathered, intervention: Intervention, asked: Asked, found: Draws, fidelity: float | None, run: Run
) -> tuple[Scenario, Array]:
    spec = asked.spec
    if len(g.rows) < LEAST_ELIGIBLE:
        raise WrongQuestion(
            f"{intervention.name}: {len(g.rows)} of {g.twins:,} twins are eligible, and {LEAST_ELIGIBLE} are the least of "
            "which anything "
            "can be told. Widen eligible or where, or draw more twins (n)."
        )
    sign = 1.0 if spec.goal == "higher" else -1.0
    real = asked.model.known["rows"] * asked.share
    effect, doubts = _effect(g, "", numpy.ones(len(g.rows), bool), intervention, asked.model, found, real)
    ate = simulate_measures.estimate(effect, doubts, intervention, found, spec.level)
    att = simulate_measures.estimate(effect, doubts, intervention, found, spec.level, offered=False)
    per_row = (g.effect + effect - g.effect.mean()) * intervention.intensity * intervention.adoption.mean * sign
    units = (spec.population or g.twins) / g.twins
    targeting = simulate_measures.target(
        per_row, g.rows, intervention.cost_per_unit, spec.value_per_unit, spec.budget, units
    )
    low, high = sorted((sign * ate.low, sign * ate.high))
    smallest = spec.smallest_effect(intervention.cost_per_unit)
    advice = decide(Evidence(sign * ate.effect, low, high, smallest, fidelity, spec.least_fidelity))
    experiment, seen = _experiment(g, ate, intervention, spec, real * len(g.rows) / g.twins)
    groups = _groups(g, intervention, asked, found, real, run)
    net = None if spec.value_per_unit is None else sign * ate.effect * spec.value_per_unit - intervention.cost_per_unit
    several = sign * simulate_measures.told(effect, doubts, intervention, found)
    return Scenario(
        intervention, g.twins, len(g.rows), ate, att, groups, targeting, advice, experiment, seen, 1.0, net
    ), several


def _effect(
    g: _Gathered, name: str, inside: Array, intervention: Intervention, model: TwinModel, found: Draws, real: float
) -> tuple[float, Doubts]:
    """(effect on those of a group that take it up, its doubts)."""
    values = g.effect[inside]
    count, mean, spread = len(values), float(values.mean()), float(values.std())
    source = intervention.effect.source
    se = model_se = 0.0
    effect = mean
    if source == "learned":
        effect, se = model.effects.of_group(g.sums[name] / count)
        model_se = abs(effect - mean) / 2
    elif source == "structural":
        model_se = simulate_measures.jackknife(numpy.asarray(g.sums[name]) / count)
    noise = simulate_measures.noise_of(intervention, se, found)
    behind = max(1.0, real * count / g.twins)
    return effect, Doubts(noise, model_se, spread / math.sqrt(behind), spread / math.sqrt(count))


def _groups(
    g: _Gathered, intervention: Intervention, asked: Asked, found: Draws, real: float, run: Run
) -> tuple[Group, ...]:
    names, counts, effects, several, few = [], [], [], [], []
    times = intervention.intensity * intervention.adoption.mean
    for group, codes in zip(asked.groups, g.codes, strict=True):
        for level, label in enumerate(group["labels"]):
            name, inside = f"{group['name']}={label}", codes == level
            count = int(inside.sum())
            if count < LEAST_GROUP:
                few += [f"{name} ({count})"]
                continue
            effect, doubts = _effect(g, name, inside, intervention, asked.model, found, real)
            names.append(name)
            counts.append(count)
            effects.append(times * effect)
            several.append(simulate_measures.told(effect, doubts, intervention, found))
    if few:
        run.note(
            f"{intervention.name}: groups of fewer than {LEAST_GROUP} eligible twins are left out: {', '.join(few[:10])}."
        )
    return tuple(simulate_measures.corrected(names, counts, effects, several, asked.spec.level))


def _experiment(
    g: _Gathered, ate: Estimate, intervention: Intervention, spec: Spec, real: float
) -> tuple[power.Experiment | None, float | None]:
    """(the experiment that would see the effect, or the smallest of interest when that is larger; the chance that the real
    eligible rows, half and half, would see the effect). Nothing where no outcome is known."""
    count, total, squares = g.outcome
    if count < 2:
        return None, None
    variance = max(0.0, (squares - total**2 / count) / (count - 1))
    if not variance > 0:
        return None, None
    times = intervention.intensity * intervention.adoption.mean
    sd = math.sqrt(variance)
    treated = math.sqrt(variance + (times * float(g.effect.std())) ** 2)
    effect = max(abs(ate.effect), spec.smallest)
    made = power.sample_size(effect, treated, sd, alpha=1 - spec.level, wanted=spec.power, attrition=spec.attrition)
    seen = power.power(ate.effect, real / 2, real / 2, treated, sd, 1 - spec.level)
    if made is None:
        return None, seen
    days = power.duration_days(made.n, intervention.duration_days, intervention.starts_per_day)
    return power.Experiment(made.effect, made.alpha, made.power, made.n_treated, made.n_control, days), seen


# -- scenarios -----------------------------------------------------------------------------------------------------------
def _ranked(made: Sequence[Scenario], several: Sequence[Array], spec: Spec) -> tuple[Scenario, ...]:
    """By net money, or by effect where no value is given; with the chance of each to be the best."""
    stacked = numpy.stack(several)
    best = numpy.bincount(stacked.argmax(axis=0), minlength=len(made)) / stacked.shape[1]
    order = sorted(range(len(made)), key=lambda i: -float(stacked[i].mean()))
    return tuple(replace(made[i], best=float(best[i])) for i in order)


def _fidelity(spec: Spec, model: TwinModel) -> tuple[float | None, Path | None]:
    """(fidelity of the model's past results, where these are recorded)."""
    place = track_record.place(spec.record, spec.model, model)
    if spec.fidelity is not None:
        return spec.fidelity, place
    past = track_record.read(place) if place is not None else ()
    return (track_record.score(past).fidelity if past else None), place

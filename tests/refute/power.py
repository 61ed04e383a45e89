"""False alarms and power: how often each test does not pass, in seeded worlds of which the truth is known.

    python tests/refute/power.py --write     measures again, and rewrites the table in docs/refute.md

Every world is asked about through `mr.refute`, as a user would. What must hold of the figures is in test_power.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import millrace as mr
from millrace.run.errors import MillraceError

PAGE = Path(__file__).parents[2] / "docs" / "refute.md"
BEGIN, END = "<!-- power: begin (python tests/refute/power.py --write) -->", "<!-- power: end -->"
ROWS, SIMULATIONS, EFFECT = 600, 200, 0.5
CAUSES = ("a", "b", "c", "d")
FROM_OUTCOME = np.array([0.5, 0.4, 0.3, 0.2])
FROM_TREATMENT = np.array([0.5, 0.3, 0.2, 0.0])
TESTS = ("placebo", "random_common_cause", "subset", "bootstrap", "blocks", "overlap", "sensitivity",
         "negative_control", "estimators")  # fmt: skip
GATE = ("proceed", "review", "block")
CLUSTERS = 60
PROCESSES = 2


# -- worlds ------------------------------------------------------------------------------------------------------------
def world(
    seed: int, *, hidden: float = 0.0, drift: float = 0.0, crossing: float = 1.0, rare: float = 0.0, curve: float = 0.0,
    uneven: float = 0.0, clusters: float = 0.0, inside: float = 0.0, effect: float = EFFECT,
) -> pd.DataFrame:  # fmt: skip
    """A binary treatment of known effect. hidden: how strongly something that is not in the table moves treatment, outcome
    and `before` (which nothing can have affected). drift: of the effect from the first row to the last. crossing: multiplies
    what the confounders do to the treatment. rare: lowers its odds. curve: of the outcome in `a`. uneven: errors grow with
    the treatment and `a`. clusters: sd of what rows of a cluster share; they lie side by side, and the treatment is given to
    whole clusters, or, with `inside`, to rows, more often in some clusters than in others."""
    rng = np.random.default_rng([seed, 11])
    w, u = rng.normal(size=(ROWS, 4)), rng.normal(size=ROWS)
    group = np.arange(ROWS) * CLUSTERS // ROWS
    index = crossing * (w @ FROM_TREATMENT - 0.4) + hidden * u - rare
    if clusters and not inside:
        drug = (rng.random(CLUSTERS) < 0.5).astype(float)[group]
    else:
        index = index + inside * rng.normal(size=CLUSTERS)[group]
        drug = (rng.random(ROWS) < 1 / (1 + np.exp(-index))).astype(float)
    noise = rng.normal(size=ROWS) * np.sqrt(1 + uneven * (drug + np.abs(w[:, 0])))
    own = effect + drift * (np.arange(ROWS) / ROWS - 0.5)
    y = own * drug + w @ FROM_OUTCOME + curve * w[:, 0] ** 2 + hidden * u + noise
    before = w @ FROM_OUTCOME + hidden * u + rng.normal(size=ROWS)
    if clusters:
        y = y + clusters * rng.normal(size=CLUSTERS)[group]
        before = before + clusters * rng.normal(size=CLUSTERS)[group]
    return pd.DataFrame(w, columns=list(CAUSES)).assign(drug=drug, y=y, before=before, clinic=group)


# -- estimators that are wrong -----------------------------------------------------------------------------------------
def _least_squares(x: Any, y: Any) -> tuple[float, float]:
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ (x.T @ y)
    left = y - x @ b
    return float(b[0]), float(np.sqrt(left @ left / (len(x) - x.shape[1]) * inverse[0, 0]))


def without_constant(table: pd.DataFrame) -> tuple[float, float]:
    """Forgets the constant, of an outcome that has one: finds an effect of anything."""
    x = np.column_stack([table["drug"], *(table[c] for c in CAUSES)])
    return _least_squares(x, np.asarray(table["y"]) + 2)


def rows_for_people(table: pd.DataFrame) -> tuple[float, float]:
    """Right, but its error takes the rows of a cluster for independent."""
    x = np.column_stack([table["drug"], np.ones(len(table)), *(table[c] for c in CAUSES)])
    return _least_squares(x, np.asarray(table["y"]))


def by_number_of_columns(table: pd.DataFrame) -> tuple[float, float]:
    """Shrinks by the number of columns that there are, whatever they hold: a penalty that was never tuned."""
    names = [n for n in table.columns if n not in ("drug", "y")]
    x = np.column_stack([table["drug"], np.ones(len(table)), *(table[n] for n in names)])
    effect, error = _least_squares(x, np.asarray(table["y"]))
    kept = 1 - 0.05 * len(names)
    return effect * kept, error * kept


# -- what is measured --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Scene:
    """label: of the table's row. right: the estimate is right, so what does not pass is a false alarm. world, ask: options
    of `world` and of `mr.refute`. truth: of the effect, where it is one number. tests: asked for."""

    label: str
    right: bool
    world: Mapping[str, float] = field(default_factory=dict)
    ask: Mapping[str, Any] = field(default_factory=dict)
    tests: tuple[str, ...] = TESTS
    truth: float | None = EFFECT


MATCHED = tuple(t for t in TESTS if t not in ("bootstrap", "estimators"))
SCENES: Mapping[str, Scene] = {
    "right": Scene("the estimate is right", True),
    "nothing": Scene("right; there is no effect", True, {"effect": 0.0}, truth=0.0),
    "uneven": Scene("right; errors of unequal size", True, {"uneven": 2.0}),
    "clustered": Scene("right; clusters, and named", True, {"clusters": 0.5}, {"clusters": "clinic"}),
    "inside": Scene("right; named clusters, some treated inside", True, {"clusters": 0.5, "inside": 0.5}, {"clusters": "clinic"}),
    "ipw": Scene("right, by `ipw`", True, ask={"estimator": "ipw"}),
    "aipw": Scene("right, by `aipw`", True, ask={"estimator": "aipw"}),
    "matching": Scene("right, by `matching`", True, ask={"estimator": "matching"}, tests=MATCHED),
    "hidden": Scene("hidden confounding, bias 1.8 se", False, {"hidden": 0.41}),
    "hidden_much": Scene("hidden confounding, bias 6 se", False, {"hidden": 0.87}),
    "drift": Scene("the effect drifts, from 0 to 1.2", False, {"drift": 1.2, "effect": 0.6}, truth=0.6),
    "apart": Scene("no overlap", False, {"crossing": 6.0}),
    "form": Scene("wrong functional form, bias 2 se", False, {"curve": 1.5, "crossing": 2.0, "rare": 0.7}),
    "ignored": Scene("clusters, not named", False, {"clusters": 0.5}),
    "no_constant": Scene("an estimator without a constant", False, ask={"estimator": without_constant}, tests=("placebo",)),
    "small_error": Scene(
        "an error that ignores clusters", False, {"clusters": 0.8}, {"estimator": rows_for_people, "clusters": "clinic"},
        ("subset", "bootstrap"),
    ),
    "unstable": Scene(
        "an estimator that looks at names, not at values", False, ask={"estimator": by_number_of_columns},
        tests=("random_common_cause",), truth=None,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """worlds: how many; not_passed: shares by test (NaN where the test was not asked for); decided: shares of the gate's
    decisions; bias: mean of (estimate - truth) / se, NaN where there is no one truth. stands_out: share in which the estimate
    stands out from the placebo, p <= .05 (no verdict hangs on it)."""

    worlds: int
    not_passed: Mapping[str, float]
    decided: Mapping[str, float]
    bias: float
    stands_out: float


Found = tuple[list[str], str, float, bool]


def ask(name: str, seed: int, run: Any) -> Found:
    """Names of the tests that did not pass in one world, the gate's decision, the estimate's distance from the truth in
    standard errors, and whether it stands out from the placebo."""
    scene = SCENES[name]
    answer = mr.refute(
        world(seed, **scene.world), "drug", "y", common_causes=list(CAUSES), tests=list(scene.tests),
        negative_outcomes=["before"] if "negative_control" in scene.tests else [], simulations=SIMULATIONS, run=run,
        **scene.ask,
    )  # fmt: skip
    fit = answer.estimate
    off = float("nan") if scene.truth is None else (fit.effect - scene.truth) / fit.se
    out = any(t.name == "placebo" and t.p_value is not None and t.p_value <= 0.05 for t in answer.tests)
    return [t.name for t in answer.tests if t.status != "passed"], answer.gate.decision, off, out


def measure(name: str, seeds: range) -> Measured:
    with mr.Run(engine="inline", seed=seeds.start) as run:
        found = [_asked(name, seed, run) for seed in seeds]
    alarms = {t: float(np.mean([t in failed for failed, _, _, _ in found])) for t in SCENES[name].tests}
    decided = {d: float(np.mean([d == decision for _, decision, _, _ in found])) for d in GATE}
    bias, out = (float(np.mean([f[k] for f in found])) for k in (2, 3))
    return Measured(len(seeds), alarms, decided, bias, out if "placebo" in alarms else float("nan"))


def _asked(name: str, seed: int, run: Any) -> Found:
    try:
        return ask(name, seed, run)
    except MillraceError as e:
        raise RuntimeError(f"scene {name}, seed {seed}: {e}") from None


def measure_all(worlds: int, first: int, names: Sequence[str] = tuple(SCENES)) -> dict[str, Measured]:
    """Of every scene, `worlds` worlds from seed `first` on; scenes side by side in processes, parts of 50 worlds."""
    parts = [(n, range(s, min(s + 50, first + worlds))) for n in names for s in range(first, first + worlds, 50)]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        measured = list(pool.map(measure, *zip(*parts, strict=True)))
    return {n: _together([m for (its, _), m in zip(parts, measured, strict=True) if its == n]) for n in names}


def _one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def _together(parts: Sequence[Measured]) -> Measured:
    worlds = np.array([p.worlds for p in parts])

    def mean(of: Callable[[Measured], float]) -> float:
        return float(np.average([of(p) for p in parts], weights=worlds))

    return Measured(
        int(worlds.sum()), {t: mean(lambda p, t=t: p.not_passed[t]) for t in parts[0].not_passed},
        {d: mean(lambda p, d=d: p.decided[d]) for d in GATE}, mean(lambda p: p.bias), mean(lambda p: p.stands_out),
    )  # fmt: skip


# -- the page ----------------------------------------------------------------------------------------------------------
def table(found: Mapping[str, Measured]) -> str:
    """Markdown: worlds down, tests across, shares in per cent."""
    short = {"random_common_cause": "random cause", "negative_control": "negative control"}
    head = ["world", "bias in se", "p <= .05", *(short.get(t, t) for t in TESTS), *GATE]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, scene in SCENES.items():
        m = found[name]
        cells = [_bias(m.bias), "" if np.isnan(m.stands_out) else _cell(m.stands_out)]
        cells += [_cell(m.not_passed.get(t)) for t in TESTS]
        # Of a test or two there is no gate to speak of.
        cells += [_cell(m.decided[d] if len(scene.tests) > 2 else None) for d in GATE]
        lines.append(f"| {scene.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bias(bias: float) -> str:
    return "" if np.isnan(bias) else f"{round(bias, 1) + 0.0:g}"


def _cell(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}".removesuffix(".0")


def on_page() -> dict[str, dict[str, float]]:
    """Shares by scene and column, as docs/refute.md shows them."""
    region = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in region.strip().splitlines()]
    labels = {scene.label: name for name, scene in SCENES.items()}
    columns = ["stands_out", *TESTS, *GATE]
    return {
        labels[row[0]]: {c: float(cell) / 100 for c, cell in zip(columns, row[2:], strict=True) if cell} for row in rows[2:]
    }  # fmt: skip


def write(worlds: int = 200, first: int = 100_000) -> None:
    """Other worlds than those of the test, so that page and test do not agree by sharing seeds."""
    text = PAGE.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has no region between {BEGIN} and {END}")
    PAGE.write_text(f"{before}{begin}\n{table(measure_all(worlds, first))}\n{end}{after}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        print(table(measure_all(int(sys.argv[1]) if len(sys.argv) > 1 else 50, 0)))

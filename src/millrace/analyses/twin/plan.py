"""How twin cuts its questions, and what they will take: pure arithmetic on facts.

fit is a task a column, twice (described; its trees). generate is blocks of rows, a power of two by the number of columns
alone, so that a block's twins never depend on budget or cores.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.run.budget import Budget, Plan, fit
from millrace.run.errors import DoesNotFit

WORKER_BYTES = 150 << 20
"""Private bytes of a worker with the kernels loaded, and room for what their compiler maps."""
KERNEL_BYTES, LIGHTGBM_BYTES = 30 << 20, 40 << 20
DRIVER_BYTES = 90 << 20
FIT_DRIVER_BYTES, LOOK_BYTES = 120 << 20, 300_000
"""The same with the kernels that draw, and a column of the first look at twins."""
COLUMN_ROW_BYTES, TREE_ROW_BYTES = 70, 60
"""Of a task of fit: a column described; its trees grown."""
NODE_BYTES = 130
RELATED_BYTES, RELATED_ROWS = 20, 100_000
"""A score of a row, with its copies, while dependence is measured; rows that it is measured on."""
ROW_S, TRIED_S, READ_S, TRIED = 6e-7, 8e-8, 4e-9, 24
"""Core-seconds a row of a column's trees: for itself, for each column that is tried (so many at most), for each that the index
reads."""
DESCRIBE_S = 3.5e-7
"""Core-seconds a row described."""
CHOICE_S, CHOICE_COLUMN_S = 0.1, 0.005
"""Trees both ways on a held-out slice, and a classifier of each: by column, and by earlier column besides."""
JUDGED_ROWS, JUDGE_TREES, JUDGE_BYTES, JUDGE_S = 80_000, 200, 14, 4e-6
"""Rows, trees and bytes a value of the judge of finished rows; core-seconds a drawn row."""
BOOST_S, FOREST_S, EFFECT_S = 5e-9, 1.2e-7, 1.5e-6
"""Core-seconds: a row and column of a boosted tree; of a tree of a scikit-learn forest; of all models of effects a fold."""
LARGE_VALUES, LEAST_SHARE, MANY_COLUMNS, OF_COLUMNS, PASSED = 10_000_000, 0.1, 64, 0.5, 0.18
"""Values of a table from which a boosted tree sees a part of the rows, and the least part; columns from which it sees a part of
them, which; and what rows cost that a tree does not see, of what they cost when it does."""
SLOWER = {"lightgbm": 1.0, "lightgbm_forest": 5.6, "xgboost": 1.6, "hist_gradient_boosting": 2.5}
FOREST_ROW_BYTES = 16
"""Of a row and tree of a scikit-learn forest, as it is kept: a fifth of a node."""
OUTCOME_TREES, LONG_S = 300, 600.0
TABLE_BYTES, LEARNER_BYTES, LEARNER_ROW_BYTES = 18, 3, 100
"""A value of the rows that outcome and effects are learnt from, in the driver; in a learner's bins; a row besides."""
BLOCK_VALUES, GROUP_VALUES = 1 << 20, 1 << 22
"""Values that a task draws; that are written together."""
DRAW_S, WRITE_S = 2.4e-7, 6e-8
"""Core-seconds a value: drawn by a worker, written by the driver."""
VALUE_BYTES = 30


@dataclass(frozen=True, slots=True)
class FitFacts:
    """learner: of the outcome, "" without one. effects: they are learnt besides."""

    rows: int
    columns: int
    row_bytes: int
    min_leaf: int
    auto: bool
    learner: str = ""
    folds: int = 5
    effects: bool = False


@dataclass(frozen=True, slots=True)
class GenerateFacts:
    """model_bytes: of the arrays that workers map. tries: draws a twin, as far as they are known. judged: rows are."""

    n: int
    columns: int
    model_bytes: int
    tries: float = 1.0
    judged: bool = False


@dataclass(frozen=True, slots=True)
class AssessFacts:
    rows: int
    columns: int
    row_bytes: int
    compared: int


def seen_shares(rows: int, columns: int) -> tuple[float, float]:
    """(of the rows, of the columns) that a boosted tree of LightGBM sees: all of them but in large tables, where trees that see
    less are no worse, and take a third of the time."""
    share = min(1.0, max(LEAST_SHARE, LARGE_VALUES / max(1, rows * columns)))
    return share, OF_COLUMNS if share < 1 and columns > MANY_COLUMNS else 1.0


def block_rows(columns: int) -> int:
    """Twins of a block: a power of two from 1,024 to 65,536."""
    wanted = BLOCK_VALUES // max(1, columns)
    return max(1_024, min(65_536, 1 << (max(1, wanted).bit_length() - 1)))


def group_rows(columns: int) -> int:
    """Rows from which blocks are written as a row group of the file: four blocks or so of wide tables."""
    return max(block_rows(columns), min(65_536, GROUP_VALUES // max(1, columns)))


def plan_fit(facts: FitFacts, budget: Budget) -> Plan:
    n, d = facts.rows, facts.columns
    nodes = 2 * n // facts.min_leaf + 3
    earlier = d * (d - 1) / 2
    tried = sum(min(p, TRIED) for p in range(d))
    core_s = n * (DESCRIBE_S * d + ROW_S * d + TRIED_S * tried + READ_S * earlier)
    core_s += CHOICE_S * d + CHOICE_COLUMN_S * earlier if facts.auto and n >= 1_000 else 0.0
    core_s += BOOST_S * JUDGE_TREES * min(4 * n, JUDGED_ROWS) * d if facts.auto and n >= 2_000 else 0.0
    own = _models(facts)
    made = Plan(
        analysis="twin fit", method=_method(facts), tasks=2 * d + 1 + facts.auto + own.tasks, block=1, slots=1,
        worker_bytes=WORKER_BYTES + LIGHTGBM_BYTES * bool(facts.auto or facts.learner) + max(
            COLUMN_ROW_BYTES * n, TREE_ROW_BYTES * n + NODE_BYTES * nodes, RELATED_BYTES * min(n, RELATED_ROWS) * d,
            own.worker_bytes, JUDGE_BYTES * min(4 * n, JUDGED_ROWS) * d if facts.auto else 0,
        ),
        driver_bytes=FIT_DRIVER_BYTES + LIGHTGBM_BYTES * bool(facts.learner) + 8 * n + LOOK_BYTES * d
        + max(4 * n * d, own.driver_bytes),
        shared_bytes=n * (facts.row_bytes + 4 * d + 8 * d * bool(own.tasks)), answer_bytes=5 * n * d,
        core_s=core_s + own.core_s,
        base_bytes=WORKER_BYTES - KERNEL_BYTES,
        why=(f"{n:,} rows of {d} columns: a column described is a task, its trees are another", *own.why),
    )  # fmt: skip
    try:
        return fit(made, budget)
    except DoesNotFit as e:
        if not own.instead:
            raise
        raise DoesNotFit(f"{e} Or: {own.instead}.", e.needs_bytes) from None


def _method(facts: FitFacts) -> str:
    """What is learnt: past runs teach plans of their own kind alone."""
    return " + ".join(
        ["trees", *["judge"] * facts.auto, *[facts.learner] * bool(facts.learner), *["effects"] * facts.effects]
    )


@dataclass(frozen=True, slots=True)
class _Models:
    """What outcome and effects add to a fit."""

    tasks: int = 0
    core_s: float = 0.0
    worker_bytes: int = 0
    driver_bytes: int = 0
    why: tuple[str, ...] = ()
    instead: str = ""
    """What would do in place of a learner that takes hours."""


def _models(facts: FitFacts) -> _Models:
    if not facts.learner:
        return _Models()
    values, fits = facts.rows * facts.columns, facts.folds + 1
    seen = facts.folds * values  # a fold leaves one part out, and one fit has all
    forest = facts.learner == "random_forest"
    tree_s = FOREST_S if forest else BOOST_S * SLOWER.get(facts.learner, 1.0)
    of_rows, of_columns = seen_shares(facts.rows, facts.columns)
    part = PASSED + (1 - PASSED) * of_rows * of_columns if of_rows < 1 else 1.0
    outcome_s = tree_s * OUTCOME_TREES * seen * (part if facts.learner == "lightgbm" else 1.0)
    kept = FOREST_ROW_BYTES * facts.rows * OUTCOME_TREES if forest else 0
    why = [f"the outcome is learnt {fits} times by {facts.learner}, {OUTCOME_TREES} trees each"]
    if of_rows < 1 and facts.learner == "lightgbm":
        why.append(
            f"a tree sees {of_rows:.0%} of the rows and {of_columns:.0%} of the columns, and other ones than the next"
        )
    instead = ""
    if forest and outcome_s > LONG_S:
        whole_s = outcome_s * BOOST_S / FOREST_S
        instead = (
            f"a scikit-learn forest of {OUTCOME_TREES} trees takes about {outcome_s / 3600:.1f} core-hours here; LightGBM's own "
            f"forest (learner='lightgbm_forest') takes about {SLOWER['lightgbm_forest'] * whole_s / 60:.0f} core-minutes, and "
            f"boosting (learner='lightgbm'), which predicts as well or better, about {part * whole_s / 60:.0f}"
        )
        why.append(instead)
    effects_s = EFFECT_S * seen if facts.effects else 0.0
    if facts.effects:
        why.append(f"effects are learnt by {7 * facts.folds + 4} models at most, in {facts.folds} folds")
    return _Models(
        fits + (7 * facts.folds + 4) * facts.effects, outcome_s + effects_s,
        LEARNER_BYTES * values + LEARNER_ROW_BYTES * facts.rows + 2 * kept, TABLE_BYTES * values + fits * kept, tuple(why),
        instead,
    )  # fmt: skip


def size_notes(learner: object, rows: int, columns: int, trees: int, folds: int) -> list[str]:
    """What an answer says of a learner because the table is large."""
    of_rows, of_columns = seen_shares(rows, columns)
    if learner == "lightgbm" and of_rows < 1:
        return [
            f"The table is large: each tree of the outcome sees {of_rows:.0%} of the rows, {of_columns:.0%} of the columns."
        ]
    expected_s = FOREST_S * rows * columns * trees * (folds + 1)
    if learner != "random_forest" or expected_s < LONG_S:
        return []
    return [
        f"A scikit-learn forest of {trees} trees on {rows:,} x {columns} in {folds} folds takes about {expected_s / 3600:.1f} "
        "core-hours: LightGBM's own forest (learner='lightgbm_forest') and boosting (learner='lightgbm') take minutes."
    ]


def plan_generate(facts: GenerateFacts, budget: Budget) -> Plan:
    block = block_rows(facts.columns)
    values = facts.n * facts.columns
    return fit(
        Plan(
            analysis="twin generate", method="trees", tasks=-(-facts.n // block), block=block, slots=1,
            worker_bytes=WORKER_BYTES + VALUE_BYTES * min(block, facts.n) * facts.columns,
            driver_bytes=DRIVER_BYTES + 16 * (block + group_rows(facts.columns)) * facts.columns,
            shared_bytes=facts.model_bytes, answer_bytes=8 * values,
            core_s=values * (DRAW_S * facts.tries + WRITE_S) + facts.n * facts.tries * JUDGE_S * facts.judged,
            base_bytes=WORKER_BYTES - KERNEL_BYTES,
            why=(f"{facts.n:,} twins of {facts.columns} columns in blocks of {block:,}",),
        ),
        budget,
    )  # fmt: skip


def plan_assess(facts: AssessFacts, budget: Budget) -> Plan:
    m, d = facts.compared, facts.columns
    return fit(
        Plan(
            analysis="twin assess", method="measures", tasks=8, block=1, slots=1,
            worker_bytes=2 * WORKER_BYTES + 120 * m * d, driver_bytes=DRIVER_BYTES + 60 * m * d + facts.rows * 8,
            shared_bytes=24 * m * d, answer_bytes=1 << 20, core_s=2.0 + 4e-5 * m * d,
            base_bytes=WORKER_BYTES - KERNEL_BYTES, why=(f"{m:,} rows and as many twins of {d} columns",),
        ),
        budget,
    )  # fmt: skip

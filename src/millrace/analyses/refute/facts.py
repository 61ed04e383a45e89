"""What the plan of refute needs to know, read from a loaded question.

Seconds and bytes are arithmetic on the question's shape, with constants measured on one core; they predict, and never enter
a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millrace.analyses.refute import comparing
from millrace.analyses.refute.plan import Facts
from millrace.analyses.refute.question import Asked, read
from millrace.analyses.refute.spec import SIMULATED, Spec

SIMULATION_S = {
    "ols": {"bootstrap": (3e-10, 4e-9), "subset": (2e-10, 7e-9), "placebo": (5e-11, 4e-9), "random": (4e-11, 1e-8)},
    "ols_interacted": {
        "bootstrap": (4.5e-10, 4e-9), "subset": (3.3e-10, 5e-9), "placebo": (1.05e-9, 5e-9), "random": (7e-11, 1e-8),
    },
    "ipw": {
        "bootstrap": (3.6e-10, 1.1e-8), "subset": (2.7e-10, 1.1e-8), "placebo": (1.9e-10, 8e-9), "random": (2.3e-10, 2.5e-8),
    },
    "aipw": {
        "bootstrap": (6.5e-10, 1e-8), "subset": (5.5e-10, 1.2e-8), "placebo": (3.7e-10, 9e-9), "random": (2.3e-10, 2.5e-8),
    },
    "matching": {"subset": (5e-10, 3e-8), "placebo": (4e-10, 1e-7), "random": (8e-10, 7e-8)},
    "dml": {"bootstrap": (0.0, 3.5e-9), "subset": (0.0, 4e-9), "placebo": (0.0, 2e-8), "random": (0.0, 1.5e-8)},
}  # fmt: skip
"""Core-seconds of one simulation: a value of the basis, and a row. dml: with the models of the whole data."""
EXACT = 3.0
"""Times as long in float64."""
LEAST_S = 1e-4
"""Of one simulation, however few rows."""
MAHALANOBIS_S = 2e-6
"""A row and a confounder, in a k-d tree."""
TREE_S, TREE_VALUE_S, TREE_ROW_S = 2.8e-2, 2.3e-6, 1.2e-5
"""Both of DML's models in 5 folds of 100 trees of 31 leaves: a confounder, a value of a confounder, a row."""
CALL_S = 0.05
"""A call of a user's own estimator; the true time is not known before."""
HELD = 3
"""Copies of data that is not mapped: as it was read, decoded, and as a matrix."""
READ_S = 4e-8
"""A value that the driver reads, checks, hashes and shares."""

STRETCHES = 5
"""Blocks of rows that a pass over the data holds at a time."""
BLOCK_ROWS, BLOCK_BYTES = 8192, 16 << 20


def facts(spec: Spec) -> Facts:
    """The facts of a question that is not run: its data are read, nothing is estimated."""
    return facts_of(spec, read(spec, lambda text: None))


def facts_of(spec: Spec, asked: Asked) -> Facts:
    wanted = spec.wanted
    tests = [t for t in wanted if t in SIMULATED and not (t == "bootstrap" and spec.estimator == "matching")]
    study = asked.cases[0].study
    n = max(case.study.rows for case in asked.cases)
    p = max(len(case.names) for case in asked.cases)
    own, alone = spec.own, spec.one_by_one
    shape = _Shape(spec, n, p, study.groups, study.binary, study.weights is not None)
    work, shared = (shape.own_bytes, 0) if own else shape.bytes_of(str(spec.estimator))
    if "estimators" in wanted:
        others = [shape.bytes_of(e) for e in comparing.others(spec, study.binary, lambda said: None)]
        work, shared = max(work, *(w for w, _ in others)), shared + sum(s for _, s in others)
    mapped = any(_is_mapped(case.study.confounders) for case in asked.cases)
    return Facts(
        estimator="own" if own else str(spec.estimator), rows=n, confounders=p, cases=len(asked.cases), tests=tuple(tests),
        simulations=spec.simulations, each=1 if alone else None,
        test_s=tuple(shape.simulation_s(t, own) for t in tests), once_s=shape.once_s(wanted, own), read_s=READ_S * n * (p + 2),
        work_bytes=max(work, shape.looked_at_bytes(wanted)), shared_bytes=shared, data_bytes=n * (p + 4) * 8,
        driver_rows_bytes=0 if mapped else HELD * n * (p + 2) * 8, driver_pass_bytes=STRETCHES * stretch_bytes(n, p),
        column_bytes=n * 8,
    )  # fmt: skip


def stretch_bytes(n: int, k: int) -> int:
    """Of the rows that a pass over the data holds, as float64 of k columns."""
    rows = max(2 * k, min(BLOCK_ROWS, BLOCK_BYTES // (8 * max(1, k))))
    return 8 * k * min(n, rows)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Arithmetic on the shape of a question."""

    spec: Spec
    n: int
    p: int
    clusters: int
    binary: bool
    weighted: bool

    # -- bytes -------------------------------------------------------------------------------------------------------
    @property
    def own_bytes(self) -> int:
        """The table as a test changes it, as a frame of it, and what an estimator makes of that."""
        return 4 * self.n * (self.p + 4) * 8

    def bytes_of(self, estimator: str) -> tuple[int, int]:
        """(peak of a task of this estimator beside mapped arrays, what its simulations share)."""
        from millrace.analyses.refute import batches

        n, p = self.n, self.p
        apart = {**comparing.LEARNT, "fast": "multiplier"} if estimator == "dml" else {}
        options = batches.options_of(estimator, self.spec.options if estimator == self.spec.estimator else apart)
        kernel = batches.kernel(estimator)
        least_squares = estimator in ("ols", "ols_interacted")
        if least_squares:
            options |= {"binary": self.binary, "weighted": self.weighted}
        simulating, shared = kernel.memory(
            n, p, clusters=self.clusters, **{**options, "precision": self.spec.precision}
        )
        k = 3 + p * (2 if estimator == "ols_interacted" else 1)
        once = STRETCHES * stretch_bytes(n, k) + 96 * k * k + (24 if least_squares else 96) * n
        if estimator == "dml":
            learned = {name: value for name, value in options.items() if name != "fast"}
            return max(simulating, kernel.memory(n, p, **learned)[0]), shared
        if options.get("metric") == "mahalanobis":
            return max(simulating, once + 3 * 8 * n * (p + 1)), shared
        held = batches.basis_bytes(n, p, estimator)
        return max(simulating, once + (held if held <= batches.HELD_BYTES else 0)), shared

    def looked_at_bytes(self, wanted: tuple[str, ...]) -> int:
        """The largest of the tests that look at the data."""
        passes = STRETCHES * stretch_bytes(self.n, self.p + 3) + 48 * self.n
        return passes + (6 * 8 * self.n * self.p if "specification" in wanted else 0)

    # -- seconds -----------------------------------------------------------------------------------------------------
    @property
    def values(self) -> float:
        return float(self.n * (self.p + 2))

    @property
    def products(self) -> float:
        return float(self.n * (self.p + 2) ** 2)

    def once_s(self, wanted: tuple[str, ...], own: bool) -> float:
        """Core-seconds of what is done once: the estimate, what simulations share, and the tests that look at the data."""
        line = 5.5e-8 * self.values + 5e-11 * self.products
        score = 1.15e-7 * self.values + 2.5e-10 * self.products
        name = "own" if own else str(self.spec.estimator)
        made = {
            "ols": 2 * line, "ols_interacted": 2 * (2 * 5.5e-8 * self.values + 3e-10 * self.products), "ipw": 2.6 * score,
            "aipw": 3.3 * score, "matching": 2.4 * score, "dml": 2 * self._learning_s(), "own": CALL_S,
        }  # fmt: skip
        looked = {
            "sensitivity": (0 if name == "ols" else line) + 4e-9 * self.values + 6e-11 * self.products,
            "overlap": score if self.binary else 1.5e-8 * self.values + 1e-10 * self.products,
            "blocks": 1.5e-8 * self.values + 3.2e-10 * self.products,
            "specification": (2 * self.p + 4) * (1.5e-8 * self.values + 3.2e-10 * self.products),
        }
        return made[name] + sum(seconds for test, seconds in looked.items() if test in wanted)

    def simulation_s(self, test: str, own: bool) -> float:
        """Core-seconds of one simulation."""
        if own:
            return CALL_S
        name, options = str(self.spec.estimator), self.spec.options
        if name == "dml" and options.get("fast") is None:
            return self._learning_s() * (0.5 if test == "placebo" else 1.0)
        if options.get("metric") == "mahalanobis":
            return MAHALANOBIS_S * self.n * (self.p + 1)
        by_value, by_row = SIMULATION_S[name]["random" if test == "random_common_cause" else test]
        columns = self.n * (2 * self.p + 2) if name == "ols_interacted" else self.values
        slower = EXACT if self.spec.precision == "exact" and name != "dml" else 1.0
        return LEAST_S + slower * (by_value * columns + by_row * self.n)

    def _learning_s(self) -> float:
        """Both of DML's models, in all folds."""
        given = self.spec.options
        size = float(given.get("trees", 100)) / 100 * float(given.get("folds", 5)) / 5
        by_leaf = TREE_S * float(given.get("leaves", 31)) / 31
        return size * (by_leaf * self.p + TREE_VALUE_S * self.n * self.p + TREE_ROW_S * self.n)


def _is_mapped(array: Any) -> bool:
    import numpy

    while array is not None:
        if isinstance(array, numpy.memmap):
            return True
        array = getattr(array, "base", None)
    return False

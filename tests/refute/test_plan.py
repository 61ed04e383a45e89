"""A plan says what a question takes: never too little memory, never twice too much, and it grows with the question."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import batches
from millrace.analyses.refute import facts as reading
from millrace.analyses.refute.plan import Facts, plan
from millrace.analyses.refute.spec import ESTIMATORS, Spec
from millrace.run.budget import Budget
from millrace.run.errors import DoesNotFit

GIB = 1 << 30
AMPLE = Budget(2, 1024 * GIB)


def spec_of(estimator: str, rows: int = 60, columns: int = 3, **more: object) -> Spec:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(rows, columns + 2))
    data[:, columns] = rng.random(rows) < 0.5
    causes = [f"x{j}" for j in range(columns)]
    return Spec(data=data, treatment=f"x{columns}", outcome=f"x{columns + 1}", common_causes=causes, estimator=estimator,
                **more)  # fmt: skip


def facts_at(estimator: str, rows: int, columns: int, **more: object) -> Facts:
    """Of a question of any size: the arithmetic alone, on a study whose columns all lie in the same few bytes."""
    spec = spec_of(estimator, **more)
    asked = reading.read(spec, lambda text: None)
    case = asked.cases[0]
    wide = np.lib.stride_tricks.as_strided(np.zeros(1), (rows, columns), (0, 0))
    long = np.lib.stride_tricks.as_strided(np.zeros(1), (rows,), (0,))
    study = replace(case.study, confounders=wide, treatment=long, outcome=long)
    names = tuple(f"x{j}" for j in range(columns))
    return reading.facts_of(spec, replace(asked, cases=(replace(case, study=study, names=names),)))


@settings(max_examples=40, deadline=None)
@given(
    estimator=st.sampled_from(ESTIMATORS), rows=st.integers(1_000, 3_000_000), columns=st.integers(1, 300),
    more=st.integers(2, 5),
)  # fmt: skip
def test_more_rows_or_columns_never_take_less(estimator, rows, columns, more):
    """But for the basis that simulations share: a large one is written to a file as it is made, and not held."""
    small = plan(facts_at(estimator, rows, columns), AMPLE)
    for larger in (facts_at(estimator, rows * more, columns), facts_at(estimator, rows, columns * more)):
        found = plan(larger, AMPLE)
        assert found.worker_bytes >= small.worker_bytes - batches.HELD_BYTES
        assert found.driver_bytes >= small.driver_bytes
        assert found.shared_bytes > small.shared_bytes
        assert found.core_s > small.core_s


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_simulations_are_counted_by_whole_batches(estimator):
    more = {"options": {"fast": "multiplier"}} if estimator == "dml" else {}
    few, some, many = (facts_at(estimator, 10_000, 10, simulations=b, **more) for b in (50, 51, 100))
    plans = [plan(f, AMPLE) for f in (few, some, many)]
    assert plans[0].core_s < plans[1].core_s == plans[2].core_s
    assert 2 * plans[0].tasks == plans[1].tasks == plans[2].tasks == 2 * len(few.tests)


def test_an_estimator_that_fits_anew_is_one_simulation_a_task():
    for estimator in ("dml", "somewhere:function"):
        found = plan(facts_at(estimator, 5_000, 8, simulations=100), AMPLE)
        assert found.block == 1
        assert found.tasks == 4 * 100


@settings(max_examples=40, deadline=None)
@given(
    estimator=st.sampled_from(ESTIMATORS), rows=st.integers(1_000, 1_000_000), columns=st.integers(1, 200),
    cores=st.integers(1, 64),
)  # fmt: skip
def test_the_smallest_budget_that_is_named_would_do(estimator, rows, columns, cores):
    asked = facts_at(estimator, rows, columns)
    with pytest.raises(DoesNotFit) as caught:
        plan(asked, Budget(cores, 1 << 20))
    enough = caught.value.needs_bytes
    assert plan(asked, Budget(cores, enough)).slots == 1
    with pytest.raises(DoesNotFit):
        plan(asked, Budget(cores, enough - 1))


@settings(max_examples=40, deadline=None)
@given(cores=st.integers(1, 32), budget=st.integers(1, 8 * GIB))
def test_a_plan_keeps_to_its_budget_and_the_cut_does_not_depend_on_it(cores, budget):
    asked = facts_at("aipw", 200_000, 60)
    ample = plan(asked, AMPLE)
    if budget < ample.smallest_bytes:
        with pytest.raises(DoesNotFit):
            plan(asked, Budget(cores, budget))
        return
    found = plan(asked, Budget(cores, budget))
    assert found.peak_bytes <= budget
    assert 1 <= found.slots <= cores
    assert (found.tasks, found.block, found.why) == (ample.tasks, ample.block, ample.why)


def test_what_a_test_needs_is_counted_only_when_it_is_asked_for():
    plain = plan(facts_at("ols", 100_000, 100, tests=["placebo"]), AMPLE)
    whole = plan(facts_at("ols", 100_000, 100, tests=["placebo", "specification"]), AMPLE)
    both = plan(facts_at("ols", 100_000, 100, tests=["placebo", "estimators"]), AMPLE)
    assert whole.worker_bytes > plain.worker_bytes
    assert whole.core_s > plain.core_s
    assert both.shared_bytes > plain.shared_bytes


# -- against what is measured ----------------------------------------------------------------------------------------------
MEASURE = """
import json, sys, time
import numpy, pandas
import millrace as mr
rows, columns, estimator, engine, cores, frame = json.loads(sys.argv[1])
rng = numpy.random.default_rng(0)
data = numpy.empty((rows, columns + 3))
for begin in range(0, rows, 20_000):
    part = data[begin : begin + 20_000]
    part[:, :columns] = rng.normal(size=(len(part), columns))
    index = part[:, :columns] @ numpy.full(columns, 0.3 / columns**0.5)
    part[:, columns] = index + rng.logistic(size=len(part)) > 0
    part[:, columns + 1] = index + rng.normal(size=len(part))
    part[:, columns + 2] = part[:, columns] + index + rng.normal(size=len(part))
numpy.save(sys.argv[2], data)
given = pandas.DataFrame(data, columns=[f"x{j}" for j in range(columns + 3)]) if frame else sys.argv[2]
del data
treatment = columns + (1 if estimator.startswith("ols") else 0)
options = {"fast": "multiplier", "trees": 20} if estimator == "dml" else {}
before = time.process_time()
answer = mr.refute(
    given, f"x{treatment}", f"x{columns + 2}", common_causes=[f"x{j}" for j in range(columns)], estimator=estimator,
    options=options, simulations=100, engine=engine, cores=cores,
)
told, found = answer.report.plan, answer.report.accounting
tasks_s = 0.0 if engine == "inline" else sum(t.cpu_s for t in found.tasks)
print(json.dumps({
    "predicted_bytes": told["peak_bytes"], "worker_bytes": told["worker_bytes"], "predicted_s": told["wall_s"],
    "peak_bytes": found.memory_bytes, "task_peak_bytes": found.task_peak_bytes,
    "busy_s": time.process_time() - before + tasks_s / told["slots"],
}))
"""


def measured(folder: Path, *question: object) -> dict[str, float]:
    call = [sys.executable, "-c", MEASURE, json.dumps(question), str(folder / "data.npy")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


GRID = [
    (1_000, 3, "ols"), (20_000, 20, "ols"), (100_000, 3, "ols"), (100_000, 100, "ols"), (20_000, 60, "ols_interacted"),
    (1_000, 20, "ipw"), (100_000, 50, "ipw"), (100_000, 100, "aipw"), (60_000, 20, "aipw"), (2_000, 10, "matching"),
    (100_000, 30, "matching"), (20_000, 20, "dml"), (60_000, 50, "dml"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "estimator"), GRID)
def test_on_two_processes_memory_and_time_are_as_predicted(rows, columns, estimator, tmp_path):
    """Time is what the processors did: others may use this machine. What only waits (workers start) is in the prediction."""
    found = measured(tmp_path, rows, columns, estimator, "processes", 2, False)
    assert found["peak_bytes"] <= found["predicted_bytes"] <= 2 * found["peak_bytes"]
    assert found["task_peak_bytes"] <= found["worker_bytes"]
    assert found["busy_s"] / 2 <= found["predicted_s"] <= 2 * found["busy_s"] + 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "columns", "estimator"), [(1_000, 3, "ols"), (100_000, 100, "ols"), (100_000, 50, "aipw")]
)
def test_in_one_process_the_plan_is_a_bound_that_is_loose_by_the_worker_that_is_not_there(
    rows, columns, estimator, tmp_path
):
    found = measured(tmp_path, rows, columns, estimator, "inline", 1, False)
    assert found["peak_bytes"] <= found["predicted_bytes"]
    idle = plan(facts_at("ols", 1_000, 3), Budget(1, GIB))
    assert found["predicted_bytes"] - idle.peak_bytes <= 2 * found["peak_bytes"]
    assert found["busy_s"] / 2 <= found["predicted_s"] <= 2 * found["busy_s"] + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "auto"])
def test_a_frame_in_memory_is_not_held_twice(engine, tmp_path):
    found = measured(tmp_path, 100_000, 60, "ols", engine, 2, True)
    assert found["peak_bytes"] <= found["predicted_bytes"]
    if engine == "processes":  # auto may need no worker, and its plan has to allow for them
        assert found["predicted_bytes"] <= 2 * found["peak_bytes"]

"""Under any ceiling, a task that loads numeric libraries ends: with its value, or with the memory failure."""

import pytest

from millrace.engines.processes import ProcessEngine
from millrace.run.task import Limits, Task

MIB = 1 << 20


def load(count: int) -> int:
    import lightgbm
    import pyarrow
    import sklearn.ensemble

    return count + len({lightgbm, pyarrow, sklearn.ensemble})


# at those in the middle OpenBLAS asks for its buffer for ever when the ceiling is one of address space
@pytest.mark.parametrize("ceiling_mib", [20, 80, 86, 300])
def test_a_task_that_loads_libraries_has_a_value_or_the_memory_failure(ceiling_mib: int) -> None:
    engine = ProcessEngine(1)
    try:
        task = Task(load, (1,), "k", limits=Limits(private_bytes=ceiling_mib * MIB, cpu_s=60.0))
        (outcome,) = engine.stream(iter([task]))
    finally:
        engine.close()
    if ceiling_mib == 300:
        assert outcome.value == 4, outcome
    else:
        assert outcome.failure is not None and outcome.failure.kind == "memory", outcome
        assert outcome.failure.figure > ceiling_mib * MIB, outcome

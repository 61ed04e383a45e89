"""How explain cuts its question, and what it will take: pure arithmetic on facts.

A block is a range of rows, a power of two, sized so that its values are about 4 MiB and its work about half a second
on the machine that the constants were measured on. Only the question's shape enters: budget and cores change how many
blocks run at once, never where they are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.run.budget import Budget, Plan, fit

BLOCK_VALUE_BYTES = 4 << 20
BLOCK_S = 0.5
MOST_ROWS = 2048

WORKER_BYTES = 128 << 20
"""Private bytes of a worker with the kernels loaded, before its first block, and room for what their compiler maps."""
KERNEL_BYTES = 24 << 20
"""That part of them which kernels take while they are loaded and work: where tasks run in the driver, it pays for it."""
DRIVER_BYTES = 48 << 20
"""What the driver grows by besides the data: the model read, kernels loaded, the ledger's buffers."""
MAPPED_BYTES = 64 << 20
STREAM_BYTES, STREAM_S, MOST_STREAM_ROWS = 16 << 20, 4.0, 65_536
"""A part of a streamed answer: bytes of its rows and values, seconds of its work."""
ARROW_BYTES = 32 << 20
"""Arrow's Parquet reader and writer, loaded, with their buffers."""
STREAM_VALUE_S = 2e-8
"""A number that is read from Parquet or written to it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan needs to know. `outputs`: of the model; `kept`: those explained. `row_s`: predicted core-seconds a
    row; `build_s`: of building tables; `scratch_bytes`: of a kernel on one block, beside its rows and values.
    group_rows: of the row groups of a file that is streamed, () for data in memory; `reading_bytes`: what reading it takes
    beside a block.
    """

    family: str
    method: str
    rows: int
    features: int
    outputs: int
    kept: int
    input_bytes: int
    value_bytes: int
    row_s: float
    columns: int = 0
    pairs: int = 0
    exact: bool = True
    trees: int = 0
    nodes: int = 0
    batches: int = 0
    table_bytes: int = 0
    all_table_bytes: int = 0
    scratch_bytes: int = 0
    build_s: float = 0.0
    background_rows: int = 0
    evaluations: int = 0
    driver_extra_bytes: int = 0
    group_rows: tuple[int, ...] = ()
    reading_bytes: int = 0

    @property
    def blocks(self) -> int:
        if self.group_rows:
            return sum(-(-rows // stream_rows(self)) for rows in self.group_rows)
        return -(-self.rows // block_rows(self))


def block_rows(facts: Facts) -> int:
    """Rows of a block: a power of two from 1 to 2,048."""
    by_bytes = BLOCK_VALUE_BYTES / ((facts.features + facts.pairs) * facts.outputs * 8)
    by_work = BLOCK_S / facts.row_s
    return 1 << max(0, min(int(min(by_bytes, by_work, MOST_ROWS)).bit_length() - 1, 11))


def stream_rows(facts: Facts) -> int:
    """Rows of a part of a streamed answer: a power of two from 1 to 65,536."""
    by_bytes = STREAM_BYTES / (((facts.columns or facts.features) + facts.features * facts.outputs) * 8)
    return 1 << max(0, int(min(by_bytes, STREAM_S / facts.row_s, MOST_STREAM_ROWS)).bit_length() - 1)


def plan(facts: Facts, budget: Budget) -> Plan:
    """Blocks, slots, bytes and core-seconds of explain under a budget; `DoesNotFit` with what would do."""
    if facts.group_rows:
        return fit(_streamed(facts), budget)
    size = min(block_rows(facts), facts.rows)
    columns = facts.columns or facts.features
    inside = size * (columns * facts.input_bytes + (facts.features + facts.pairs) * 2 * facts.outputs * 8)
    worker = WORKER_BYTES + max(inside + facts.scratch_bytes, 2 * facts.table_bytes + facts.scratch_bytes)
    kept = facts.features * (1 if facts.exact else 2) + facts.pairs
    answer = facts.rows * kept * facts.kept * facts.value_bytes
    data = facts.rows * columns * facts.input_bytes
    driver = (
        DRIVER_BYTES
        + facts.driver_extra_bytes
        + data
        + (answer if answer <= MAPPED_BYTES else 0)
        + facts.rows * (facts.kept + 1) * 8
    )
    many = "block" if facts.blocks == 1 else "blocks"
    why = (f"{facts.blocks:,} {many} of {size:,} rows, by the shape of the question",)
    if facts.batches:
        why += (f"{facts.batches} batches of pattern tables, built once and mapped by every worker",)
    needed = Plan(
        analysis="explain",
        method=facts.method,
        tasks=facts.blocks + facts.batches,
        block=size,
        slots=1,
        worker_bytes=worker,
        driver_bytes=driver,
        shared_bytes=data + facts.all_table_bytes,
        answer_bytes=answer,
        core_s=facts.rows * facts.row_s + facts.build_s,
        why=why,
        base_bytes=WORKER_BYTES - KERNEL_BYTES,
    )
    return fit(needed, budget)


def _streamed(facts: Facts) -> Plan:
    """Rows come from a file and values go to one: nobody holds more than a block of either."""
    size = min(stream_rows(facts), facts.rows)
    columns = facts.columns or facts.features
    shown = facts.features * facts.kept * (1 if facts.exact else 2)
    # As Arrow and as a matrix; values in the answer's form and as columns; then the part, which hardly shrinks.
    inside = size * (
        columns * facts.input_bytes * 2 + facts.features * facts.outputs * 8 + shown * facts.value_bytes * 3
    )
    worker = WORKER_BYTES + ARROW_BYTES + facts.reading_bytes
    worker += max(inside + facts.scratch_bytes, 2 * facts.table_bytes + facts.scratch_bytes)
    drawn = 2_000 * (columns + shown) * 8 + 200 * facts.features * facts.kept * 8 * 3
    return Plan(
        analysis="explain",
        method=facts.method,
        tasks=facts.blocks + facts.batches,
        block=size,
        slots=1,
        worker_bytes=worker,
        driver_bytes=DRIVER_BYTES + ARROW_BYTES + facts.driver_extra_bytes + facts.reading_bytes + 2 * drawn,
        shared_bytes=facts.all_table_bytes,
        answer_bytes=facts.rows * (shown * facts.value_bytes + 16 * facts.kept),
        core_s=facts.rows * (facts.row_s + STREAM_VALUE_S * (columns + shown)) + facts.build_s,
        why=(
            f"{facts.blocks:,} parts of at most {size:,} rows, by the shape of the question and the file's row groups",
        ),
        base_bytes=WORKER_BYTES - KERNEL_BYTES,
    )


def tolerance(facts: Facts, largest: float, value_bytes: int | None = None) -> float:
    """Largest abs(base + values - output) that rounding explains, for outputs up to `largest` in size.

    Exact methods in float64 lose some units in the last place per tree (or feature) summed; in float32 the values
    themselves are rounded; estimates are constrained to add up, so rounding is all that is left there too.
    """
    if facts.family == "gradient":
        from millrace.analyses.explain.kernels.modules import GAP

        return 2 * GAP * max(1.0, largest)  # what is left of the integral, and the rounding of the module's own numbers
    unit = 1.2e-7 if (value_bytes or facts.value_bytes) == 4 else 2.3e-16
    terms = max(facts.trees, facts.features, 16)
    return unit * 16 * terms * max(1.0, largest)

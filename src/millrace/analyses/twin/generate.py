"""`twin generate`: twins of a model, streamed in blocks to one Parquet file.

Row i is the same for every engine, block and number of twins. A file under its name is whole: it is written beside it and
renamed (see `drafts`). Blocks that were made before an interruption are found in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin import drafts, raking, tabling
from millrace.analyses.twin.facts import generate_facts
from millrace.analyses.twin.joint import Joint
from millrace.analyses.twin.model import TwinModel, read_model
from millrace.analyses.twin.plan import block_rows, group_rows, plan_generate
from millrace.analyses.twin.spec import Generate
from millrace.analyses.twin.where import Clause, clauses
from millrace.run.answer import Saved
from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run

NAME = "twins.parquet"
PILOT = 512
DOUBTFUL = 0.01


@dataclass(frozen=True)
class Twins(Saved):
    """path: the Parquet file. rows: how many. columns: their names. acceptance: twins over draws. digest:
    of model, seed, condition and all rows."""

    path: Path
    rows: int
    columns: tuple[str, ...]
    model: str
    where: str
    acceptance: float
    digest: str
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def table(self) -> Any:
        """All twins as an Arrow table: mind the memory, or use `batches`."""
        from pyarrow import parquet

        return parquet.read_table(self.path)

    def batches(self, rows: int = 65_536) -> Iterator[Any]:
        """Arrow record batches, one after the other."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as file:
            yield from file.iter_batches(rows)

    def to_pandas(self) -> Any:
        return self.table.to_pandas()

    def findings(self) -> list[str]:
        what = f" with {self.where}" if self.where else ""
        said = [f"{self.rows:,} twins of {self.model}{what}: {len(self.columns)} columns, in {self.path.name}."]
        if self.where:
            said.append(f"They are drawn so, not filtered: {self.acceptance:.2%} of the draws were accepted.")
        return said

    def summary(self) -> str:
        return "\n".join(self.findings())

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model, "rows": self.rows, "columns": list(self.columns), "where": self.where,
            "acceptance": self.acceptance, "file": self.path.name,
        }  # fmt: skip

    def charts(self) -> dict[str, dict[str, Any]]:
        """Distributions of the columns, by the first rows of the file."""
        from millrace.analyses.twin import twins_views

        return twins_views.charts(self.path, self.where)

    def write_tables(self, folder: Path) -> list[Path]:
        """twins.parquet; nothing when the file was asked for elsewhere."""
        import shutil

        place = folder / NAME
        if self.path.name != NAME or place == self.path:
            return [place] if place == self.path else []
        shutil.copyfile(self.path, place)
        return [place]


def generate(spec: Generate, run: Run) -> Twins:
    """Draw the twins. `WrongQuestion` when none can be so, `AnalysisFailed` when too few draws are accepted."""
    run.progress("reading the model")
    model = read_model(spec.model)
    joint = Joint(model.plain)
    parts = clauses(spec.where, joint.columns)
    acceptance = _pilot(joint, parts, spec, run)
    run.follow(plan_generate(generate_facts(spec, model, 1 / acceptance), run.budget))
    text = " and ".join(f"({c.text})" if len(parts) > 1 else c.text for c in parts)
    return write(model, spec, run, text, _place(spec, run), _factors(joint, parts, spec, run))


def _factors(joint: Joint, parts: tuple[Clause, ...], spec: Generate, run: Run) -> dict[str, list[float]]:
    """Factors of levels by which twins have the margins that were asked for; nothing without."""
    if spec.margins is None:
        return {}
    margins = raking.read_margins(spec.margins, joint.columns)
    sample = joint.draw(numpy.arange(raking.SAMPLE), run.seed, joint.condition(parts), spec.attempts)
    try:
        return raking.factors(margins, joint.columns, sample.C)
    except AnalysisFailed as e:
        raise WrongQuestion(str(e)) from None


def _pilot(joint: Joint, parts: tuple[Clause, ...], spec: Generate, run: Run) -> float:
    """The share of draws that is accepted, by a few twins; an error before the long work when it is too small."""
    if not parts:
        return 1.0
    condition = joint.condition(parts)
    rows = numpy.arange(min(PILOT, spec.n))
    try:
        drawn = joint.draw(rows, run.seed, condition, spec.attempts)
    except AnalysisFailed as e:
        raise WrongQuestion(f"where={' and '.join(c.text for c in parts)!r}: {e}") from None
    acceptance = len(rows) / float(drawn.attempts.sum() + len(rows))
    if acceptance < DOUBTFUL:
        run.note(
            f"About {acceptance:.2%} of the draws satisfy the condition: each twin takes {1 / acceptance:,.0f} draws."
        )
    return acceptance


def _place(spec: Generate, run: Run) -> Path:
    """Where the file goes: where it was asked for, or into the answer's folder."""
    if spec.file is None:
        return Path(run.ledger.path.parent) / NAME
    place = Path(spec.file)
    if place.suffix != ".parquet" or not place.absolute().parent.is_dir():
        raise WrongQuestion(f"file={str(place)!r}: give a path that ends in .parquet, in a folder that there is.")
    return place.absolute()


def write(
    model: TwinModel, spec: Generate, run: Run, where: str, place: Path, factors: Mapping[str, list[float]]
) -> Twins:
    """Every block in order into one file that is whole when it has its name."""
    from pyarrow import parquet

    size = block_rows(len(model.columns))
    items = [(begin, min(begin + size, spec.n)) for begin in range(0, spec.n, size)]
    asked = {
        "model": model.digest,
        "where": where,
        "seed": run.seed,
        "attempts": spec.attempts,
        "factors": dict(factors),
    }
    beside = _beside(model, run)
    told = tabling.told_by((beside.get("outcome"), beside.get("effects")))
    told = (*told, tabling.WEIGHT) if factors else told
    schema = tabling.schema_of(model.columns, told)
    texts = [c.name for c in model.columns if c.kind == "category"]
    rows, draws, digest = 0, 0, content_key([model.digest, where, run.seed])
    run.progress("twins", len(items))
    with drafts.draft(place) as making:
        with parquet.ParquetWriter(
            making, schema, compression="zstd", compression_level=1, use_dictionary=texts
        ) as file:
            shared = run.share(model.plain), run.share(beside), asked
            made = run.map(tabling.block, items, shared=shared, keep=True, resources=(tabling.made,), name="twins")
            together: list[Any] = []
            for found in made:
                value = run.value(found)
                together.append(value["table"])
                if sum(t.num_rows for t in together) >= group_rows(len(model.columns)):
                    _write_group(file, together)
                rows += value["table"].num_rows
                draws += value["draws"]
                digest = content_key([digest, value["table"]])
            _write_group(file, together)
        _whole_or_a_part(rows, spec.n, run)
    return Twins(
        place, rows, (*model.names, *told), model.name, where, rows / draws, digest, notes=tuple(run.notes)
    )  # fmt: skip


def _write_group(file: Any, together: list[Any]) -> None:
    """Blocks as one row group: the writer remembers each group until the end, and would grow with the number of blocks."""
    import pyarrow

    if together:
        table = pyarrow.concat_tables(together)
        file.write_table(table, row_group_size=table.num_rows)
        together.clear()


def _whole_or_a_part(rows: int, n: int, run: Run) -> None:
    """Say that a deadline left the first twins alone: they are those that a larger file begins with."""
    if not rows:
        raise AnalysisFailed(
            f"The deadline came before any of {n:,} twins was finished. Give more time, or ask for fewer; with fit, as many as "
            "fit are drawn."
        )
    if rows < n:
        run.note(f"The deadline came after {rows:,} of {n:,} twins: the file holds these.")


def _beside(model: TwinModel, run: Run) -> dict[str, Any]:
    """Outcome and effect models as workers are given them."""
    found: dict[str, Any] = {}
    if model.effects is not None:
        found["effects"] = model.effects.plain
    elif model.outcome is not None:
        if isinstance(model.outcome.learner, str):
            found["outcome"] = model.outcome.plain
        else:
            run.note("Twins have no baseline outcome: the outcome model is an object that only this process has.")
    return found


def sample(model: TwinModel, n: int, seed: int = 0, where: Any = None, attempts: int = 10_000) -> Any:
    """n twins as an Arrow table, here and now: for small numbers of them (see `Sampler` for many calls)."""
    return Sampler(model).draw(n, seed, where, attempts)


class Sampler:
    """A model kept warm: a few twins at a time, the same as `generate` makes."""

    def __init__(self, model: TwinModel) -> None:
        self.joint = Joint(model.plain)
        self.models = (model.outcome, model.effects)

    def draw(
        self, n: int, seed: int = 0, where: Any = None, attempts: int = 10_000, first: int = 0, models: bool = True
    ) -> Any:
        """Rows first .. first + n as an Arrow table; with what the outcome and effect models say of them."""
        condition = self.joint.condition(clauses(where, self.joint.columns))
        field = self.joint.draw(numpy.arange(first, first + n), seed, condition, attempts)
        table = tabling.table_of(self.joint, field, seed)
        return tabling.with_models(table, self.models) if models else table

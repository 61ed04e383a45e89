"""The result of explain: values that add up, what they are of, and how they were found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.interactions import Interactions
from millrace.run.answer import Saved
from millrace.run.errors import MissingExtra, WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import numpy
    import pyarrow
    import shap

BLOCK_ROWS = 8192


@dataclass(frozen=True)  # no slots: what is computed on demand is kept
class Explanation(Saved):
    """SHAP values of `rows` rows.

    values: (rows, features), or (rows, features, outputs) when there is more than one output; read-only, memory-mapped
    when large. base_values: (outputs,). standard_errors: as values, for estimates, else None. predictions: (rows,
    outputs), what base + values add up to. additivity_error, additivity_p99: largest and 99th percentile of
    abs(base + sum of values - model output) over rows and outputs, in the output's unit. unit: of values, in words.
    data: (rows, features) as the model got them; `categories` labels of coded columns. pairs: (pairs, 2) features that
    interact, pair_values: (rows, pairs, outputs), when they were asked for: see `interactions`. drawn_from: how many rows there
    are in all, where these were drawn from more (see `streamed`); `known_importance` is then of all of them.
    """

    values: numpy.ndarray[Any, Any]
    base_values: numpy.ndarray[Any, Any]
    predictions: numpy.ndarray[Any, Any]
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    unit: str
    method: str
    exact: bool
    additivity_error: float
    additivity_p99: float
    data: numpy.ndarray[Any, Any]
    data_digest: str
    model_digest: str
    categories: dict[int, tuple[Any, ...]]
    standard_errors: numpy.ndarray[Any, Any] | None = None
    background_rows: int = 0
    pairs: numpy.ndarray[Any, Any] | None = None
    pair_values: numpy.ndarray[Any, Any] | None = None
    top: int = 12
    seed: int = 0
    known_importance: Any = field(default=None, repr=False)
    drawn_from: int = 0
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    # -- what it is ------------------------------------------------------------------------------------------------
    @property
    def digest(self) -> str:
        """Of the answer alone: equal on every engine, under every budget, from every store."""
        import numpy

        said = (self.method, self.exact, self.output_names, self.feature_names, self.unit)
        errors = () if self.standard_errors is None else numpy.asarray(self.standard_errors)
        pairs = () if self.pair_values is None else (self.pairs, numpy.asarray(self.pair_values))
        return content_key((said, numpy.asarray(self.values), self.base_values, errors, *pairs))

    def __len__(self) -> int:
        return len(self.values)

    def of(self, output: str | int = 0) -> numpy.ndarray[Any, Any]:
        """(rows, features) of one output, by name or number."""
        if isinstance(output, str):
            if output not in self.output_names:
                raise WrongQuestion(f"There is no output {output!r}; there are {', '.join(self.output_names)}.")
            output = self.output_names.index(output)
        return self.values if self.values.ndim == 2 else self.values[:, :, output]

    def to_shap(self) -> shap.Explanation:
        """The same as `shap.Explanation`, so that every plot of shap takes it."""
        try:
            import shap
        except ImportError as e:
            raise MissingExtra("shap", "shap", "to_shap()") from e
        import numpy

        single = self.values.ndim == 2
        base = numpy.full(len(self), self.base_values[0]) if single else numpy.tile(self.base_values, (len(self), 1))
        names = None if single else list(self.output_names)
        return shap.Explanation(
            numpy.asarray(self.values),
            base,
            numpy.asarray(self.data),
            feature_names=list(self.feature_names),
            output_names=names,
        )

    @cached_property
    def interactions(self) -> Interactions | None:
        """Pairwise interaction values, None when they were not asked for."""
        if self.pairs is None or self.pair_values is None:
            return None
        own = self.values if self.values.ndim == 3 else self.values[:, :, None]
        return Interactions(self.pairs, self.pair_values, own, self.feature_names, self.output_names)

    # -- tables ----------------------------------------------------------------------------------------------------
    @cached_property
    def importance(self) -> pyarrow.Table:
        """One row a feature and output: mean |value| with a bootstrap interval, direction; strongest first."""
        if self.known_importance is not None:
            return self.known_importance
        import pyarrow

        from millrace.analyses.explain import views
        from millrace.run.streams import rng

        tables = []
        for k, name in enumerate(self.output_names):
            stream = rng(self.seed, 1, k)
            found = views.importance(
                self.of(k), self.data, self.feature_names, stream, categorical=tuple(self.categories)
            )
            table = pyarrow.table(found)
            tables.append(table.append_column("output", pyarrow.array([name] * len(table))))
        return pyarrow.concat_tables(tables)

    @property
    def table(self) -> pyarrow.Table:
        """Wide: one row a row of the data, one column a feature (and output), then base and prediction."""
        import pyarrow

        return pyarrow.Table.from_batches(list(self._batches(len(self) or 1)))

    def _batches(self, rows: int) -> Any:
        import numpy
        import pyarrow

        many = len(self.output_names) > 1
        names = [f"{f} [{o}]" if many else f for o in self.output_names for f in self.feature_names]
        tails = [f"{t} [{o}]" if many else t for t in ("base value", "prediction") for o in self.output_names]
        for start in range(0, len(self), rows):
            part = slice(start, start + rows)
            columns = [numpy.ascontiguousarray(self.of(k)[part, j]) for k in range(len(self.output_names))
                       for j in range(len(self.feature_names))]  # fmt: skip
            length = len(self.predictions[part])
            columns += [numpy.full(length, b) for b in self.base_values] + list(self.predictions[part].T)
            yield pyarrow.RecordBatch.from_arrays([pyarrow.array(c) for c in columns], names=names + tails)

    def write_tables(self, folder: Path) -> list[Path]:
        """values.parquet (wide, by blocks of rows), importance.parquet, and interactions.parquet where asked for."""
        from pyarrow import parquet

        batches = self._batches(BLOCK_ROWS)
        first = next(batches)
        with parquet.ParquetWriter(folder / "values.parquet", first.schema, compression="zstd") as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        parquet.write_table(self.importance, folder / "importance.parquet")
        written = [folder / "values.parquet", folder / "importance.parquet"]
        if self.interactions is not None:
            parquet.write_table(self.interactions.table, folder / "interactions.parquet")
            written.append(folder / "interactions.parquet")
        return written

    # -- for people ------------------------------------------------------------------------------------------------
    def findings(self) -> list[str]:
        """Sentences, only from the numbers."""
        from millrace.analyses.explain import views

        said = []
        for k, name in enumerate(self.output_names):
            unit = self.unit if len(self.output_names) == 1 else f"{self.unit} of {name}"
            rows = self.importance.to_pylist()
            mine = [r for r in rows if r["output"] == name][: self.top]
            said += views.sentences(mine, float(self.base_values[k]), unit)
        return said

    def summary(self) -> str:
        how = "exact" if self.exact else "estimated"
        head = (
            f"{len(self):,} rows x {len(self.feature_names)} features, {self.method} ({how}); values are in {self.unit}; "
            f"base + values = prediction within {self.additivity_error:.1e}"
        )
        return "\n".join([head, *self.findings()[:5]])

    def as_dict(self) -> dict[str, Any]:
        rows = self.importance.to_pylist()
        return {
            "rows": len(self),
            "features": len(self.feature_names),
            "outputs": list(self.output_names),
            "unit": self.unit,
            "method": self.method,
            "exact": self.exact,
            "base_values": self.base_values.tolist(),
            "background_rows": self.background_rows,
            "additivity_error": self.additivity_error,
            "additivity_p99": self.additivity_p99,
            "data_digest": self.data_digest,
            "model_digest": self.model_digest,
            "interactions": [] if self.interactions is None else self.interactions.table.slice(0, self.top).to_pylist(),
            "importance": [r for r in rows if rows.index(r) < self.top * len(self.output_names)],
        }

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs of the first output: beeswarm, bars, waterfall of the row with the largest prediction,
        dependence of the strongest features."""
        from millrace.analyses.explain import views

        return views.all_charts(self)

    def plot(self, kind: str = "beeswarm", **options: Any) -> Any:
        """A chart that notebooks show: beeswarm, bars, waterfall and force (row=0), dependence (feature=...),
        heatmap, decision."""
        from millrace.analyses.explain import views

        return views.plot(self, kind, **options)

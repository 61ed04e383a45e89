"""The result of a streamed explanation: a Parquet dataset on disk, and what was summed up while it was written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.answer import Explanation
from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import pyarrow

FOLDER = "values"


@dataclass(frozen=True)
class Streamed(Saved):
    """SHAP values of `rows` rows, which lie in `parts` of the folder `values`, in the order of the data.

    A part has a column for each feature (and output), the base value, the prediction, and for estimates the standard errors.
    drawn: an `Explanation` of rows that were drawn by the seed from all: what pictures show; its importance is of all rows.
    additivity_error, additivity_p99: as in `Explanation`; the latter from counts by size, at most a sixteenth too large.
    """

    rows: int
    folder: Path
    parts: tuple[str, ...]
    part_digests: tuple[str, ...]
    drawn: Explanation
    exact: bool
    additivity_error: float
    additivity_p99: float
    data_digest: str
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """Of the answer alone: equal on every engine, under every budget, from every store."""
        one = self.drawn
        said = (one.method, self.exact, one.output_names, one.feature_names, one.unit)
        return content_key((said, self.part_digests, one.base_values))

    def __len__(self) -> int:
        return self.rows

    @property
    def importance(self) -> pyarrow.Table:
        """One row a feature and output: mean |value| over all rows with a bootstrap interval, direction; strongest first."""
        return self.drawn.importance

    @property
    def files(self) -> list[Path]:
        """The parts, in the order of the rows."""
        return [self.folder / name for name in self.parts]

    def batches(self) -> Iterator[pyarrow.RecordBatch]:
        """All rows in their order, a part after another."""
        from pyarrow import parquet

        for path in self.files:
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches()

    def write_tables(self, folder: Path) -> list[Path]:
        """The dataset (in another folder: linked where it can be, else copied), and importance.parquet."""
        from pyarrow import parquet

        there = Path(folder) / FOLDER
        if there.absolute() != self.folder.absolute():
            if there.exists():
                raise WrongQuestion(f"There is a folder {there} already: save into a folder without one.")
            shutil.copytree(self.folder, there, copy_function=_link)
        parquet.write_table(self.importance, Path(folder) / "importance.parquet")
        return [there, Path(folder) / "importance.parquet"]

    def findings(self) -> list[str]:
        """Sentences, only from the numbers."""
        return self.drawn.findings()

    def summary(self) -> str:
        how = "exact" if self.exact else "estimated"
        one = self.drawn
        head = (
            f"{self.rows:,} rows x {len(one.feature_names)} features in {len(self.parts):,} parts, {one.method} ({how}); "
            f"values are in {one.unit}; base + values = prediction within {self.additivity_error:.1e}"
        )
        return "\n".join([head, *self.findings()[:5]])

    def as_dict(self) -> dict[str, Any]:
        said = self.drawn.as_dict()
        own = {
            "rows": self.rows,
            "exact": self.exact,
            "additivity_error": self.additivity_error,
            "additivity_p99": self.additivity_p99,
            "data_digest": self.data_digest,
        }
        return {**said, **own, "parts": len(self.parts), "rows_drawn": len(self.drawn)}

    def charts(self) -> dict[str, dict[str, Any]]:
        """As of an `Explanation`, of the rows that were drawn."""
        return self.drawn.charts()

    def plot(self, kind: str = "beeswarm", **options: Any) -> Any:
        """As `Explanation.plot`, of the rows that were drawn."""
        return self.drawn.plot(kind, **options)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
    return target

"""What every result of an analysis can do, whoever computes it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from millrace.run.errors import WrongQuestion


@runtime_checkable
class Answer(Protocol):
    """A frozen result. `digest` is equal wherever and however it was computed."""

    notes: tuple[str, ...]

    @property
    def digest(self) -> str: ...

    def summary(self) -> str:
        """A short text for people: what was found."""
        ...

    def findings(self) -> list[str]:
        """What was found, a sentence each."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The answer in short, as plain values (for result.json)."""
        ...

    def write_tables(self, folder: Path) -> list[Path]:
        """Write the answer's tables as Parquet; bounded memory."""
        ...

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs by name."""
        ...


class Saved:
    """The part of an answer that is the same for all: saved as a folder, shown in a notebook. Adds no field."""

    saver: Callable[[Any, Path], Path] | None

    @abstractmethod
    def summary(self) -> str: ...

    def save(self, folder: str | Path) -> Path:
        """Write result.json, Parquet tables, pictures and report.html into `folder`."""
        if self.saver is None:
            what = type(self).__name__.lower()
            raise WrongQuestion(f"This {what} was computed inside another run: write_tables(folder) keeps its tables.")
        return self.saver(self, Path(folder))

    def page_tables(self) -> dict[str, list[list[Any]]]:
        """Tables of the report by title; the first row of each is its head."""
        return {}

    def _repr_html_(self) -> str:
        import html

        return "<pre>" + html.escape(self.summary()) + "</pre>"

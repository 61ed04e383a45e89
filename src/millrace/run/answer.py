"""What every result of an analysis can do, whoever computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


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

"""Columns of the data as refute needs them: checked numbers, and the matrix of confounders with categories spelt out.

A category becomes columns of 0 and 1, one for each label but the most frequent; a missing value becomes its own column with
`missing="indicator"`. Large matrices lie in a file, so that the driver never holds them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millrace.run.errors import WrongQuestion
from millrace.run.tables import Rows

if TYPE_CHECKING:
    import numpy

HELD_BYTES = 32 << 20
HUGE = 1e100
ROWS = 16_384


class Columns:
    """The data's columns by name. Numbers are float64, NaN where they are missing; text and categories are codes."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.names = rows, rows.names
        self._at = {name: j for j, name in enumerate(rows.names)}

    def require(self, name: str, role: str) -> None:
        if name not in self._at:
            import difflib

            close = difflib.get_close_matches(name, self.names, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It has {', '.join(self.names[:12])}."
            raise WrongQuestion(f"The data has no column {name!r} (the {role}).{hint}")

    def numbers(self, name: str) -> Any:
        """float64 (rows,). Infinite and absurdly large values are an error."""
        import numpy

        values = numpy.asarray(self._rows.values[:, self._at[name]], numpy.float64)
        with numpy.errstate(invalid="ignore"):
            bad = numpy.flatnonzero(numpy.abs(values) > HUGE)
        if len(bad):
            raise WrongQuestion(
                f"The column {name!r} has {len(bad):,} infinite or absurdly large values (first: {values[bad[0]]:g} in row "
                f"{bad[0]}): a mean over them means nothing. Mend them, or mark them as missing."
            )
        return values

    def labels(self, name: str) -> tuple[Any, ...] | None:
        return self._rows.categories.get(self._at[name])

    def known(self, name: str) -> Any:
        import numpy

        return numpy.isfinite(self.numbers(name))

    def outcome(self, name: str) -> Any:
        """Numbers; two labels are 0 and 1 in alphabetical order."""
        import numpy

        values, labels = self.numbers(name), self.labels(name)
        if labels is None:
            return values
        used = sorted({str(labels[int(v)]) for v in numpy.unique(values[numpy.isfinite(values)])})
        if len(used) != 2:
            raise WrongQuestion(
                f"The column {name!r} holds {len(used)} labels: an effect on it needs numbers, or two labels."
            )
        code = numpy.array(
            [used.index(str(label)) if str(label) in used else numpy.nan for label in labels] + [numpy.nan]
        )
        return code[numpy.where(numpy.isfinite(values), values, len(labels)).astype(numpy.int64)]

    def shown(self, name: str, at: Any) -> Any:
        """Values as people know them: labels where there are some."""
        import numpy

        values, labels = self.numbers(name)[at], self.labels(name)
        return values if labels is None else numpy.asarray([str(labels[int(v)]) for v in values])


def confounders_of(
    columns: Columns, causes: Sequence[str], at: Any, indicators: bool, note: Callable[[str], None]
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], numpy.ndarray[Any, Any]]:
    """(names of the matrix' columns, which of them stand for each cause, float64 (rows, columns)). at: row numbers, or None
    for all. Constant columns are left out and named."""
    import numpy

    made: list[tuple[str, str, Callable[[Any], Any]]] = []  # (cause, name, numbers -> column)
    for cause in causes:
        values = columns.numbers(cause) if at is None else columns.numbers(cause)[at]
        labels, lost = columns.labels(cause), ~numpy.isfinite(values)
        if lost.any() and indicators:
            note(f"{int(lost.sum()):,} missing values of {cause!r} are marked by a column of their own.")
            made.append((cause, f"{cause} missing", lambda v: ~numpy.isfinite(v)))
        if labels is None:
            middle = float(values[~lost].mean()) if (~lost).any() else 0.0
            known = values[~lost]
            if len(known) and numpy.ptp(known) > 0:
                made.append((cause, cause, lambda v, middle=middle: numpy.where(numpy.isfinite(v), v, middle)))
            else:
                note(
                    f"The common cause {cause!r} is the same in all rows and was left out: it cannot confound anything here."
                )
            continue
        codes, counts = numpy.unique(values[~lost], return_counts=True)
        if (counts == 1).any():
            alone = [str(labels[int(c)]) for c in codes[counts == 1]]
            note(
                f"{cause!r} has {len(alone)} labels with one row only (such as {alone[0]!r}): that row fits "
                "exactly and says nothing."
            )
        most = codes[counts.argmax()] if len(codes) else -1
        made += [(cause, f"{cause}={labels[int(c)]}", lambda v, c=c: v == c) for c in codes if c != most]
        if len(codes) < 2:
            note(
                f"The common cause {cause!r} is the same in all rows and was left out: it cannot confound anything here."
            )
    names = tuple(name for _, name, _ in made)
    groups = {c: tuple(j for j, (own, _, _) in enumerate(made) if own == c) for c in causes}
    rows = len(columns._rows.values) if at is None else len(at)
    if at is None and not indicators and list(names) == list(causes) and causes == tuple(columns.names):
        whole = columns._rows.values
        if whole.dtype == numpy.float64 and whole.flags.c_contiguous:
            return names, groups, whole
    matrix = _room(rows, len(made))
    for begin in range(0, rows, ROWS):
        part = slice(begin, begin + ROWS)
        taken = columns._rows.values[part] if at is None else columns._rows.values[at[part]]
        for j, (cause, _, make) in enumerate(made):
            matrix[part, j] = make(numpy.asarray(taken[:, columns._at[cause]], numpy.float64))
    return names, {c: g for c, g in groups.items() if g}, matrix


def _room(rows: int, width: int) -> Any:
    """Zeros; in a file that nobody else sees when they are many."""
    import numpy

    if rows * width * 8 <= HELD_BYTES:
        return numpy.zeros((rows, width))
    with tempfile.TemporaryFile() as file:  # the map keeps it until it goes
        return numpy.memmap(file, dtype=numpy.float64, mode="w+", shape=(rows, width))


def number(value: float) -> str:
    """3 as "3", 2.5 as "2.5"."""
    return f"{value:g}"

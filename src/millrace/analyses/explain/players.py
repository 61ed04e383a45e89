"""Players: which columns are explained together.

Each column is a player of its own unless `groups` says otherwise. A group of columns is known or unknown as a whole: its
value is the Shapley value of the game between groups, which is not the sum of its columns' own values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    import numpy

    from millrace.run.tables import Rows


@dataclass(frozen=True, slots=True)
class Players:
    """of: int64, each column's player, numbered from 0 by first column; names: theirs. grouped: some have several."""

    of: numpy.ndarray[Any, Any]
    names: tuple[str, ...]
    grouped: bool = False


def players(groups: Any, names: tuple[str, ...]) -> Players:
    """The players of columns with these names.

    groups: None, a mapping of a name to columns (names or numbers), a list of lists of columns (named by their first),
    or a text: "city=city_a,city_b; size=width,height". Columns of no group play for themselves. Raises `WrongQuestion`.
    """
    import numpy

    owner: dict[int, str] = {}
    for name, columns in _listed(groups):
        for column in columns:
            at = _place(column, names, name)
            if at in owner:
                raise WrongQuestion(
                    f"The column {names[at]!r} is in two groups: {owner[at]!r} and {name!r}. Leave one."
                )
            owner[at] = name
    called = [owner.get(j, names[j]) for j in range(len(names))]
    for j, name in enumerate(names):
        if j not in owner and name in owner.values():
            raise WrongQuestion(
                f"{name!r} names a group and a column that is not in it: call the group something else."
            )
    order = list(dict.fromkeys(called))
    number = {name: k for k, name in enumerate(order)}
    of = numpy.array([number[name] for name in called], numpy.int64)
    return Players(of, tuple(order), len(order) < len(names))


def shown_data(rows: Rows, played: Players) -> tuple[Any, dict[int, tuple[Any, ...]]]:
    """(data by player, labels of coded players): a group of several columns has no value, only a label that says so."""
    import numpy

    if not played.grouped:
        return rows.values, dict(rows.categories)
    values = numpy.zeros((len(rows.values), len(played.names)), rows.values.dtype)
    labels: dict[int, tuple[Any, ...]] = {}
    for k in range(len(played.names)):
        own = numpy.flatnonzero(played.of == k)
        if len(own) > 1:
            labels[k] = (f"{len(own)} columns",)
            continue
        values[:, k] = rows.values[:, own[0]]
        if int(own[0]) in rows.categories:
            labels[k] = rows.categories[int(own[0])]
    return values, labels


def _listed(groups: Any) -> list[tuple[str, list[Any]]]:
    if groups is None:
        return []
    if isinstance(groups, str):
        parts = [part.partition("=") for part in groups.split(";") if part.strip()]
        if any(not mark or not name.strip() for name, mark, _ in parts):
            raise WrongQuestion(
                f"The groups {groups!r} cannot be read: write 'name=column,column; other=column,column'."
            )
        return [(name.strip(), [c.strip() for c in columns.split(",") if c.strip()]) for name, _, columns in parts]
    if isinstance(groups, Mapping):
        return [(str(name), list(columns)) for name, columns in groups.items()]
    if isinstance(groups, Sequence) and all(isinstance(columns, Sequence) and columns for columns in groups):
        return [(" + ".join(map(str, columns[:3])), list(columns)) for columns in groups]
    raise WrongQuestion("Groups are a mapping of names to lists of columns, or a list of lists of columns.")


def _place(column: Any, names: tuple[str, ...], group: str) -> int:
    if isinstance(column, str) and column in names:
        return names.index(column)
    if not isinstance(column, str) and 0 <= int(column) < len(names):
        return int(column)
    raise WrongQuestion(f"The group {group!r} has the column {column!r}, which the data does not have.")

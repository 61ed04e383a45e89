"""Weights of twins by which they have known margins (census totals): raking.

Factors of levels are found once, on a fixed sample of the model's own twins, by iterative proportional fitting (Deming and
Stephan 1940); a twin's weight is the product of the factors of its levels. So row i has the same weight for every number of
twins. Weights average one; they change nothing but the margins: within a cell twins stay as they are.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin.columns import Column
from millrace.run.errors import AnalysisFailed, WrongQuestion

SAMPLE = 65_536
ROUNDS, CLOSE = 500, 1e-6
Margins = Mapping[str, Mapping[str, float]]


def read_margins(given: Any, columns: Sequence[Column]) -> dict[str, dict[str, float]]:
    """Shares by column and level, adding up to one in each column, from a TOML file or a mapping of counts or shares.

    `WrongQuestion` for what is no column of known levels, a level that there is not, or one that has no figure.
    """
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if not path.exists():
            raise WrongQuestion(f"There is no file {path} with margins.")
        try:
            given = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as e:
            raise WrongQuestion(f"The margins {path} are not TOML: {e}.") from None
    if not isinstance(given, Mapping) or not given:
        raise WrongQuestion(
            "margins: a mapping from columns to the count or share of each level, such as region = {west = 3}."
        )
    known, found = {c.name: c for c in columns}, {}
    for name, said in given.items():
        column = known.get(name)
        levels = () if column is None else levels_of(column)
        if not levels:
            raise WrongQuestion(
                f"margins: {name!r} is no column of categories or truth values, or of few whole numbers."
            )
        told = {str(level): float(count) for level, count in said.items()}
        odd, without = sorted(set(told) - set(levels)), [v for v in levels if v not in told]
        if odd or without:
            what = f"has no level {odd[0]!r}" if odd else f"lacks the level {without[0]!r}"
            raise WrongQuestion(f"margins: {name!r} {what}; its levels are {', '.join(levels[:12])}.")
        total = sum(told.values())
        if min(told.values()) < 0 or total <= 0:
            raise WrongQuestion(f"margins: counts of {name!r} are below zero, or all zero.")
        found[name] = {level: told[level] / total for level in levels}
    return found


def levels_of(column: Column) -> tuple[str, ...]:
    """Levels as margins name them; none where there are too many, or none that are known."""
    if column.missing or column.pooled or not column.drawn or column.ranked:
        return ()
    if column.kind == "category":
        return column.labels
    if column.kind == "boolean":
        return tuple("true" if v else "false" for v in column.values)
    return tuple(f"{v:g}" for v in column.values) if column.kind == "integer" and column.codes <= 100 else ()


def factors(margins: Margins, columns: Sequence[Column], codes: Any) -> dict[str, list[float]]:
    """Factors by column and code; codes: uint8 (columns, rows) of the sample.

    `AnalysisFailed` when no weights have these margins.
    """
    at = {c.name: j for j, c in enumerate(columns)}
    weights = numpy.ones(codes.shape[1])
    made = {name: numpy.ones(len(shares)) for name, shares in margins.items()}
    for _ in range(ROUNDS):
        far = 0.0
        for name, shares in margins.items():
            held = codes[at[name]]
            wanted = numpy.array(list(shares.values()))
            has = numpy.bincount(held, weights=weights, minlength=len(wanted))[: len(wanted)] / weights.sum()
            lacking = (has == 0) & (wanted > 0)
            if lacking.any():
                level = list(shares)[int(numpy.argmax(lacking))]
                raise AnalysisFailed(
                    f"margins: no twin has {name} = {level} together with the other margins, and {level} has a share."
                )
            factor = numpy.where(has > 0, wanted / numpy.where(has > 0, has, 1.0), 1.0)
            far = max(far, float(numpy.abs(has - wanted).max()))
            made[name] *= factor
            weights *= factor[held]
        if far < CLOSE:
            scale = float(weights.mean())
            first = next(iter(made))
            made[first] = made[first] / scale
            return {name: values.tolist() for name, values in made.items()}
    raise AnalysisFailed(
        f"margins: no weights have all of these margins after {ROUNDS} rounds: they contradict each other."
    )


def weights_of(found: Mapping[str, Sequence[float]], columns: Sequence[Column], codes: Any) -> Any:
    """float64 (rows,): the weight of each twin."""
    at = {c.name: j for j, c in enumerate(columns)}
    weights = numpy.ones(codes.shape[1])
    for name, values in found.items():
        weights *= numpy.asarray(values)[codes[at[name]]]
    return weights

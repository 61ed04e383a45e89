"""Targets with their data read: observations as arrays, and the losses of simulated values against them.

All targets of a replicate are evaluated in one pass over its outputs. Files and tables are read here, before anything runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millrace.analyses.calibrate.aligning import Alignment, columns_of
from millrace.analyses.calibrate.kernels import losses
from millrace.analyses.calibrate.parts import Target
from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.run.function import find_function


@dataclass(frozen=True, slots=True)
class Observed:
    """One target, ready. values: (n,) observed; x: (n,) or None, the last column of `on`; sd, of, simulated_of: what its loss
    needs, arrays or numbers; loss: (simulated, observed) -> float, the user's own, or None."""

    target: Target
    alignment: Alignment
    values: Any
    x: Any
    sd: Any
    of: Any
    own: Callable[[Any, Any], float] | None

    @property
    def name(self) -> str:
        return self.target.name

    def loss(self, aligned: Any) -> float:
        """aligned: (1, n) or (2, n), as `Alignment.take` gives it."""
        return float(self.losses(aligned[0], aligned[1] if len(aligned) == 2 else self.target.simulated_of))

    def losses(self, simulated: Any, people: Any) -> Any:
        """simulated: (..., n), of one simulation or many; people: behind a simulated share, where the loss asks. (...,)."""
        t = self.target
        if self.own is not None:
            flat = [self._own(row) for row in simulated.reshape(-1, len(self.values))]
            return np.reshape(flat, simulated.shape[:-1])
        if t.loss == "normal":
            return losses.normal(simulated, self.values, self.sd)
        if t.loss == "binomial":
            return losses.binomial(simulated, self.values, self.of)
        if t.loss == "beta-binomial":
            return losses.beta_binomial(simulated, self.values, self.of, people)
        plain = {"squared": losses.squared, "absolute": losses.absolute, "poisson": losses.poisson}
        return plain[t.loss](simulated, self.values)

    def _own(self, simulated: Any) -> float:
        assert self.own is not None  # asked by `losses` only
        try:
            return float(self.own(simulated, self.values))
        except Exception as e:
            raise AnalysisFailed(
                f"The loss of the target {self.name!r} raised {type(e).__name__}: {e}. It is called with two arrays of "
                f"{len(self.values)} numbers, simulated and observed, and gives a number."
            ) from e


def read_target(target: Target) -> Observed:
    """The target with its data; `WrongQuestion` when they are not there, or lack a column."""
    columns = _columns(target)
    for name in target.on:
        _needed(columns, name, target, "joins on")
    observed = _observed(columns, target)
    values = _numbers(columns[observed], observed, target)
    if not len(values):
        raise WrongQuestion(f"The target {target.name!r} has no observations.")
    sd, of = (_column_or_number(columns, given, target) for given in (target.sd, target.of))
    _check(target, values, sd, of)
    alignment = Alignment(
        name=target.name,
        output=target.output or target.name,
        column=target.column,
        on=target.on,
        asof=target.align == "asof",
        keys={name: columns[name] for name in target.on},
        rows=len(values),
        of=target.simulated_of if isinstance(target.simulated_of, str) else None,
    )
    x = columns[target.on[-1]] if target.on else None
    return Observed(target, alignment, values, x, sd, of, _loss(target))


def measured(observed: Sequence[Observed], aligned: Mapping[str, Any]) -> dict[str, float]:
    """The loss of every target for one replicate's aligned values."""
    return {o.name: o.loss(aligned[o.name]) for o in observed}


def combined(observed: Sequence[Observed], by_target: Mapping[str, float]) -> float:
    """The weighted sum; a target of weight 0 is told, and does not count."""
    return sum(o.target.weight * by_target[o.name] for o in observed if o.target.weight)


def over_replicates(
    observed: Sequence[Observed], losses_of: Sequence[Mapping[str, float]], aligned: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The losses of a trial by target: the mean of its replicates' losses, or the loss of their mean."""
    found = {}
    for o in observed:
        if o.target.combine == "mean":
            total = sum(one[o.name] for one in aligned)  # in the order of the seeds
            found[o.name] = o.loss(total / len(aligned))
        else:
            found[o.name] = float(sum(one[o.name] for one in losses_of) / len(losses_of))
    return found


def _columns(target: Target) -> dict[str, Any]:
    data = target.data
    if isinstance(data, str | os.PathLike):
        from millrace.run.tables import read_rows

        rows = read_rows(Path(data), f"target {target.name!r}")
        return {
            name: np.asarray(rows.categories[j])[rows.values[:, j].astype(int)]
            if j in rows.categories
            else rows.values[:, j]
            for j, name in enumerate(rows.names)
        }
    try:
        return columns_of(data, target.observed or target.column or target.name)
    except ValueError as e:
        raise WrongQuestion(f"The data of the target {target.name!r} cannot be read: {e}.") from None


def _observed(columns: Mapping[str, Any], target: Target) -> str:
    """The name of the observed column."""
    named = target.observed or target.column
    if named:
        _needed(columns, named, target, "compares")
        return named
    if target.name in columns:
        return target.name
    used = {*target.on, *(c for c in (target.sd, target.of) if isinstance(c, str))}
    others = [name for name in columns if name not in used]
    if len(others) != 1:
        raise WrongQuestion(
            f"The data of the target {target.name!r} have the columns {', '.join(map(repr, columns))}: name the observed one "
            "as its `observed`."
        )
    return others[0]


def _needed(columns: Mapping[str, Any], name: str, target: Target, what: str) -> None:
    if name not in columns:
        raise WrongQuestion(
            f"The target {target.name!r} {what} the column {name!r}, which its data lack: they have "
            f"{', '.join(map(repr, columns))}."
        )


def _numbers(values: Any, name: str, target: Target) -> Any:
    if values.dtype.kind not in "fiub":
        raise WrongQuestion(f"The column {name!r} of the target {target.name!r} holds {values.dtype}: give numbers.")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise WrongQuestion(
            f"The column {name!r} of the target {target.name!r} has missing or infinite values: leave these rows out."
        )
    return numbers


def _column_or_number(columns: Mapping[str, Any], given: float | str | None, target: Target) -> Any:
    if not isinstance(given, str):
        return given
    _needed(columns, given, target, "needs")
    return _numbers(columns[given], given, target)


def _check(target: Target, values: Any, sd: Any, of: Any) -> None:
    """What a loss cannot take."""
    said = ""
    if target.loss == "normal" and not (np.asarray(sd) > 0).all():
        said = "needs sd above 0"
    elif target.loss == "poisson" and (values < 0).any():
        said = "is of counts, and some are below 0"
    elif target.loss in ("binomial", "beta-binomial"):
        if not (np.asarray(of) > 0).all():
            said = "needs `of` above 0"
        elif not ((values >= 0) & (values <= 1)).all():
            said = "is of shares, and some observed values are not between 0 and 1"
    if said:
        raise WrongQuestion(f"The {target.loss} loss of the target {target.name!r} {said}.")


def _loss(target: Target) -> Callable[[Any, Any], float] | None:
    if not target.own:
        return None
    if isinstance(target.loss, str):
        return find_function(target.loss)
    if callable(target.loss):
        return target.loss  # type: ignore[no-any-return]
    raise WrongQuestion(f"The loss of the target {target.name!r} is neither a name nor a function: {target.loss!r}.")

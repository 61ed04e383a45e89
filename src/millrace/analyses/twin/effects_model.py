"""A learnt effect: averages with their errors, the effect of a row, of a group, and how well ranking by it does.

Kept as a folder of JSON and LightGBM text; it holds models and summaries, and none of the rows. See `effects` for how it is
learnt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.twin import features
from millrace.analyses.twin.features import Encoding
from millrace.analyses.twin.kernels import effects as kernel
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.units import format_figure

if TYPE_CHECKING:
    import pyarrow

Array = numpy.ndarray[Any, Any]

FORMAT = 1
METHODS = {"dr": "DR-learner", "t": "T-learner", "x": "X-learner"}
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Overlap:
    """Whether treated and others can be compared. outside: share of the rows whose chance of treatment lay outside `limits`.
    trimmed: these were left out. histogram (2, bins): share of the untreated, of the treated, by chance; edges (bins + 1,)."""

    limits: tuple[float, float]
    outside: float
    trimmed: bool
    rows: int
    kept: int
    edges: Array
    histogram: Array

    @property
    def population(self) -> str:
        """Whom the effects are about."""
        if not self.trimmed:
            return f"all {self.rows:,} rows"
        low, high = self.limits
        return f"the {self.kept:,} of {self.rows:,} rows whose chance of treatment is {low} to {high}"

    def notes(self) -> list[str]:
        low, high = self.limits
        if self.trimmed:
            return [
                f"Effects are of {self.population}: for the other {self.rows - self.kept:,} there is nobody to compare with."
            ]
        if self.outside > 0:
            return [f"{self.outside:.1%} of the rows have a chance of treatment outside {low}-{high}; they were kept."]
        return []


@dataclass(frozen=True)
class Prediction:
    """Of rows: tau (n,), the effect of each; baseline (n,), the outcome without treatment; propensity (n,), the chance of
    treatment; basis (n, q), what a group's estimate is made of: its mean over the group times the projection's coefficients."""

    tau: Array
    baseline: Array
    propensity: Array
    basis: Array


@dataclass(frozen=True)
class EffectModel:
    """ate, att: (effect, standard error), doubly robust. spread: standard deviation of the effect between rows, as far as it is
    learnt. sds: standard deviation of the outcome of the untreated, of the treated. uplift: see `kernels.effects.uplift`.
    scores, tau: (rows,), doubly robust scores and cross-fitted effects of the rows that it was learnt from, kept: their numbers;
    learnt_from: these rows as they were given, and how many of them (None: all). None in a model that was loaded."""

    treatment: str
    outcome: str
    kind: str
    arms: tuple[Any, ...]
    labels: tuple[Any, ...]
    method: str
    encoding: Encoding
    models: Mapping[str, Mapping[str, Any]]
    projection: Mapping[str, Any]
    ate: tuple[float, float]
    att: tuple[float, float]
    spread: float
    rows: int
    treated: int
    sds: tuple[float, float]
    overlap: Overlap
    uplift: Mapping[str, Array]
    fingerprint: str
    notes: tuple[str, ...] = ()
    scores: Array | None = field(default=None, repr=False, compare=False)
    tau: Array | None = field(default=None, repr=False, compare=False)
    kept: Array | None = field(default=None, repr=False, compare=False)
    learnt_from: tuple[Any, int | None] | None = field(default=None, repr=False, compare=False)

    @property
    def digest(self) -> str:
        p = self.projection
        said = [
            FORMAT,
            self.treatment,
            self.outcome,
            self.method,
            self.encoding.as_dict(),
            list(self.ate),
            list(self.att),
        ]
        return content_key([*said, numpy.asarray(p["beta"]), numpy.asarray(p["covariance"]), self.fingerprint])

    def interval(self, of: str = "ate") -> tuple[float, float]:
        """95 % interval of the average effect, or of that on the treated ("att")."""
        effect, se = self.ate if of == "ate" else self.att
        return effect - NORMAL_95 * se, effect + NORMAL_95 * se

    # -- asked ---------------------------------------------------------------------------------------------------------
    def predict(self, table: pyarrow.Table) -> Prediction:
        """What is known of the rows of a table."""
        from millrace.analyses.twin.effects import combined

        x = features.encode(self.encoding, table, "table")
        found = {role: kernel.predict(model, x) for role, model in self.models.items()}
        tau = combined(self.method, found)
        p = self.projection
        design = kernel.design_from(p["design"])
        return Prediction(tau, found["untreated"], found["propensity"], kernel.basis(design, tau, p["middle"], x))

    def columns(self, table: pyarrow.Table) -> dict[str, Array]:
        """Baseline outcome, propensity and effect of each row, as columns by name."""
        found = self.predict(table)
        return {"baseline": found.baseline, "propensity": found.propensity, "effect": found.tau}

    def of_group(self, mean_basis: Array) -> tuple[float, float]:
        """(effect, standard error) of rows whose mean basis is (q,), by the projection."""
        beta, covariance = numpy.asarray(self.projection["beta"]), numpy.asarray(self.projection["covariance"])
        return float(mean_basis @ beta), float(numpy.sqrt(max(0.0, mean_basis @ covariance @ mean_basis)))

    # -- for people ----------------------------------------------------------------------------------------------------
    def describe(self) -> list[str]:
        """What is known of it, a sentence each."""
        (low, high), (effect, _) = self.interval(), self.ate
        on, _ = self.att
        a, b = self.interval("att")
        return [
            f"{self.treatment} changes {self.outcome} by {format_figure(effect)} on average (95 % interval "
            f"{format_figure(low)} to "
            f"{format_figure(high)}), on the treated by {format_figure(on)} ({format_figure(a)} to {format_figure(b)}), by "
            "the doubly "
            f"robust estimator with cross-fitting on {self.overlap.population}, {self.treated:,} of them treated.",
            f"The effect differs between rows by {format_figure(self.spread)} (standard deviation that the "
            f"{METHODS[self.method]} "
            "has learnt).",
        ]

    # -- kept ----------------------------------------------------------------------------------------------------------
    @property
    def plain(self) -> dict[str, Any]:
        """All of it as storable values: what workers are given, and what `save` writes."""
        seen = {n: getattr(self.overlap, n) for n in ("outside", "trimmed", "rows", "kept", "edges", "histogram")}
        kept = {
            n: getattr(self, n)
            for n in ("treatment", "outcome", "kind", "method", "spread", "rows", "treated", "fingerprint")
        }
        pairs = {n: list(getattr(self, n)) for n in ("arms", "labels", "ate", "att", "sds", "notes")}
        return {
            "format": FORMAT, **kept, **pairs, "encoding": self.encoding.as_dict(), "projection": dict(self.projection),
            "overlap": {**seen, "limits": list(self.overlap.limits)}, "uplift": dict(self.uplift),
            "models": {role: dict(model) for role, model in self.models.items()},
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write effects.json and the trees as text into the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        plain = self.plain
        for role, model in plain["models"].items():
            (folder / f"{role}.txt").write_text(model.pop("trees"))
        (folder / "effects.json").write_text(json.dumps(_listed(plain), indent=1))


def of_plain(said: Mapping[str, Any]) -> EffectModel:
    """The inverse of `EffectModel.plain`."""
    seen = said["overlap"]
    kept = {n: said[n] for n in ("treatment", "outcome", "kind", "method", "spread", "rows", "treated", "fingerprint")}
    pairs = {n: tuple(said[n]) for n in ("arms", "labels", "ate", "att", "sds", "notes")}
    return EffectModel(
        **kept, **pairs, encoding=Encoding.of(said["encoding"]), models=said["models"], projection=said["projection"],
        overlap=Overlap(**{**seen, "limits": tuple(seen["limits"])}), uplift=said["uplift"],
    )  # fmt: skip


def load(folder: str | Path) -> EffectModel:
    """The model that `save` wrote; `WrongQuestion` when it is of another format or not whole."""
    folder = Path(folder)
    try:
        said = _arrayed(json.loads((folder / "effects.json").read_text()))
        if said.get("format") != FORMAT:
            raise WrongQuestion(
                f"{folder} is an effect model of format {said.get('format')}, and this millrace reads {FORMAT}: fit it again, "
                "or read "
                "it with the millrace that wrote it."
            )
        models = {role: {**m, "trees": (folder / f"{role}.txt").read_text()} for role, m in said["models"].items()}
        return of_plain({**said, "models": models})
    except (OSError, ValueError, KeyError, TypeError) as e:
        if isinstance(e, WrongQuestion):
            raise
        raise WrongQuestion(f"{folder} is not a whole effect model ({type(e).__name__}: {e}). Fit it again.") from e


def _listed(value: Any) -> Any:
    """Arrays as {"array": lists}: numbers in JSON are exact, and a model has a few thousand."""
    if isinstance(value, numpy.ndarray):
        return {"array": value.tolist(), "type": value.dtype.name}
    if isinstance(value, Mapping):
        return {str(k): _listed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    return value.item() if isinstance(value, numpy.generic) else value


def _arrayed(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array", "type"}:
            return numpy.asarray(value["array"], value["type"])
        return {k: _arrayed(v) for k, v in value.items()}
    return [_arrayed(v) for v in value] if isinstance(value, list) else value

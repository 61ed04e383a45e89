"""An intervention as data: who is eligible, what changes, what it costs, who takes it up, and where its effect comes from.

A TOML file or a mapping; closed and frozen. The effect is `learned` (by the effect model, of the treatment in the data),
`assumed` (a distribution that the user states, with its source in words) or `structural` (changed columns pushed through the
outcome model: predictive, not causal).
"""

from __future__ import annotations

import itertools
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from millrace.analyses.twin.spec import Closed
from millrace.run.errors import WrongQuestion

Where = str | Mapping[str, Any] | None


class Adoption(Closed):
    """The share of those who are offered it that takes it up: its mean, and how surely that is known (standard deviation)."""

    mean: float = Field(1.0, gt=0, le=1)
    sd: float = Field(0.0, ge=0, le=0.5)


class Effect(Closed):
    """Where the effect on one who takes it up comes from.

    Assumed: `mean` and `sd` (how surely it is known) in outcome units, or `low` and `high` of an even distribution; `because`:
    its source in words; `by` and `levels`: means by the value of a column (`mean` is for all other values). The others take no
    figures.
    """

    source: Literal["learned", "assumed", "structural"] = "learned"
    mean: float | None = None
    sd: float | None = Field(None, ge=0)
    low: float | None = None
    high: float | None = None
    because: str = ""
    by: str | None = None
    levels: Mapping[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Effect:
        figures = [n for n in ("mean", "sd", "low", "high", "by") if getattr(self, n) is not None]
        if self.source != "assumed":
            if figures or self.levels:
                raise ValueError(
                    f"a {self.source} effect takes no {', '.join(figures) or 'levels'}: write source = 'assumed'"
                )
            return self
        if not self.because.strip():
            raise ValueError("an assumed effect needs `because`: where its figures come from, in words")
        even = self.low is not None and self.high is not None
        if even == (self.mean is not None):
            raise ValueError("an assumed effect needs mean and sd, or low and high")
        if not even and self.sd is None:
            raise ValueError(
                "an assumed effect needs sd: how surely its mean is known (0 says exactly, which nobody knows)"
            )
        if even and self.low > self.high:  # type: ignore[operator]
            raise ValueError(f"low {self.low} is above high {self.high}")
        if (self.by is None) != (not self.levels):
            raise ValueError("`by` names the column of `levels`: give both or none")
        return self

    @property
    def middle(self) -> float:
        """The mean of an assumed one."""
        return self.mean if self.mean is not None else (self.low + self.high) / 2  # type: ignore[operator]

    @property
    def doubt(self) -> float:
        """The standard deviation of an assumed one."""
        return self.sd if self.sd is not None else (self.high - self.low) / 12**0.5  # type: ignore[operator]


class Intervention(Closed):
    """One thing that could be done. set, shift, scale: columns and what becomes of them. cost_per_unit: money for each one who is
    offered it; intensity: of its effect, 1 as the effect says; starts_per_day: how many could be enrolled in an experiment."""

    name: str = Field(min_length=1)
    about: str = ""
    channel: str = ""
    eligible: Where = None
    set: Mapping[str, Any] = Field(default_factory=dict)
    shift: Mapping[str, float] = Field(default_factory=dict)
    scale: Mapping[str, float] = Field(default_factory=dict)
    cost_per_unit: float = Field(0.0, ge=0)
    duration_days: float = Field(30.0, gt=0)
    starts_per_day: float | None = Field(None, gt=0)
    intensity: float = Field(1.0, gt=0)
    adoption: Adoption = Adoption()
    effect: Effect = Effect()

    @field_validator("effect", mode="before")
    @classmethod
    def _source(cls, given: Any) -> Any:
        """`effect = "learned"` is its source."""
        return {"source": given} if isinstance(given, str) else given

    @field_validator("adoption", mode="before")
    @classmethod
    def _share(cls, given: Any) -> Any:
        """`adoption = 0.4` is its mean."""
        return {"mean": given} if isinstance(given, int | float) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _whole(self) -> Intervention:
        changed = [*self.set, *self.shift, *self.scale]
        twice = sorted({n for n in changed if changed.count(n) > 1})
        if twice:
            raise ValueError(f"column {twice[0]!r} is changed in two ways")
        if self.effect.source == "structural" and not changed:
            raise ValueError("a structural effect needs changed columns: set, shift or scale")
        return self

    @property
    def changed(self) -> tuple[str, ...]:
        return (*self.set, *self.shift, *self.scale)

    @property
    def label(self) -> str:
        """What its effect is worth, in words."""
        return {
            "learned": "learned from the data's treatment",
            "assumed": f"assumed: {self.effect.because}",
            "structural": "structural: predictive, not causal",
        }[self.effect.source]


def read(given: Any) -> Intervention:
    """An intervention from a TOML file, a mapping, or as it is. `WrongQuestion` names what is wrong in it."""
    if isinstance(given, Intervention):
        return given
    where = "The intervention"
    if isinstance(given, str | os.PathLike):
        where, given = str(given), _loaded(given)
    if not isinstance(given, Mapping):
        raise WrongQuestion(f"An intervention is a TOML file or a mapping, and this is a {type(given).__qualname__}.")
    try:
        return Intervention(**given)
    except ValidationError as e:
        said = "; ".join(map(_wrong, e.errors()))
        raise WrongQuestion(
            f"{where} {'is not one that can be simulated' if where[0] == 'T' else 'cannot be used'}: {said}."
        ) from None


def _wrong(one: Any) -> str:
    """What is wrong with a field, in our words."""
    *path, last = [str(part) for part in one["loc"]] or ["intervention"]
    name = ".".join([*path, last])
    if one["type"] == "extra_forbidden":
        known = {"adoption": Adoption, "effect": Effect}.get(path[0], Intervention) if path else Intervention
        return f"there is no field {name}; there are {', '.join(known.model_fields)}"
    if one["type"] == "missing":
        return f"{name} is missing"
    own = one.get("ctx", {}).get("error")
    return f"{name}: {own or one['msg'].removeprefix('Input ')}"


def read_all(given: Any) -> tuple[Intervention, ...]:
    """One or several: a file, a folder of TOML files, a text `a.toml,b.toml`, a mapping, or a sequence of these. Names differ.
    One with `vary`, a table of values by name, is a grid (see `grid`)."""
    if isinstance(given, str) and "," in given:
        given = [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, str | os.PathLike) and Path(given).is_dir():
        given = sorted(Path(given).glob("*.toml"))
        if not given:
            raise WrongQuestion("The folder holds no TOML file (.toml) of an intervention.")
    many = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not many:
        raise WrongQuestion("No intervention is given.")
    found = tuple(one for each in many for one in _varied(each))
    names = [one.name for one in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise WrongQuestion(f"Two interventions are called {twice[0]!r}: give each a name of its own.")
    return found


def _varied(given: Any) -> tuple[Intervention, ...]:
    """One, or the grid that its `vary` asks for."""
    said = _loaded(given) if isinstance(given, str | os.PathLike) else given
    if isinstance(said, Mapping) and isinstance(said.get("vary"), Mapping):
        return grid({k: v for k, v in said.items() if k != "vary"}, said["vary"])
    return (read(given),)


def _loaded(place: str | os.PathLike[str]) -> Any:
    """What a TOML file says."""
    try:
        said = tomllib.loads(Path(place).read_text())
    except OSError as e:
        raise WrongQuestion(
            f"There is no intervention {place} ({e.strerror}): name a TOML file, or give a mapping."
        ) from e
    except tomllib.TOMLDecodeError as e:
        raise WrongQuestion(f"{place} is not TOML: {e}.") from e
    return said.get("intervention", said)


def grid(base: Any, variations: Mapping[str, Sequence[Any]]) -> tuple[Intervention, ...]:
    """Scenarios: `base` with every combination of values. Names of fields, with dots inside: {"intensity": [1, 2],
    "adoption.mean": [0.2, 0.4]}. Each is called `name, intensity=1, adoption.mean=0.2`."""
    first, names = read(base), list(variations)
    made = []
    for values in itertools.product(*variations.values()):
        said = first.model_dump()
        for name, value in zip(names, values, strict=True):
            *path, last = name.split(".")
            at = said
            for step in path:
                at = at.get(step, {}) if isinstance(at, dict) else {}
            if not isinstance(at, dict) or (last not in at and not path):
                raise WrongQuestion(f"An intervention has no {name!r} that could be varied; it has {', '.join(said)}.")
            at[last] = value
        said["name"] = ", ".join([first.name, *(f"{n}={v}" for n, v in zip(names, values, strict=True))])
        made.append(read(said))
    return tuple(made)

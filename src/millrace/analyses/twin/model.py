"""A fitted model of twins: what it knows, saved as a folder and loaded again without the training data.

    twin-DIGEST/
      model.json         format, columns, order, constraints, where each array lies
      arrays.TYPE.npy    the arrays of one type, one after the other; mapped when loaded
      outcome/           the outcome model, where there is one (see `outcome`)
      effects/           the effect model, where there is one (see `effects`)

No pickle. The digest of all that is in it is the model's name. A folder of a later format is refused with what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin.columns import Column
from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key

FORMAT = 3
ARRAYS = "__array__"


@dataclass(frozen=True)
class Generator:
    """The joint distribution. order: numbers of the drawn columns, in which a twin is drawn. parts: by place in the order,
    plain values and arrays (see `parts`). scores: tables of the ridge index, by column number, as `parts` reads them. judge: by
    which drawn rows are accepted (see `kernels.judging`), empty without."""

    order: tuple[int, ...]
    parts: tuple[Mapping[str, Any], ...]
    scores: tuple[Any, ...] = ()
    judge: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TwinModel(Saved):
    """columns: in the data's order. constraints: plain mappings (see `constraints`). known: rows, privacy, min_leaf, seed, which
    column is outcome and treatment, digest of the data: plain values. outcome, effects: models with `digest`, `save(folder)`
    and `describe()`, or None."""

    columns: tuple[Column, ...]
    generator: Generator
    constraints: tuple[Mapping[str, Any], ...]
    known: Mapping[str, Any]
    outcome: Any = None
    effects: Any = None
    pictures: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    # -- what it is --------------------------------------------------------------------------------------------------
    @cached_property
    def plain(self) -> dict[str, Any]:
        """The joint distribution as plain values and arrays: what `run.share` takes, and `joint` reads."""
        return {
            "format": FORMAT,
            "columns": [{f.name: getattr(c, f.name) for f in fields(c)} for c in self.columns],
            "order": list(self.generator.order),
            "parts": [dict(p) for p in self.generator.parts],
            "scores": list(self.generator.scores),
            "judge": dict(self.generator.judge),
            "constraints": [dict(c) for c in self.constraints],
            "known": dict(self.known),
        }

    @cached_property
    def digest(self) -> str:
        """Of all that is in it."""
        beside = [None if part is None else part.digest for part in (self.outcome, self.effects)]
        return content_key([self.plain, *beside])

    @property
    def name(self) -> str:
        return f"twin-{self.digest[:16]}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    def column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise WrongQuestion(f"The model has no column {name!r}; it has {', '.join(map(repr, self.names))}.")

    # -- kept --------------------------------------------------------------------------------------------------------
    def keep(self, folder: str | os.PathLike[str]) -> Path:
        """Write it as `folder/twin-DIGEST`, whole or not at all; a model that is there already is left as it is."""
        place = Path(folder) / self.name
        if place.exists():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".twin-", dir=place.parent))
        try:
            _write(self.plain, making)
            for name in ("outcome", "effects"):
                part = getattr(self, name)
                if part is not None:
                    (making / name).mkdir()
                    part.save(making / name)
            (making / "digest").write_text(self.digest + "\n")
            making.chmod(0o755)
            making.rename(place)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        return place

    def write_tables(self, folder: Path) -> list[Path]:
        """The model's folder."""
        return [self.keep(folder)]

    # -- for people --------------------------------------------------------------------------------------------------
    def findings(self) -> list[str]:
        k = self.known
        said = [
            f"{self.name}: the joint distribution of {len(self.columns)} columns, learnt from {k['rows']:,} rows "
            f"(privacy {k['privacy']}: at least {k['min_leaf']} rows a leaf)."
        ]
        if self.generator.judge:
            said.append("A classifier between real rows and twins judges finished rows: about three draws make a twin.")
        if self.constraints:
            said.append(f"{len(self.constraints)} constraints hold on every twin: {_some(self.constraints)}.")
        for part in (self.outcome, self.effects):
            if part is not None:
                said += part.describe()
        return said

    def summary(self) -> str:
        return "\n".join(self.findings())

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "known": dict(self.known),
            "columns": [c.described() for c in self.columns],
            "order": [self.columns[j].name for j in self.generator.order],
            "constraints": [{k: v for k, v in c.items() if k != "pairs"} for c in self.constraints],
            "models": [n for n in ("outcome", "effects") if getattr(self, n) is not None],
        }

    def page_tables(self) -> dict[str, list[list[Any]]]:
        """What was found of each column, and the constraints that hold."""
        columns = [["column", "kind", "values", "may be missing"]]
        columns += [[c.name, c.kind, c.values_text(), "yes" if c.missing else ""] for c in self.columns]
        held = [["constraint"], *([c["said"]] for c in self.constraints)]
        return {"What each column is": columns, **({"What holds on every twin": held} if self.constraints else {})}

    def charts(self) -> dict[str, dict[str, Any]]:
        if self.effects is None:
            return dict(self.pictures)
        from millrace.analyses.twin import simulate_views

        return {**self.pictures, **simulate_views.of_effects(self.effects)}


def _some(constraints: tuple[Mapping[str, Any], ...], most: int = 6) -> str:
    said = [c["said"] for c in constraints]
    return "; ".join(said[:most]) + (f"; and {len(said) - most} more" if len(said) > most else "")


def of_plain(plain: Mapping[str, Any], **more: Any) -> TwinModel:
    """The inverse of `TwinModel.plain`."""
    columns = tuple(Column(**{n: _tupled(v) for n, v in c.items()}) for c in plain["columns"])
    generator = Generator(tuple(plain["order"]), tuple(plain["parts"]), tuple(plain["scores"]), plain["judge"])
    return TwinModel(columns, generator, tuple(plain["constraints"]), plain["known"], **more)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value


# -- files -----------------------------------------------------------------------------------------------------------
def load(place: str | os.PathLike[str]) -> TwinModel:
    """The model in that folder, or the only one in a run's folder. Its arrays are mapped."""
    folder = _found(Path(place))
    try:
        said = json.loads((folder / "model.json").read_text())
    except ValueError as e:
        raise WrongQuestion(f"{folder} is not a whole model: model.json is no JSON ({e}). Fit it again.") from e
    if said.get("format") != FORMAT:
        raise WrongQuestion(
            f"{folder} is a model of format {said.get('format')}, and this millrace reads {FORMAT}. Fit it again, or read it "
            f"with the millrace that wrote it ({said.get('written_by', 'unknown')})."
        )
    flat: dict[str, Any] = {}

    def at(kind: str) -> Any:
        if kind not in flat:
            try:
                flat[kind] = numpy.load(folder / f"arrays.{kind}.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as e:
                raise WrongQuestion(f"{folder} is not a whole model: {e}. Fit it again.") from e
        return flat[kind]

    plain = _filled(said, at)
    more: dict[str, Any] = {}
    if (folder / "outcome").is_dir():
        from millrace.analyses.twin import outcome

        more["outcome"] = outcome.load(folder / "outcome")
    if (folder / "effects").is_dir():
        from millrace.analyses.twin import effects

        more["effects"] = effects.load(folder / "effects")
    return of_plain(plain, **more)


def read_model(given: Any) -> TwinModel:
    """A model, or the one in the folder that is named."""
    if isinstance(given, TwinModel):
        return given
    if isinstance(given, str | os.PathLike):
        return load(given)
    raise WrongQuestion(
        f"A {type(given).__qualname__} is no model of twins: give what mr.twin.fit returned, or its folder."
    )


def _found(place: Path) -> Path:
    if (place / "model.json").exists():
        return place
    inside = sorted(p.parent for p in place.glob("twin-*/model.json"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        last = _last_answer(place)
        if last in inside:
            return last
        raise WrongQuestion(f"{place} holds {len(inside)} models: name one, such as {inside[0]}.")
    raise WrongQuestion(
        f"There is no model of twins in {place}. `millrace twin fit --data FILE --out DIR` makes one in DIR."
    )


def _last_answer(place: Path) -> Path | None:
    """The model that the last run into this folder made."""
    said = place / "result.json"
    if not said.exists():
        return None
    name = json.loads(said.read_text()).get("answer", {}).get("model")
    return place / name if isinstance(name, str) else None


def _write(plain: Mapping[str, Any], folder: Path) -> None:
    """model.json, and one npy for all arrays of a type."""
    from millrace import __version__

    groups: dict[str, list[Any]] = {}
    lengths: dict[str, int] = {}

    def placed(value: Any) -> Any:
        if isinstance(value, numpy.ndarray):
            kind = value.dtype.name
            at = lengths.get(kind, 0)
            groups.setdefault(kind, []).append(value)
            lengths[kind] = at + value.size
            return {ARRAYS: [kind, at, list(value.shape)]}
        if isinstance(value, Mapping):
            return {k: placed(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [placed(v) for v in value]
        return value.item() if isinstance(value, numpy.generic) else value

    said = placed(plain) | {"written_by": f"millrace {__version__}"}
    (folder / "model.json").write_text(json.dumps(said, allow_nan=True))
    for kind, values in groups.items():
        made = numpy.lib.format.open_memmap(
            folder / f"arrays.{kind}.npy", "w+", values[0].dtype, (max(1, lengths[kind]),)
        )
        at = 0
        for value in values:
            made[at : at + value.size] = value.ravel()
            at += value.size
        made.flush()


def _filled(value: Any, at: Callable[[str], Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {ARRAYS}:
            kind, begin, shape = value[ARRAYS]
            size = int(numpy.prod(shape))
            return at(kind)[begin : begin + size].reshape(shape) if size else numpy.zeros(shape, kind)
        return {k: _filled(v, at) for k, v in value.items() if k != "written_by"}
    if isinstance(value, list):
        return [_filled(v, at) for v in value]
    return value


def with_parts(model: TwinModel, **parts: Any) -> TwinModel:
    """The model with an outcome or effect model besides."""
    return replace(model, **parts)

"""The user's own function as an analysis: one call an item, and the answer that comes of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from millrace.run.canonical import Unkeyable
from millrace.run.errors import MillraceError, NotStorable, TaskFailed, WrongQuestion
from millrace.run.flow import describe
from millrace.run.keys import content_key
from millrace.run.task import Limits, Outcome
from millrace.run.units import format_bytes

if TYPE_CHECKING:
    from millrace.run.ports import Source
    from millrace.run.run import Run

ROOM = 1.5
"""How much more than the first item another may take and still have its share."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """`values` in item order. `report`, `out` and `saver` are filled in by `compose`."""

    name: str
    values: tuple[Any, ...]
    notes: tuple[str, ...] = ()
    report: Any = dataclasses.field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(cls, run: Run, fn: Callable[..., Any], items: Iterable[Any]) -> Mapped:
        """Call `fn(item)` for every item within the run.

        Nobody knows what memory a function takes: where memory is held to a budget, the first item runs alone with all of
        it, and what it took decides how many of the others run at once.
        """
        name = getattr(fn, "__name__", type(fn).__name__)
        run.progress(name)
        if not run.engine.isolates or not run.budget.private_bytes:
            return cls(name, tuple(run.map(fn, items, name=name)), tuple(run.notes))
        first, rest = _parted(items)
        values, peak = _probed(run, fn, first, name)
        share = run.budget.private_bytes // max(1, run.engine.slots)
        at_once = max(1, int(run.budget.private_bytes / (peak * ROOM))) if peak else run.engine.slots
        if peak * ROOM <= share or at_once >= run.engine.slots:
            values += run.map(fn, rest, name=name)
        else:
            run.note(
                f"{name} took {format_bytes(peak)} alone: {at_once} of {run.engine.slots} run at once within the budget."
            )
            values += _some_at_once(run, fn, rest, name, at_once)
        return cls(name, tuple(values), tuple(run.notes))

    @property
    def digest(self) -> str:
        """Equal for equal values; "" when a value has no canonical form."""
        try:
            return content_key(list(self.values))
        except Unkeyable:
            return ""

    def summary(self) -> str:
        return f"{self.name}: {len(self.values):,} values"

    def findings(self) -> list[str]:
        return [f"{self.name} was called on {len(self.values):,} items."]

    def as_dict(self) -> dict[str, Any]:
        return {"function": self.name, "items": len(self.values)}

    def charts(self) -> dict[str, dict[str, Any]]:
        return {}

    def write_tables(self, folder: Path) -> list[Path]:
        """results.parquet when every value is a flat mapping, else results.jsonl (one value a line)."""
        if self.values and all(_is_flat(v) for v in self.values):
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(list(self.values)), folder / "results.parquet")
            return [folder / "results.parquet"]
        encode = msgspec.json.Encoder(enc_hook=_plain).encode
        with (folder / "results.jsonl").open("wb") as file:
            for value in self.values:
                file.write(encode(value) + b"\n")
        return [folder / "results.jsonl"]


def _parted(items: Iterable[Any]) -> tuple[list[Any], Iterable[Any]]:
    """The first item, if there is one, and the others; those of a sequence are one, so that they can be counted."""
    if isinstance(items, Sequence):
        return list(items[:1]), items[1:]
    rest = iter(items)
    return list(itertools.islice(rest, 1)), rest


def _probed(run: Run, fn: Callable[..., Any], first: list[Any], name: str) -> tuple[list[Any], int]:
    """The value of the first item, computed with nothing beside it, and the peak of its private memory (0: not seen).

    Nothing when the run is to end before it.
    """
    alone = Limits(private_bytes=run.budget.private_bytes, alone=True)
    told = list(run.stream(run.task(fn, item, name=name, limits=alone) for item in first))
    return [_value(outcome, name, 0) for outcome in told], max((o.measures.peak_bytes for o in told), default=0)


def _some_at_once(run: Run, fn: Callable[..., Any], items: Iterable[Any], name: str, at_once: int) -> list[Any]:
    """Values in item order, with no more than `at_once` tasks in flight, each with as much of the budget."""
    limits = Limits(private_bytes=run.budget.private_bytes // at_once)
    places: dict[str, list[int]] = {}
    values: dict[int, Any] = {}
    asked = 0

    def source() -> Source:
        nonlocal asked
        for item in items:
            while asked - len(values) >= at_once:
                yield None
            task = run.task(fn, item, name=name, limits=limits)
            places.setdefault(task.key, []).append(asked)
            asked += 1
            yield task

    for outcome in run.stream(source()):
        place = places[outcome.key].pop(0)
        values[place] = _value(outcome, name, place + 1)
    return [values[place] for place in sorted(values)]


def _value(outcome: Outcome, name: str, place: int) -> Any:
    if outcome.failure is not None:
        raise TaskFailed(describe(outcome.failure, name, place), outcome.failure, outcome.key)
    return outcome.value


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, int | float | str | bool | None) for v in value.values())


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise NotStorable(
        f"A {type(value).__module__}.{type(value).__qualname__} has no place in results.jsonl: let the function return "
        "numbers, text, lists, mappings or arrays."
    )


def find_function(named: str) -> Callable[..., Any]:
    """The function that "module:function" names; modules of the current directory are found too."""
    module, _, name = named.partition(":")
    if not module or not name:
        raise WrongQuestion(f"{named!r} does not name a function: write MODULE:FUNCTION, such as simulate:one_run.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = functools.reduce(getattr, name.split("."), import_module(module))
    except ModuleNotFoundError as e:
        raise WrongQuestion(
            f"The module {e.name!r} of {named!r} is not found, neither here ({here}) nor installed."
        ) from e
    except AttributeError as e:
        raise WrongQuestion(f"The module {module!r} has no {name!r}: {e}.") from e
    except MillraceError:
        raise
    except Exception as e:
        raise WrongQuestion(f"Importing {module!r} failed: {type(e).__name__}: {e}.") from e
    if not callable(found):
        raise WrongQuestion(f"{named!r} is a {type(found).__qualname__}, not something that can be called.")
    return found

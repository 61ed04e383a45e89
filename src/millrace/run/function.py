"""The user's own function as an analysis: one call an item, and the answer that comes of it."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from millrace.run.canonical import Unkeyable
from millrace.run.errors import MillraceError, NotStorable, WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    from millrace.run.run import Run


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
        """Call `fn(item)` for every item within the run."""
        name = getattr(fn, "__name__", type(fn).__name__)
        run.progress(name)
        return cls(name, tuple(run.map(fn, items, name=name)), tuple(run.notes))

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

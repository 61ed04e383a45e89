"""The analyses there are, by string, so that naming one imports nothing. One line an analysis."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """`spec`: the frozen pydantic model; `analysis`: `(spec, run) -> result`; `facts`: `(spec) -> Facts`, read from
    attributes and file headers; `plan`: `(facts, budget) -> Plan`, pure. `preload`: modules that workers have warm.
    """

    name: str
    about: str
    extra: str
    spec: str
    analysis: str
    facts: str
    plan: str
    preload: tuple[str, ...]

    def load(self, room: str) -> Any:
        """The object that `spec`, `analysis`, `facts` or `plan` names."""
        module, _, name = getattr(self, room).partition(":")
        return getattr(import_module(module), name)


def _entry(name: str, about: str, preload: tuple[str, ...]) -> Entry:
    home = f"millrace.analyses.{name}"
    return Entry(
        name, about, name,
        spec=f"{home}.spec:Spec", analysis=f"{home}.analysis:{name}", facts=f"{home}.facts:facts", plan=f"{home}.plan:plan",
        preload=preload,
    )  # fmt: skip


ENTRIES = (
    _entry("explain", "SHAP values of a fitted model, exact where they can be", ("millrace.analyses.explain.blocks",)),
    _entry("refute", "tries to break a causal estimate, a thousand times", ("millrace.analyses.refute.batches",)),
)


def find(name: str) -> Entry:
    """The entry of that name; KeyError when there is none."""
    return {e.name: e for e in ENTRIES}[name]

"""Two runs side by side, per core-second, and what makes that unfair.

`differences` tells what is not the same: what makes an item another item (`unlike`: the analysis, the question, its
replicates and targets), and what makes a core-second another core-second or a figure a special one (`unfair`: workers,
cores and memory per worker, code, host, what came from the store). `comparison` puts the figures beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.diagnose.accounting import ANALYSIS, Accounting
from millrace.diagnose.words import duration, percent, rate, slots
from millrace.run.units import format_bytes

if TYPE_CHECKING:
    from millrace.diagnose.case import Case

SEVERAL = 0.05
"""Budgets that differ by less are the same: half a gibibyte more or less is what other programs left free."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`rows`: (what, of A, of B, B over A). `ratio`: items per core-second of B over A, None where one of them has none;
    `by_reference`: the same, each over its host's single-core reference, None where a ledger holds none.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    ratio: float | None
    by_reference: float | None
    unlike: tuple[str, ...]
    unfair: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def differences(a: Case, b: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(unlike, unfair): sentences; both empty when the runs may be compared as they are."""
    one, two = a.history.header, b.history.header
    unlike = []
    if one.get("analysis") != two.get("analysis"):
        unlike.append(f"A is {one.get('analysis')}, B is {two.get('analysis')}: their items are not the same thing.")
    else:
        unlike += [
            f"{name}: {_short(x)} in A, {_short(y)} in B." for name, x, y in _apart(one.get("spec"), two.get("spec"))
        ]
    return tuple(unlike), (*_workers(a, b), *_host(a, b), *_code(a, b, bool(unlike)), *_special(a, b))


def _apart(one: Any, two: Any) -> list[tuple[str, Any, Any]]:
    """Fields of two mappings that differ, or that one of them lacks."""
    first, second = (dict(m) if isinstance(m, Mapping) else {} for m in (one, two))
    return [(n, first.get(n), second.get(n)) for n in {**first, **second} if first.get(n) != second.get(n)]


def _workers(a: Case, b: Case) -> list[str]:
    found = []
    one, two = a.accounting, b.accounting
    if one.slots != two.slots:
        found.append(f"Workers: {one.slots} in A, {two.slots} in B; start and tail weigh differently.")
    if one.engine != two.engine:
        found.append(f"Engine: {one.engine} in A, {two.engine} in B.")
    each = [x.budget_bytes / x.slots for x in (one, two)]
    if all(each) and abs(each[0] - each[1]) > SEVERAL * max(each):
        sizes = [format_bytes(int(size)) for size in each]
        found.append(f"Memory per worker: {sizes[0]} in A, {sizes[1]} in B.")
    return found


def _host(a: Case, b: Case) -> list[str]:
    one, two = (case.history.header.get("host") or {} for case in (a, b))
    told = {"name": "Host", "processor": "Processor", "allowed_cores": "Cores of the host", "system": "System"}
    return [f"{what}: {one.get(n)} in A, {two.get(n)} in B." for n, what in told.items() if one.get(n) != two.get(n)]


def _code(a: Case, b: Case, other_question: bool) -> list[str]:
    """Versions, and keys: of one question and seed they are the same unless code or data are not."""
    one, two = a.history.header, b.history.header
    apart = _apart(one.get("versions"), two.get("versions"))
    both = [(n, x, y) for n, x, y in apart if x and y]
    found = [f"Version of {name}: {x} in A, {y} in B." for name, x, y in both]
    if one.get("seed") != two.get("seed"):
        found.append(f"Seed: {one.get('seed')} in A, {two.get('seed')} in B.")
    elif not other_question and not found:
        keys = [{k for k in case.history.keys if k[:1] != "~"} for case in (a, b)]
        if all(keys) and not keys[0] & keys[1]:
            found.append("Code or data: the same question, and no task of A has the key of one of B.")
    return found


def _special(a: Case, b: Case) -> list[str]:
    found = []
    cached = [case.accounting.outcomes.get("cached", 0) for case in (a, b)]
    if any(cached):
        found.append(f"From the store: {cached[0]:,} tasks of A, {cached[1]:,} of B; they count as nothing here.")
    for letter, case in (("A", a), ("B", b)):
        if case.accounting.state != "done":
            found.append(f"{letter} ended as {case.accounting.state}.")
    return found


def comparison(a: Case, b: Case) -> Comparison:
    """The figures of both, and what is not the same."""
    unlike, unfair = differences(a, b)
    one, two = a.accounting, b.accounting
    each = [_per_core_s(x) for x in (one, two)]
    reference = [_reference(case) for case in (a, b)]
    by_reference = [rate_ / index if index else None for rate_, index in zip(each, reference, strict=True)]
    rows = [
        ("run", one.run_id, two.run_id, ""),
        ("items computed", f"{_computed(one):,}", f"{_computed(two):,}", ""),
        ("wall time", duration(one.wall_ns / 1e9), duration(two.wall_ns / 1e9), _times(one.wall_ns, two.wall_ns)),
        ("workers", slots(one), slots(two), _times(one.slots, two.slots)),
        ("core-seconds", f"{one.core_ns / 1e9:,.1f}", f"{two.core_ns / 1e9:,.1f}", _times(one.core_ns, two.core_ns)),
        ("in the analysis", percent(one.share(*ANALYSIS)), percent(two.share(*ANALYSIS)), ""),
        ("packing", percent(one.efficiency), percent(two.efficiency), ""),
        ("items a minute", rate(each[0] * 60 * one.slots), rate(each[1] * 60 * two.slots), ""),
        ("items a core-second", rate(each[0]), rate(each[1]), _times(each[0], each[1])),
        ("one core, of the reference", _index(reference[0]), _index(reference[1]), ""),
    ]
    if all(by_reference):
        rows.append(("items a core-second, by reference", rate(by_reference[0] or 0.0), rate(by_reference[1] or 0.0),
                     _times(by_reference[0] or 0.0, by_reference[1] or 0.0)))  # fmt: skip
    rows += _kinds(one, two)
    ratio = each[1] / each[0] if all(each) else None
    referred = ratio * (reference[0] or 0) / reference[1] if ratio and reference[1] and reference[0] else None
    return Comparison(tuple(rows), ratio, referred, unlike, unfair)


def _kinds(one: Accounting, two: Accounting) -> list[tuple[str, str, str, str]]:
    """Medians of the kinds of task that ran in both."""
    others = {f.name: f for f in two.tasks if f.total_s}
    both = [(f, others[f.name]) for f in one.tasks if f.total_s and f.name in others]
    return [
        (f"{f.name}, median", duration(f.median_s), duration(g.median_s), _times(f.median_s, g.median_s))
        for f, g in both[:8]
    ]


def _computed(a: Accounting) -> int:
    return a.outcomes.get("done", 0)


def _per_core_s(a: Accounting) -> float:
    return _computed(a) / (a.core_ns / 1e9) if a.core_ns else 0.0


def _reference(case: Case) -> float | None:
    """The single-core index of the run's host, which its ledger holds when it was measured there."""
    told = case.history.of("speed")
    return float(told[-1]["index"]) if told and told[-1].get("index") else None


def _index(reference: float | None) -> str:
    return f"{reference:.2f}" if reference else "not measured"


def _times(one: float, two: float) -> str:
    return f"{two / one:.2f}x" if one else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

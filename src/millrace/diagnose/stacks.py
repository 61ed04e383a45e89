"""Samples of what tasks were doing, merged: the functions that took longest, and a flame graph, per kind of task.

Reads what workers wrote when a run was profiled: lines of (kind, stack from the task's function on, seconds). A torn last
line of a worker that was killed is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from millrace.diagnose.flame import flame
from millrace.diagnose.page import Section
from millrace.diagnose.words import duration, percent

FOLDER = "profile"
TOP, KINDS = 12, 6
MOST_STACKS = 50_000

Stack = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Seconds by stack of one kind of task."""

    kind: str
    seconds: Mapping[Stack, float]

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def top(self, count: int = TOP) -> list[tuple[str, float, float]]:
        """(function, seconds in it, seconds in it and what it called), the longest in itself first."""
        own: Counter[str] = Counter()
        whole: Counter[str] = Counter()
        for stack, seconds in self.seconds.items():
            own[stack[-1]] += seconds  # type: ignore[assignment]
            for word in set(stack):  # a function that calls itself counts once
                whole[word] += seconds  # type: ignore[assignment]
        return [(word, seconds, whole[word]) for word, seconds in own.most_common(count)]


def profiles(folder: Path) -> list[Profile]:
    """What lies in a run's folder, the kind with the most time first; empty when the run was not profiled."""
    merged: defaultdict[str, Counter[Stack]] = defaultdict(Counter)
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        for kind, stack, seconds in _rows(path.read_bytes().split(b"\n")):
            if len(merged[kind]) < MOST_STACKS or stack in merged[kind]:
                merged[kind][stack] += seconds  # type: ignore[assignment]
    found = [Profile(kind, dict(stacks)) for kind, stacks in merged.items()]
    return sorted(found, key=lambda profile: -profile.total_s)


def _rows(lines: Iterable[bytes]) -> Iterable[tuple[str, Stack, float]]:
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=tuple[str, tuple[str, ...], float])
        except msgspec.DecodeError:
            continue  # the torn end of a worker that was killed


def lines(found: Iterable[Profile], count: int = 3) -> list[str]:
    """For the terminal: a line a kind, with its top functions."""
    told = []
    for profile in found:
        top = ", ".join(f"{word} {percent(own / profile.total_s)}" for word, own, _ in profile.top(count))
        told.append(f"{profile.kind}: {top}")
    return told


def sections(found: list[Profile]) -> list[Section]:
    """A flame graph and a table of functions for each kind."""
    return [
        Section(f"Within {p.kind}", f"Sampled for {duration(p.total_s)} of tasks.", _table(p), flame(p.kind, p.seconds))
        for p in found[:KINDS]
    ]


def _table(profile: Profile) -> list[list[Any]]:
    rows = [
        [word, percent(own / profile.total_s), percent(whole / profile.total_s), duration(whole)]
        for word, own, whole in profile.top()
    ]
    return [["function", "in itself", "with what it calls", "time"], *rows]

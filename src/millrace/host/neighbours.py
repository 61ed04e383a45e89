"""Which runs share this host now, and how many tokens for cores each holds: for people who look.

A worker holds a token, and its run is found up the line of its parents. Takes nothing and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, read_text
from millrace.host.roster import roster
from millrace.host.tokens import held


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A run: its driver, name and cores (0: a process that holds tokens and is in no roster), tokens held, bytes declared,
    and bytes that it waits for."""

    pid: int
    run_id: str
    cores: int
    tokens: int
    declared_bytes: int = 0
    wanted_bytes: int = 0


def neighbours(shared: Path, root: Root = "/") -> tuple[Neighbour, ...]:
    """All runs of the folder that live."""
    runs = roster(shared / "runs")
    drivers = {entry.pid for entry in runs}
    tokens: dict[int, int] = {}
    for pid, count in held(shared / "cores").items():
        owner = _up_to(pid, drivers, root)
        tokens[owner] = tokens.get(owner, 0) + count
    found = []
    for e in runs:
        found.append(Neighbour(e.pid, e.run_id, e.cores, tokens.pop(e.pid, 0), e.declared_bytes, e.wanted_bytes))
    return (*found, *(Neighbour(pid, "not a run", 0, count) for pid, count in sorted(tokens.items())))


def _up_to(pid: int, wanted: set[int], root: Root) -> int:
    """The first of its ancestors that is wanted; itself when none is."""
    at = pid
    while at > 1 and at not in wanted:
        fields = (read_text(Path(root, f"proc/{at}/stat")) or "").rpartition(")")[2].split()
        at = int(fields[1]) if len(fields) > 1 else 0
    return at if at in wanted else pid

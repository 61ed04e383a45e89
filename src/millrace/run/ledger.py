"""The append-only record of a run, and the state that its replay gives.

One JSON object a line. `run` opens (schema version, who, where, what), `tasks` packs the attempts that ended since
the last line, `spans` what slots did besides, `note` what the user should know, `end` closes with the driver's own
parts. A line is written with one `write`, so a killed driver leaves whole lines and at most one torn tail, which
replay leaves out. What a run resumes from is the store, not this file: it tells where the time went.

Does not interpret anything: see `millrace.diagnose`.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from millrace.run.errors import WrongQuestion
from millrace.run.task import Measures, Outcome, Span

SCHEMA = 1
STATES = ("done", "cached", "raised", "cpu", "wall", "memory", "lost", "cancelled")
MEASURED = Measures._fields[:15]
COLUMNS = ("name", "state", "item", "queued_ns", *MEASURED, "group", "throttled_ns", "host", "gpu", "gpu_ns")
"""Columns of a packed attempt after its key. `name`, `state` and `host` are indices (into the names and hosts said so
far by `name` and `host` lines, and into STATES); `host` is -1 on the driver's own. `group` numbers the groups of tasks
as they came, -1 where a task has none. New columns come last: a line may end before them, as all lines of older ledgers do,
and those without anything unusual."""
UNUSUAL = {"throttled_ns": 0, "host": -1, "gpu": -1, "gpu_ns": 0}
ABSENT = {"gc_ns": 0, "group": -1, **UNUSUAL}
"""What lines without such a column hold in it."""

PACK_ROWS = 256
PACK_S = 0.1


class Ledger:
    """Writes one run's records to `path`. Attempts are packed: a line per 256 of them or 0.1 s.

    `home`: what keeps the file's folder alive when nobody asked for one (it goes when the last who knows it goes).
    """

    def __init__(self, path: Path, home: Any = None) -> None:
        self.home = home
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encode = msgspec.json.Encoder(enc_hook=str).encode
        self._names: dict[str, int] = {}
        self._hosts: dict[str, int] = {"": -1}
        self._states = {s: i for i, s in enumerate(STATES)}
        self._groups: dict[Hashable, int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._unusual: dict[int, tuple[int, ...]] = {}
        self._since = 0.0

    def write(self, record: str, **said: Any) -> None:
        """One record at once, after what is packed so far (the order of events is the order of lines)."""
        self.flush()
        self._line({"record": record, **said})

    def attempt(self, outcome: Outcome, name: str, item: int, queued_ns: int, group: Hashable = None) -> None:
        """The end of one attempt. `group`: what its task names for a `Cancel`."""
        state = "cached" if outcome.cached else outcome.failure.kind if outcome.failure else "done"
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names)
            self.write("name", name=name, number=number)
        # Taken apart by hand: half the price of slices of it.
        (
            worker, pid, attempt, sent, started, ended, cpu, unpack, enter, read, write, in_bytes, out_bytes, peak, gc,
            throttled, gpu, gpu_ns, host,
        ) = outcome.measures  # fmt: skip
        if throttled or gpu_ns or host:
            self._add_unusual(throttled, gpu, gpu_ns, host)
        placed = -1 if group is None else self._groups.setdefault(group, len(self._groups))
        self._rows.append(
            (
                outcome.key, number, self._states[state], item, queued_ns, worker, pid, attempt, sent, started, ended, cpu,
                unpack, enter, read, write, in_bytes, out_bytes, peak, gc, placed,
            )
        )  # fmt: skip
        if len(self._rows) >= PACK_ROWS or time.monotonic() - self._since > PACK_S:
            self.flush()

    def _add_unusual(self, throttled_ns: int, gpu: int, gpu_ns: int, host: str) -> None:
        """Of the attempt whose row comes next."""
        number = self._hosts.get(host)
        if number is None:
            number = self._hosts[host] = len(self._hosts) - 1
            self.write("host", name=host, number=number)
        self._unusual[len(self._rows)] = throttled_ns, number, gpu, gpu_ns

    def spans(self, spans: Iterable[Span]) -> None:
        rows = [(s.slot, s.kind, s.from_ns, s.to_ns, s.key) for s in spans]
        if rows:
            self.write("spans", rows=rows)

    def flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            if self._unusual:
                unusual, self._unusual = self._unusual, {}
                rows = [row + unusual.get(i, tuple(UNUSUAL.values())) for i, row in enumerate(rows)]
            self._line({"record": "tasks", "rows": rows})
        self._since = time.monotonic()

    def close(self) -> None:
        if self._file >= 0:
            self.flush()
            os.close(self._file)
            self._file = -1

    def _line(self, record: Mapping[str, Any]) -> None:
        os.write(self._file, self._encode(record) + b"\n")


@dataclass(slots=True)
class History:
    """What a ledger says, replayed.

    `header`: the `run` record (run_id, analysis, started_at, from_ns, budget, host, versions, spec, seed), and the
    engine with its slots once there is one. `hosts`: those beside the driver's own. `columns`: one `array('q')` per name
    in COLUMNS, in the order in which attempts ended; `keys` beside them.
    `end`: the `end` record (state, to_ns, parts of the driver's time in ns, throttled_ns or None, peak_bytes), empty
    when the driver was killed.
    """

    path: Path
    header: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    columns: dict[str, array[int]] = field(default_factory=lambda: {c: array("q") for c in COLUMNS})
    spans: list[Span] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return len(self.keys)

    def of(self, record: str) -> list[dict[str, Any]]:
        """Records of a kind that replay does not fold (`plan`, `share`, `answer`, ...)."""
        return [r for r in self.records if r["record"] == record]


def replay(path: Path) -> History:
    """Read a ledger back. A torn last line is left out; any other damage is an error that names the line."""
    history = History(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise WrongQuestion(
            f"There is no ledger at {path}: give a run's folder or its id (see `millrace runs`)."
        ) from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = msgspec.json.decode(line)
                _fold(history, record)
            except (msgspec.DecodeError, KeyError, IndexError, ValueError, TypeError) as e:
                raise WrongQuestion(
                    f"Line {number} of the ledger {path} is damaged ({e}): it was changed after the run wrote it. "
                    "The run's results are in the store; run the same command again to get a new ledger."
                ) from e
    if not history.header:
        raise WrongQuestion(f"The ledger {path} has no record of a run: it is empty, or not a ledger of millrace.")
    return history


def _fold(history: History, record: dict[str, Any]) -> None:
    kind = record["record"]
    if kind == "tasks":
        _fold_attempts(history, record["rows"])
    elif kind == "spans":
        history.spans += [Span(*row) for row in record["rows"]]
    elif kind == "name":
        history.names.append(record["name"])
    elif kind == "host":
        history.hosts.append(record["name"])
    elif kind == "note":
        history.notes.append(record["text"])
    elif kind == "run":
        if record["schema"] > SCHEMA:
            raise ValueError(f"schema {record['schema']}, written by a newer millrace; this one reads up to {SCHEMA}")
        history.header = record
    elif kind == "engine":
        history.header.update(engine=record["engine"], slots=record["slots"])
    elif kind == "end":
        history.end = record
    else:
        history.records.append(record)


def _fold_attempts(history: History, rows: list[list[Any]]) -> None:
    there = len(rows[0]) if rows else 0
    for i, name in enumerate(COLUMNS, 1):
        if i < there:
            history.columns[name].extend(row[i] for row in rows)
        else:
            history.columns[name].extend([ABSENT[name]] * len(rows))
    history.keys += [row[0] for row in rows]

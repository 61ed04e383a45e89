"""The folder of runs: what lies there, and which of it a word on the command line means."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.run.errors import WrongQuestion

LEDGER = "ledger.jsonl"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Past:
    """A run in short. `from_ns`, of the monotonic clock, orders runs of one second. `state` is "running or killed" while
    its ledger has no end; `tasks` and `wall_s` are None until then. `error`: the first line of what ended it badly.
    """

    run_id: str
    folder: Path
    analysis: str
    started_at: str
    from_ns: int
    state: str
    tasks: int | None
    wall_s: float | None
    digest: str
    error: str

    def as_dict(self) -> dict[str, Any]:
        return {
            name: str(value) if isinstance(value := getattr(self, name), Path) else value for name in self.__slots__
        }


def runs_in(place: Path) -> list[Past]:
    """The runs of a folder, oldest first; what is no run is passed over."""
    found = [past for folder in _folders(place) if (past := past_of(folder)) is not None]
    return sorted(found, key=lambda past: (past.started_at, past.from_ns))


def past_of(folder: Path) -> Past | None:
    """The head and the tail of a run's ledger; None when there is none that can be read.

    Not `replay`: a list of runs must not cost reading all their attempts.
    """
    head, tail = _ends(folder / LEDGER)
    if head is None:
        return None
    end = next((record for record in reversed(tail) if record["record"] == "end"), None)
    answer = next((record for record in reversed(tail) if record["record"] == "answer"), None)
    return Past(
        run_id=head["run_id"],
        folder=folder,
        analysis=head["analysis"],
        started_at=head["started_at"],
        from_ns=head["from_ns"],
        state=end["state"] if end else "running or killed",
        tasks=end["computed"] + end["cached"] if end else None,
        wall_s=(end["to_ns"] - head["from_ns"]) / 1e9 if end else None,
        digest=answer["digest"] if answer else "",
        error=end["error"] if end else "",
    )


def folder_of(named: str, place: Path) -> Path:
    """The folder of a run that is named by its folder, its id, a part of the id that no other has, or "last"."""
    if (Path(named) / LEDGER).is_file():
        return Path(named)
    if named.endswith(LEDGER) and Path(named).is_file():
        return Path(named).parent
    names = [folder.name for folder in _folders(place)]
    if named == "last":
        past = runs_in(place)
        if not past:
            raise WrongQuestion(f"There are no runs in {place} yet. Give a run's folder, or look with `millrace runs`.")
        return past[-1].folder
    if named in names:
        return place / named
    fitting = [name for name in names if name.startswith(named)] or [name for name in names if named in name]
    if len(fitting) == 1:
        return place / fitting[0]
    if fitting:
        shown = ", ".join(sorted(fitting)[:5]) + (" and others" if len(fitting) > 5 else "")
        raise WrongQuestion(f"{named!r} fits {len(fitting)} runs in {place}: {shown}. Give more of the id.")
    alike = difflib.get_close_matches(named, names, 1, 0.5)
    hint = f"is {alike[0]} meant?" if alike else "`millrace runs` lists what there is; a run's folder will do, too."
    raise WrongQuestion(f"There is no run {named!r} in {place}; {hint}")


def refused(place: Path) -> str:
    """Why nothing can be written below `place`, which may yet have to be made; "" when it can."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} does not allow it"


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return [Path(entry.path) for entry in os.scandir(place) if os.path.isfile(os.path.join(entry.path, LEDGER))]


def _ends(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The first record, and those of the last 64 KiB."""
    import msgspec

    with path.open("rb") as file:
        first = file.readline()
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(len(first), size - _TAIL_BYTES))
        tail = file.read().split(b"\n")
    if start > len(first):
        tail = tail[1:]  # begins within a line
    try:
        head = msgspec.json.decode(first)
        return (head if head["record"] == "run" else None), [msgspec.json.decode(line) for line in tail[:-1]]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None, []

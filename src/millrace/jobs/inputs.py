"""Inputs of jobs by content: a file or folder is copied once under its digest, and the job carries the digest alone.

A copy, and not a link: who changes the original afterwards does not change an accepted job. Shared by all hosts of the
jobs' folder. Does not read what is in them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from millrace.run.errors import WrongQuestion

_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Input:
    """A value of a question that is an input already, by its name in the folder."""

    name: str


def name_of(source: Path) -> str:
    """What a file or folder is called as an input: its digest and suffix. Reads all of it."""
    if not source.exists():
        raise WrongQuestion(f"There is no file {source}. Look for a typing error, or give a full path.")
    return f"{_digest(source)}{source.suffix if source.is_file() else ''}"


def put(folder: Path, source: Path, name: str = "") -> str:
    """Copy a file or a folder in; its name there (`name_of`, where that is known already). What is there is not copied again."""
    name = name or name_of(source)
    place = folder / name
    if place.exists():
        os.utime(place)
        return name
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{secrets.token_hex(8)}"
    if source.is_file():
        shutil.copyfile(source, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
    else:
        shutil.copytree(source, draft, symlinks=False)
    try:
        draft.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(draft, ignore_errors=True)  # another submission was first
    return name


def find(folder: Path, name: str) -> Path:
    """Where that input lies; `WrongQuestion` when it has gone."""
    place = folder / name
    if "/" in name or name.startswith(".") or not place.exists():
        raise WrongQuestion(
            f"The input {name} of this job has gone from {folder}: submit the job again with its data, or put the file back."
        )
    return place


def _digest(source: Path) -> str:
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
    whole = hashlib.sha256()
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        whole.update(f"{path.relative_to(source)}\0{_digest(path)}\n".encode())
    return whole.hexdigest()[:_DIGITS]

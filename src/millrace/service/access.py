"""Who may do what: bearer tokens with scopes, from a file that holds their digests alone.

    [[token]]
    user = "ann"                          jobs and inputs belong to a user; several tokens may be of one
    scopes = ["read", "submit"]           read: look at one's own; submit: ask, upload, cancel; admin: all, of everybody
    sha256 = "9f86d081884c7d65..."        of the token, which is random and long: a fast hash is no weakness

The file is read again when it changes: a token whose lines are taken out is refused from then on. Without a file there
are no tokens, and the service listens on loopback alone: whoever sits at this machine is its operator.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from millrace.jobs.states import Job
from millrace.run.errors import WrongQuestion
from millrace.service.problems import Refused

SCOPES = ("read", "submit", "admin")
USER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PREFIX = "mr_"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `user`: "" is the operator at this machine, where there are no tokens."""

    user: str
    scopes: frozenset[str]

    @property
    def admin(self) -> bool:
        return "admin" in self.scopes

    def may(self, scope: str) -> bool:
        return self.admin or scope in self.scopes

    def sees(self, job: Job) -> bool:
        return self.admin or job.owner == self.user


OPERATOR = Caller("", frozenset(SCOPES))


class Tokens:
    """The tokens of a file. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, Caller] = {}
        self.find("")  # so that a file that cannot be read is told at the start

    def find(self, token: str) -> Caller | None:
        """The caller of a token; None for one that is not in the file."""
        try:
            stat = os.stat(self.path)
        except OSError as e:
            raise WrongQuestion(
                f"The tokens in {self.path} cannot be read: {e.strerror}. `millrace token NAME` writes such a file."
            ) from e
        stamp = (stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if stamp != self._stamp:
                self._known, self._stamp = read_tokens(self.path), stamp
            known = self._known
        digest = digest_of(token)
        found = None
        for listed, caller in known.items():  # all of them: how long it takes tells nothing
            if hmac.compare_digest(listed, digest):
                found = caller
        return found


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def read_tokens(path: Path) -> dict[str, Caller]:
    """Callers by the digests of their tokens. Raises `WrongQuestion` with the place of what is wrong."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise WrongQuestion(f"The tokens in {path} cannot be read: {e}.") from e
    entries = said.pop("token", [])
    if said or not isinstance(entries, list):
        raise WrongQuestion(f"{path}: tokens are [[token]] tables, and nothing else is in the file.")
    return dict(_entry(one, f"{path}, token {i + 1}") for i, one in enumerate(entries))


def _entry(one: Any, place: str) -> tuple[str, Caller]:
    if not isinstance(one, dict) or set(one) != {"user", "scopes", "sha256"}:
        raise WrongQuestion(f"{place}: a token has user, scopes and sha256, and nothing else.")
    user, scopes, digest = one["user"], one["scopes"], one["sha256"]
    if not isinstance(user, str) or not USER.fullmatch(user):
        raise WrongQuestion(f"{place}: a user is up to 64 of a-z, 0-9, dot, line and underscore, not {user!r}.")
    if not isinstance(scopes, list) or not scopes or not set(scopes) <= set(SCOPES):
        raise WrongQuestion(f"{place}: scopes are some of {', '.join(SCOPES)}, not {scopes!r}.")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise WrongQuestion(f"{place}: sha256 is 64 hexadecimal digits. `millrace token NAME` makes one.")
    return digest, Caller(user, frozenset(scopes))


def add_token(path: Path, user: str, scopes: tuple[str, ...]) -> str:
    """A new token, whose digest is added to the file (readable by its owner alone). Nobody can read it back from there."""
    token = PREFIX + secrets.token_urlsafe(32)
    table = {"user": user, "scopes": list(scopes), "sha256": digest_of(token)}
    _entry(table, "The token")
    known = read_tokens(path) if path.exists() else {}
    said = ", ".join(f'"{scope}"' for scope in scopes)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a") as file:
        file.write(
            f'{chr(10) if known else ""}[[token]]\nuser = "{user}"\nscopes = [{said}]\nsha256 = "{table["sha256"]}"\n'
        )
    return token


_bearer = HTTPBearer(auto_error=False, description="a token of `millrace token NAME`; none on loopback without tokens")


def caller_of(request: Request, given: HTTPAuthorizationCredentials | None = Depends(_bearer)) -> Caller:  # noqa: B008
    """Who asks. Raises 401 for nobody that is known."""
    tokens: Tokens | None = request.app.state.house.tokens
    if tokens is None:
        return OPERATOR
    caller = tokens.find(given.credentials) if given is not None else None
    if caller is None:
        raise Refused(
            401,
            "This needs a token: send it as `Authorization: Bearer TOKEN`. The operator makes one with `millrace token NAME`.",
            {"WWW-Authenticate": 'Bearer realm="millrace"'},
        )
    return caller


def needs(scope: str) -> Any:
    """A dependency: the caller, when the scope is theirs. Raises 403 otherwise."""

    def check(caller: Caller = Depends(caller_of)) -> Caller:  # noqa: B008
        if not caller.may(scope):
            raise Refused(
                403, f"The token of {caller.user} has not the scope {scope!r}. Ask the operator for one that has."
            )
        return caller

    return Depends(check)


Reader = Annotated[Caller, needs("read")]
Submitter = Annotated[Caller, needs("submit")]

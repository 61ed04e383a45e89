"""Content-addressed keys: equal exactly when the same code is asked the same question.

A key covers the scheme's version, the digest of the function's code (see `code`), its warm resources, the canonical
bytes of the arguments (see `canonical`) and the seed. Golden files pin the scheme: a change of it needs a new
SCHEME, so that old entries are misses and never wrong hits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from millrace.run.canonical import DIGEST_BYTES, canonical, canonical_arguments
from millrace.run.code import CodeDigests
from millrace.run.task import Key

SCHEME = 1


class Keys:
    """Makes the keys of one Run. `Unkeyable` when function or arguments have no identity."""

    def __init__(self, seed: int, code: CodeDigests | None = None) -> None:
        self.code = code or CodeDigests()
        self._seed = seed
        self._starts: dict[tuple[Any, ...], Any] = {}

    def of(self, fn: Callable[..., Any], args: tuple[Any, ...], resources: tuple[Any, ...] = ()) -> Key:
        """The key of `fn(*resources, *args)`."""
        named = (fn, *resources)
        start = self._starts.get(named)
        if start is None:
            start = self._starts[named] = self._start(named)
        h = start.copy()
        h.update(canonical_arguments(args, self.code))
        return h.hexdigest()  # type: ignore[no-any-return]

    def _start(self, named: tuple[Any, ...]) -> Any:
        h = hashlib.blake2b(b"millrace key %d " % SCHEME, digest_size=DIGEST_BYTES)
        h.update(canonical((self._seed, [self.code(f) for f in named])))
        return h


def content_key(value: Any) -> Key:
    """The key of a value by its content alone (a shared input, an answer)."""
    h = hashlib.blake2b(b"millrace content %d " % SCHEME, digest_size=DIGEST_BYTES)
    h.update(canonical(value))
    return h.hexdigest()

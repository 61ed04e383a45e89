"""A store over another that is only read: what the base has is found, what is new goes to the top.

For a base that many share and nobody may change: a folder that came with an offline host, a colleague's results, a
bucket that this user may only read. Nothing is ever put, pinned or evicted in the base. Holds no values itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millrace.run.errors import WrongQuestion
from millrace.run.ports import Opener, Store, Stored
from millrace.run.task import Key

SCHEME = "layered:"


class LayeredStore:
    """`top` over `base`. Closing it closes both. As thread-safe as they are."""

    def __init__(self, base: Store, top: Store) -> None:
        self._base, self._top = base, top
        self.url = f"{SCHEME}{_quoted(base.url)},{_quoted(top.url)}" if base.url and top.url else ""
        self.remarks: tuple[str, ...] = (*getattr(base, "remarks", ()), *getattr(top, "remarks", ()))

    def get(self, key: Key) -> Stored | None:
        return self._top.get(key) or self._base.get(key)

    def attach(self, key: Key) -> Any:
        try:
            return self._top.attach(key)
        except KeyError:
            return self._base.attach(key)

    def put(self, key: Key, value: Any) -> Stored:
        """Keep the value in the top, unless one of them has it."""
        return self._base.get(key) or self._top.put(key, value)

    def flush(self) -> None:
        self._top.flush()

    def pin(self, key: Key) -> None:
        """Keep it from the top's `evict`. The base is not ours to empty."""
        self._top.pin(key)

    def evict(self, limit_bytes: int) -> int:
        """Make the top smaller; the bytes freed."""
        return self._top.evict(limit_bytes)

    def size_bytes(self) -> int:
        """Of the top."""
        return self._top.size_bytes()

    def keys(self, prefix: str = "") -> Iterator[Key]:
        """Of both, each once."""
        told = set()
        for key in self._top.keys(prefix):
            told.add(key)
            yield key
        yield from (key for key in self._base.keys(prefix) if key not in told)

    def close(self) -> None:
        try:
            self._top.close()
        finally:
            self._base.close()


def open_layered(url: str, opener: Opener) -> LayeredStore:
    """The store that "layered:BASE,TOP" names; a comma within a part is written %2C."""
    parts = url.removeprefix(SCHEME).split(",")
    if not url.startswith(SCHEME) or len(parts) != 2 or not all(parts):
        raise WrongQuestion(
            f"{url!r} does not name two stores: write layered:BASE,TOP, such as layered:/srv/results,/home/me/store. A comma "
            "within one of them is written %2C."
        )
    base = opener(_unquoted(parts[0]))
    try:
        return LayeredStore(base, opener(_unquoted(parts[1])))
    except BaseException:
        base.close()
        raise


def _quoted(url: str) -> str:
    return url.replace("%2C", "%252C").replace(",", "%2C")


def _unquoted(part: str) -> str:
    return part.replace("%2C", ",").replace("%252C", "%2C")

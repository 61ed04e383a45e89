"""A bounded cache of explainers by model digest.

    held = Explainers(256 << 20)
    held.get(model).row({"age": 41, "income": 2.5})       one load for any number of concurrent first calls

Does not explain: see `warm`.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from millrace.analyses.explain.warm import Explainer, digest_of, open_explainer
from millrace.run.keys import content_key


class Explainers:
    """Explainers by what they explain, the last used last; beyond `limit_bytes` the longest unused go.

    Locked: any number of threads may ask. While an explainer is being loaded, others that ask for it wait for that load,
    and nobody else waits. A load that fails is forgotten, and its error goes to all who waited.
    """

    def __init__(self, limit_bytes: int, load: Callable[..., Explainer] = open_explainer) -> None:
        self.limit_bytes, self._load = limit_bytes, load
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Explainer] = OrderedDict()
        self._loading: dict[str, Future[Explainer]] = {}
        self.hits = self.loads = self.evicted = 0

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return sum(e.size_bytes for e in self._held.values())

    def get(self, model: Any, *, background: Any = None, digest: str = "", **options: Any) -> Explainer:
        """The explainer of a model with this background and options; `digest` names the model where that is known."""
        digest = digest or digest_of(model)
        key = content_key((digest, _identity(background), sorted((n, repr(v)) for n, v in options.items())))
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                self.hits += 1
                return found
            waiting = self._loading.get(key)
            mine = waiting is None
            if waiting is None:
                waiting = self._loading[key] = Future()
        if mine:
            self._fill(key, waiting, lambda: self._load(model, background=background, digest=digest, **options))
        return waiting.result()

    def _fill(self, key: str, waiting: Future[Explainer], load: Callable[[], Explainer]) -> None:
        try:
            found = load()
        except BaseException as e:
            with self._lock:
                del self._loading[key]
            waiting.set_exception(e)
            raise
        with self._lock:
            self.loads += 1
            del self._loading[key]
            self._held[key] = found
            size = sum(e.size_bytes for e in self._held.values())
            while size > self.limit_bytes and self._held:  # one that is too large by itself is used, and not kept
                size -= self._held.popitem(last=False)[1].size_bytes
                self.evicted += 1
        waiting.set_result(found)


def _identity(background: Any) -> str:
    if background is None or isinstance(background, str):
        return str(background)
    if isinstance(background, os.PathLike):
        stat = os.stat(background)
        return f"{background}:{stat.st_size}:{stat.st_mtime_ns}"
    from millrace.run.tables import read_rows

    rows = read_rows(background, "background")
    return content_key((rows.values, rows.names, sorted(rows.categories.items())))

"""What stores elsewhere have in common when things go wrong: a bounded wait, a clear end, and leases that are renewed.

An attempt that fails for a reason that may pass is repeated with growing pauses until `patience_s` is over. Knows
neither Redis nor object storage; see `redis` and `remote`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from millrace.run.errors import AnalysisFailed
from millrace.run.urls import spoken

T = TypeVar("T")
PATIENCE_S = 30.0
LEASE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


def patiently(url: str, patience_s: float, passing: tuple[type[Exception], ...], work: Callable[[], T]) -> T:
    """`work()`, again while it raises one of `passing`; AnalysisFailed, which names the store, when that does not end."""
    try:
        return work()  # without the machinery, which costs more than an answer over a good line
    except passing:
        pass
    import stamina

    _hushed()
    try:
        for attempt in stamina.retry_context(
            on=passing,
            attempts=None,
            timeout=patience_s,
            wait_initial=_FIRST_PAUSE_S,
            wait_max=_LONGEST_PAUSE_S,
            wait_jitter=_FIRST_PAUSE_S,
        ):
            with attempt:
                return work()
    except passing as e:
        raise AnalysisFailed(
            f"The store at {spoken(url)} could not be reached for {patience_s:g} s ({type(e).__name__}: {e}). What was "
            "finished is kept. See that its server runs and that this host reaches it, then run the same again."
        ) from e
    raise AssertionError("the attempts end with a value or an error")


def _hushed() -> None:
    """stamina logs each pause; who has set up logging sees it, and nobody else's terminal does."""
    logger = logging.getLogger("stamina")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


class Lease:
    """Calls `renew` every so often, in a thread that ends with `stop` and never holds the process up.

    A process that is killed renews nothing, so what it had leased lapses. `renew` is to raise nothing.
    """

    def __init__(self, renew: Callable[[], None], every_s: float) -> None:
        self._renew, self._every_s = renew, every_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_on, name="millrace-lease", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _go_on(self) -> None:
        while not self._over.wait(self._every_s):
            self._renew()

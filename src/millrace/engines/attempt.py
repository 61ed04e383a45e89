"""What every attempt of a task does, the same in a worker and inline: so the answer is the same too.

Warm resources are entered once, references among the arguments become values, large results stay in a store, and an
exception becomes what a `Failure` is made of. Holds no ceilings and sends nothing: see `inline`, `processes.worker`.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from millrace.run.errors import NotStorable, WrongQuestion
from millrace.run.task import FailureKind, Keep, Ref

if TYPE_CHECKING:
    from millrace.run.ports import Opener, Store

SMALL_BYTES = 9
"""What a number costs on its way, and what every value costs beside its contents: never nothing."""


class Stores:
    """Stores by url, opened when first needed and kept open."""

    def __init__(self, opener: Opener | None) -> None:
        self._opener = opener
        self._open: dict[str, Store] = {}

    def at(self, url: str) -> Store:
        store = self._open.get(url)
        if store is None:
            if self._opener is None:
                raise WrongQuestion(
                    f"A task refers to the store {url!r}, and its engine was made without an opener of stores: make it "
                    "with opener=millrace.compose.open_store, or give the value itself."
                )
            store = self._open[url] = self._opener(url)
        return store

    def attach(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with every `Ref` at their top level replaced by its value, mapped read-only."""
        return tuple(self.at(a.url).attach(a.key) if type(a) is Ref else a for a in args)

    def keep(self, key: str, keep: Keep, value: Any) -> Any:
        """The value, or a `Ref` to it when it is large and the store takes it."""
        if key[:1] in ("", "~") or not is_over(value, keep.over_bytes):
            return value
        store = self.at(keep.url)
        try:
            stored = store.put(key, value)
        except NotStorable:
            return value  # it travels whole, by pickle, as a small one does
        store.flush()  # the driver may ask for it at once, and this process may be killed at any moment
        return Ref(key, keep.url, stored.size_bytes)

    def close(self) -> None:
        for store in self._open.values():
            store.close()
        self._open.clear()


class Warm:
    """Resources that were entered once, and are left in the opposite order."""

    def __init__(self) -> None:
        self._entered: dict[Any, Any] = {}
        self._exits = ExitStack()

    def enter(self, name: Any, load: Callable[[Any], Callable[[], Any]]) -> Any:
        """What the factory made, or what entering that gave. `load` makes the factory of its name."""
        if name in self._entered:
            return self._entered[name]
        made = load(name)()
        value = self._exits.enter_context(made) if hasattr(type(made), "__enter__") else made
        self._entered[name] = value
        return value

    def spent_ns(self, names: Sequence[Any]) -> int:
        """Processor time that these resources have used outside of this process, as those tell that keep processes."""
        entered = (self._entered.get(name) for name in names)
        return sum(value.spent_ns() for value in entered if hasattr(value, "spent_ns"))

    def gpu_used(self, names: Sequence[Any]) -> tuple[int, int]:
        """(number of the GPU that one of these resources had last, ns that it had it so far); (-1, 0) without one."""
        entered = (self._entered.get(name) for name in names)
        return next((value.gpu_used for value in entered if hasattr(value, "gpu_used")), (-1, 0))

    def leave(self) -> None:
        self._entered.clear()
        self._exits.close()


class Collector:
    """How long Python's collector has been at work in this process, as its own callbacks tell."""

    def __init__(self) -> None:
        self.total_ns = self._since_ns = 0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            self._since_ns = monotonic_ns()
        else:
            self.total_ns += monotonic_ns() - self._since_ns

    def close(self) -> None:
        if self._told in gc.callbacks:
            gc.callbacks.remove(self._told)


class Extra(NamedTuple):
    """What is not plain about an attempt: what it raised (kind, message, traceback), parts of its time, its peak, processor
    time of processes that its resources keep, the GPU that one of them had."""

    failure: tuple[FailureKind, str, str] | None = None
    unpack_ns: int = 0
    enter_ns: int = 0
    read_ns: int = 0
    write_ns: int = 0
    peak_bytes: int = 0
    aside_ns: int = 0
    gc_ns: int = 0
    gpu: int = -1
    gpu_ns: int = 0


def carry_out(
    load: Callable[[Any], Callable[..., Any]],
    function: Any,
    resources: Sequence[Any],
    args: tuple[Any, ...],
    keep: Keep | None,
    key: str,
    warm: Warm,
    stores: Stores,
    passing: tuple[type[BaseException], ...] = (),
) -> tuple[Any, Extra]:
    """One attempt with all that may belong to it. `load` makes functions of what names them here.

    Whatever is raised on the way, in the function or around it, is the task's failure; but for `passing`.
    """
    value, failure, aside_ns, gpu, gpu_ns = None, None, 0, -1, 0
    stamps = [monotonic_ns()]
    try:
        fn = load(function)
        stamps.append(monotonic_ns())
        entered = [warm.enter(name, load) for name in resources]
        stamps.append(monotonic_ns())
        if Ref in map(type, args):
            args = stores.attach(args)
        before_ns, (_, had_ns) = warm.spent_ns(resources), warm.gpu_used(resources)
        stamps.append(monotonic_ns())
        try:
            value = fn(*entered, *args)
        finally:
            aside_ns = warm.spent_ns(resources) - before_ns
            gpu, gpu_ns = warm.gpu_used(resources)
        stamps.append(monotonic_ns())
        if keep is not None:
            value = stores.keep(key, keep, value)
    except passing:
        raise
    except BaseException as e:  # noqa: BLE001 - recorded as a typed failure
        value, failure = None, failure_of(e)
    stamps.append(monotonic_ns())
    parts = [after - before for before, after in pairwise(stamps)] + [0] * (6 - len(stamps))
    unpack, enter, read, _, write = parts
    if gpu_ns == 0:
        return value, Extra(failure, unpack, enter, read, write, aside_ns=aside_ns)
    return value, Extra(failure, unpack, enter, read, write, aside_ns=aside_ns, gpu=gpu, gpu_ns=gpu_ns - had_ns)


def is_over(value: Any, limit_bytes: int, depth: int = 3) -> bool:
    """Whether a value is larger than `limit_bytes`, by what is cheap to know.

    Sizes that arrays, tables and strings tell themselves, summed over members of lists, tuples and mappings; it stops
    as soon as the answer is known, so a list of a million numbers costs as much as one of a few thousand.
    """
    return _size(value, limit_bytes, depth) > limit_bytes


def _size(value: Any, enough: int, depth: int) -> int:
    told = len(value) if isinstance(value, (bytes, bytearray, str)) else getattr(value, "nbytes", None)
    if isinstance(told, int):
        return SMALL_BYTES + told
    if depth == 0 or not isinstance(value, (list, tuple, set, frozenset, Mapping)):
        return SMALL_BYTES
    total = SMALL_BYTES
    for member in value.values() if isinstance(value, Mapping) else value:
        total += SMALL_BYTES if type(member) in (float, int, bool) else _size(member, enough - total, depth - 1)
        if total > enough:
            break
    return total


def failure_of(error: BaseException) -> tuple[FailureKind, str, str]:
    """Kind, message and traceback of what a task raised. A MemoryError is the memory failure."""
    kind: FailureKind = "memory" if isinstance(error, MemoryError) else "raised"
    try:
        said = str(error)
    except Exception as e:  # noqa: BLE001 - said in the failure
        said = f"(its message could not be made: {type(e).__name__})"
    name = type(error).__name__
    return kind, f"{name}: {said}" if said else name, _trace(error)


def _trace(error: BaseException) -> str:
    """From the task's own first frame on; empty when not even that can be made (no memory, a wicked exception)."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_globals.get("__name__") in _OURS:
        own = own.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, own))
    except Exception as e:  # noqa: BLE001 - said in the failure
        print(f"millrace: no traceback of a {type(error).__name__}: {type(e).__name__}", file=sys.stderr)
        return ""


_OURS = frozenset({__name__, "millrace.engines.inline", "millrace.engines.processes.worker"})

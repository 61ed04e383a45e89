"""Kernels with two bodies, and which of them a batch is given to: pure decisions, and `batch`, which is `run.batch`.

Items are collected into batches of fixed size by their index, never by waiting, so a batch and its key are the same
everywhere. Which body runs is decided once a call: as the settings say, or by the crossover of two measured lines, time
= fixed + each * items. Each body has keys of its own. Imports no numeric library; see `millrace.host.placing` for GPUs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from millrace.run.errors import TaskFailed, WrongQuestion
from millrace.run.flow import describe, is_small
from millrace.run.task import Limits, Ref, Task

if TYPE_CHECKING:
    from millrace.run.run import Run

Side = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """`cpu(items, *shared)` and `gpu(items, *shared, device=...)` give a value an item, in order. `gpu` is None where there
    is no such body; `device` is as torch writes it ("cuda:0"). `name`: of the model, in what is measured."""

    cpu: Callable[..., Sequence[Any]]
    gpu: Callable[..., Sequence[Any]] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds that a batch takes: `fixed_s + each_s * items`."""

    fixed_s: float
    each_s: float

    def at(self, items: int) -> float:
        return self.fixed_s + self.each_s * items


class Place(Protocol):
    """Where kernels run: what the settings say, and what was measured on this host."""

    wish: Literal["auto", "cpu", "gpu"]

    def devices(self) -> int:
        """How many GPUs may be used."""
        ...

    def known(self, name: str) -> int | None:
        """The batch size from which the GPU wins (0: never); None when it was not measured."""
        ...

    def learn(self, name: str, cpu: Line, gpu: Line) -> int: ...

    def on_gpu(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """The body with a GPU of its own for each call."""
        ...


def line_of(points: Sequence[tuple[int, float]]) -> Line:
    """The least-squares line through (items, seconds), neither part of it negative."""
    count = len(points)
    mean_n, mean_s = sum(n for n, _ in points) / count, sum(s for _, s in points) / count
    spread = sum((n - mean_n) ** 2 for n, _ in points)
    each = sum((n - mean_n) * (s - mean_s) for n, s in points) / spread if spread else 0.0
    each = max(0.0, each)
    return Line(max(0.0, mean_s - each * mean_n), each)


def crossover(cpu: Line, gpu: Line) -> int:
    """The smallest batch from which on the GPU is faster, 0 when large batches are not."""
    if gpu.each_s > cpu.each_s or (gpu.each_s == cpu.each_s and gpu.fixed_s >= cpu.fixed_s):
        return 0
    if gpu.each_s == cpu.each_s:
        return 1
    least = max(1, int((gpu.fixed_s - cpu.fixed_s) / (cpu.each_s - gpu.each_s)))
    while gpu.at(least) >= cpu.at(least):
        least += max(1, least >> 40)  # beside rounding a step is enough
    return least


def side(wish: str, size: int, wins_from: int) -> Side:
    """Where batches of `size` go."""
    if wish != "auto":
        return "gpu" if wish == "gpu" else "cpu"
    return "gpu" if wins_from and size >= wins_from else "cpu"


def batch(
    run: Run, kernel: Kernel | Callable[..., Sequence[Any]], items: Iterable[Any], *, size: int, shared: Any = ()
) -> Iterator[Any]:
    """Values of all items in their order; `size` of them a task (by index; the last one has the rest).

    `shared` as in `run.map`. `WrongQuestion` for a GPU that is wished for and not there, or a kernel without its body.
    """
    if size < 1:
        raise WrongQuestion(f"A batch holds at least one item, and {size} were asked for.")
    kernel = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
    given = shared if isinstance(shared, tuple) else (shared,)
    refs = tuple(v if isinstance(v, Ref) or is_small(v) else run.share(v) for v in given)
    batches = _batches(items, size)
    first = next(batches, None)
    if first is None:
        return
    where = _where(run, kernel, first, refs, size)
    body = kernel.gpu if where == "gpu" and kernel.gpu is not None else kernel.cpu
    place = run.sharing.place
    on_gpu = (Made(place.on_gpu(body)),) if where == "gpu" and place is not None else ()
    fn, name = carried if on_gpu else body, getattr(body, "__name__", type(body).__name__)
    whole = itertools.chain((first,), batches)
    tasks = (Task(fn, (some, *refs), run.key(Task(body, (some, *refs))), resources=on_gpu, name=name) for some in whole)
    for values in run.values(tasks, True, name):
        yield from values


@dataclass(frozen=True, slots=True)
class Made:
    """A factory of what is there already: as a resource of tasks it tells of the GPU that it had."""

    made: Callable[..., Any]

    def __call__(self) -> Callable[..., Any]:
        return self.made


def carried(body: Callable[..., Any], *given: Any) -> Any:
    """The call of a body that is a resource."""
    return body(*given)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _where(run: Run, kernel: Kernel, first: list[Any], refs: tuple[Any, ...], size: int) -> Side:
    place = run.sharing.place
    wish = place.wish if place is not None else "cpu"
    if wish == "gpu" and (place is None or not place.devices() or kernel.gpu is None):
        why = "this kernel has no body for one" if kernel.gpu is None else "there is none here"
        raise WrongQuestion(f"placement says gpu, and {why}: set placement to auto or cpu.")
    if wish != "auto" or place is None or kernel.gpu is None or not place.devices():
        return "gpu" if wish == "gpu" else "cpu"
    name = kernel.name or getattr(kernel.cpu, "__qualname__", "kernel")
    wins_from = place.known(name)
    if wins_from is None:
        sizes = sorted({max(1, len(first) // 8), len(first)})
        if len(sizes) < 2:
            return "cpu"  # one item tells no line
        cpu = line_of(_measured(run, kernel.cpu, first, refs, sizes, "cpu"))
        gpu = line_of(_measured(run, place.on_gpu(kernel.gpu), first, refs, sizes, "gpu"))
        wins_from = place.learn(name, cpu, gpu)
    chosen = side("auto", size, wins_from)
    from_ = f"from {wins_from} items on" if wins_from else "never"
    run.note(f"{name} runs on the {chosen.upper()} in batches of {size}: the GPU wins {from_} here.", once=True)
    return chosen


def _measured(
    run: Run, body: Callable[..., Any], items: list[Any], refs: tuple[Any, ...], sizes: list[int], said: str
) -> list[tuple[int, float]]:
    tasks = (
        Task(timed, (body, items[:n], *refs), f"~{said} {n}", limits=Limits(alone=True), name=f"measure {said}")
        for n in sizes
    )
    found = {outcome.key: outcome for outcome in run.stream(tasks)}
    points = []
    for n in sizes:
        outcome = found.get(f"~{said} {n}")
        if outcome is None:
            continue
        if outcome.failure is not None:
            raise TaskFailed(describe(outcome.failure, f"measure {said}", n), outcome.failure)
        points.append((n, float(outcome.value)))
    return points or [(sizes[-1], 0.0)]


def timed(body: Callable[..., Any], items: list[Any], *shared: Any) -> float:
    """Seconds that the body takes for these items: the best of three, after one that warms it up."""
    import time

    body(items, *shared)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        body(items, *shared)
        best = min(best, time.perf_counter() - start)
    return best

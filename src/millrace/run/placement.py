"""Kernels with two bodies, and which of them a batch is given to: pure decisions, `batch`, which is `run.batch`, and
`place` for analyses that make tasks of their own.

Items are collected into batches of fixed size by their index, never by waiting, so a batch and its key are the same
everywhere. Which body runs is decided once a call: as the settings say, or by the crossover of two measured lines, time
= fixed + each * items. Each body has keys of its own. Imports no numeric library; see `millrace.host.placing` for GPUs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

from millrace.run.errors import DoesNotFit, MissingExtra, TaskFailed, WrongQuestion
from millrace.run.flow import describe, is_small
from millrace.run.task import Limits, Ref, Task

if TYPE_CHECKING:
    from millrace.run.budget import Plan
    from millrace.run.run import Run

Side = Literal["cpu", "gpu"]
GPU_BYTES = 1 << 30
"""Private memory of this host that a worker is allowed for the library and the context of a GPU. Not measured."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """`cpu(items, *shared)` and `gpu(items, *shared, device=...)` give a value an item, in order. `gpu` is None where there
    is no such body; `device` is as torch writes it ("cuda:0"). `name`: of the model, in what is measured. `needs`: the
    package that the GPU's body imports; without it the CPU has the kernel."""

    cpu: Callable[..., Any]
    gpu: Callable[..., Any] | None = None
    name: str = ""
    needs: str = ""


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
    sizes = (max(1, len(first) // 8), len(first))
    placed = place(run, kernel, size, lambda n: (first[:n], *refs), sizes)
    whole = itertools.chain((first,), batches)
    name = getattr(placed.body, "__name__", type(placed.body).__name__)
    for values in run.values((placed.task(run, some, *refs, name=name) for some in whole), True, name):
        yield from values


@dataclass(frozen=True, slots=True)
class Placed:
    """A body on the side that was chosen for it; `run.task` and `run.map` take it as a function. Its tasks have the key of
    the body alone, whichever GPU it gets. `made`: the GPU's body as a resource, empty on the CPU."""

    body: Callable[..., Any]
    made: tuple[Callable[[], Any], ...] = ()

    @property
    def side(self) -> Side:
        return "gpu" if self.made else "cpu"

    def task(
        self, run: Run, *args: Any, resources: tuple[Callable[[], Any], ...] = (), name: str = "", **more: Any
    ) -> Task:
        """As `Run.task`."""
        bare = run.task(self.body, *args, resources=resources, name=name, **more)
        return replace(bare, fn=carried, resources=(*self.made, *resources)) if self.made else bare

    def holding(self, run: Run, body: Callable[..., Any]) -> Placed:
        """Another body that takes the place of this one, on the same side."""
        return on_gpu(run, body) if self.made else Placed(body)


def on_gpu(run: Run, body: Callable[..., Any]) -> Placed:
    """The body on whichever GPU is free, whatever was measured."""
    on = run.sharing.place
    if on is None:
        raise WrongQuestion("This run knows of no GPU: it was made without a place for kernels.")
    return Placed(body, (Made(on.on_gpu(body)),))


def may_use_gpu(run: Run) -> bool:
    """Whether to look for a GPU's body at all: one is wished for, or there is one and nobody said cpu."""
    on = run.sharing.place
    return on is not None and (on.wish == "gpu" or (on.wish == "auto" and on.devices() > 0))


def follow(run: Run, plan_of: Callable[[int], Plan], without: str = "") -> bool:
    """Follow plan_of(bytes that a worker takes besides); whether it has room for GPUs. Where one may be used but its library
    does not fit the budget, the CPU has the kernels. `DoesNotFit` otherwise, also when a GPU is wished for.

    without: why nothing of the question has a body for one, which is said where one is wished for."""
    wished = run.sharing.place is not None and run.sharing.place.wish == "gpu"
    if without:
        if wished:
            run.note(without)
    elif may_use_gpu(run):
        try:
            plan = plan_of(GPU_BYTES)
        except DoesNotFit:
            if wished:
                raise
            run.note("The memory is too little for a GPU's library beside the work, so that all runs on the CPU.")
        else:
            run.follow(plan)
            return True
    run.follow(plan_of(0))
    return False


def place(
    run: Run, kernel: Kernel, size: int, probe: Callable[[int], tuple[Any, ...]], sizes: Sequence[int] = ()
) -> Placed:
    """Which body batches of `size` items are given to, and where it runs: as the settings say, or by the crossover.

    probe(n): the arguments of a batch of n items. sizes: where both bodies are timed when this host has not measured the
    kernel yet; with fewer than two the CPU has it, and nothing is kept. Not while a stream of the run is open.
    `WrongQuestion` as `batch`.
    """
    if _where(run, kernel, size, probe, sorted(set(sizes))) == "cpu" or kernel.gpu is None:
        return Placed(kernel.cpu)
    return on_gpu(run, kernel.gpu)


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


def _where(run: Run, kernel: Kernel, size: int, probe: Callable[[int], tuple[Any, ...]], sizes: Sequence[int]) -> Side:
    on = run.sharing.place
    wish = on.wish if on is not None else "cpu"
    if wish == "gpu" and (on is None or not on.devices() or kernel.gpu is None):
        why = "this kernel has no body for one" if kernel.gpu is None else "there is none here"
        raise WrongQuestion(f"placement says gpu, and {why}: set placement to auto or cpu.")
    if wish != "cpu" and kernel.needs and find_spec(kernel.needs) is None:
        if wish == "gpu":
            raise MissingExtra(kernel.needs, kernel.needs, f"placement gpu for {kernel.name}")
        return "cpu"
    if wish != "auto" or on is None or kernel.gpu is None or not on.devices():
        return "gpu" if wish == "gpu" else "cpu"
    name = kernel.name or getattr(kernel.cpu, "__qualname__", "kernel")
    wins_from = on.known(name)
    if wins_from is None:
        if len(sizes) < 2:
            return "cpu"  # one size tells no line
        found = _lines(run, on, kernel, kernel.gpu, probe, sizes, name)
        if found is None:
            return "cpu"
        wins_from = on.learn(name, *found)
    chosen = side("auto", size, wins_from)
    from_ = f"from {wins_from:,} items on" if wins_from else "never"
    run.note(f"{name} runs on the {chosen.upper()} in batches of {size:,}: the GPU wins {from_} here.", once=True)
    return chosen


def _lines(
    run: Run, on: Place, kernel: Kernel, gpu: Callable[..., Any], probe: Callable[[int], tuple[Any, ...]],
    sizes: Sequence[int], name: str,
) -> tuple[Line, Line] | None:  # fmt: skip
    """Both bodies' lines; None, and nothing is to be kept, for a run that ends meanwhile or a GPU that fails: said, since
    the CPU's body gives the answer all the same."""
    cpu = _measured(run, kernel.cpu, probe, sizes, "cpu")
    try:
        fast = _measured(run, on.on_gpu(gpu), probe, sizes, "gpu")
    except TaskFailed as e:
        run.note(f"{name} runs on the CPU, since its body for a GPU failed when it was measured: {_first_line(e)}")
        return None
    if len(cpu) < len(sizes) or len(fast) < len(sizes):
        return None
    return line_of(cpu), line_of(fast)


def _first_line(error: TaskFailed) -> str:
    return error.failure.message.partition("\n")[0]


def _measured(
    run: Run, body: Callable[..., Any], probe: Callable[[int], tuple[Any, ...]], sizes: Sequence[int], said: str
) -> list[tuple[int, float]]:
    tasks = (
        Task(timed, (body, *probe(n)), f"~{said} {n}", limits=Limits(alone=True), name=f"measure {said}") for n in sizes
    )
    points = []
    for outcome in run.stream(tasks):
        n = int(outcome.key.rpartition(" ")[2])
        if outcome.failure is not None:
            raise TaskFailed(describe(outcome.failure, f"measure {said}", n), outcome.failure)
        points.append((n, float(outcome.value)))
    return points


def timed(body: Callable[..., Any], *args: Any) -> float:
    """Seconds that the body takes: the best of three, after one that warms it up."""
    import time

    body(*args)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        body(*args)
        best = min(best, time.perf_counter() - start)
    return best

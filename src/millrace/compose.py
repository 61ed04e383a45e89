"""The one composition root: from the machine's settings to a Run, and from a question to its answer.

Every face (Python, command line, later the service) comes through here, so the engines, stores and analyses never
choose each other. Nothing here computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace import clusters, tracing
from millrace.analyses import catalogue
from millrace.folder import Home, described, fresh, report_of, save
from millrace.run.budget import Budget, Plan
from millrace.run.errors import NotSupported
from millrace.run.ledger import SCHEMA, Ledger
from millrace.run.run import Progress, Run
from millrace.run.units import parse_duration
from millrace.sharing import WITHOUT, share
from millrace.surroundings import Surroundings, look

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.run.ports import Engine, Meters, Store, Tokens
    from millrace.run.task import Task
    from millrace.settings import Settings
    from millrace.tiers import Tiers

ENGINES = ("auto", "inline", "processes", "dask", "dask=ADDRESS")
POOL_START_S = 0.35
"""What starting two workers costs with the kernels of an analysis preloaded; `auto` stays inline below twice that."""
REMEMBERED_BYTES = 16 << 20
"""Of small values (large ones lie in the arena) in a run that was given no store: it sees them twice only when a question asks
twice, and its memory must not grow with the number of its tasks."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and within what to run; None is "as the settings say". `out`: the folder for the answer.

    `timing_log`: workers write a line a task on stderr; `profile`: what tasks do is sampled.
    `keep_out`: make a folder under the settings' `runs` when `out` is not given. `opened` is told the Run at once;
    `closed` when it has ended, before the answer is written.
    `light`: work so small that it takes no token of the host's cores, declares no memory, and leaves its page of a report to
    who asks for one (HTTP rows, the light tier).
    """

    engine: str | None = None
    cores: int | None = None
    memory: str | int | None = None
    store: str | os.PathLike[str] | None = None
    seed: int = 0
    out: str | os.PathLike[str] | None = None
    keep_out: bool = False
    nice: int | None = None
    deadline: str | float | None = None
    show: Callable[[Progress], None] | None = None
    opened: Callable[[Run], None] | None = None
    closed: Callable[[], None] | None = None
    light: bool = False
    around: Surroundings | None = None
    """Of the host, known already to who runs many small ones (a warm process of the light tier)."""
    bundle: str | os.PathLike[str] | None = None
    """Folder of the user's modules, for workers of a Dask cluster that do not have them."""
    dask_report: str | os.PathLike[str] | None = None
    """Where Dask's own performance report goes."""
    timing_log: bool = False
    profile: bool = False
    traced: bool = True
    """Whether traces tell of it; not of a run that only warms a process up."""


# -- from settings to parts --------------------------------------------------------------------------------------
def load_settings(explicit: Mapping[str, Any]) -> Settings:
    """The machine's settings; what is None in `explicit` counts as not given."""
    from millrace.settings import load

    return load({k: v for k, v in explicit.items() if v is not None})


def open_store(url: str) -> Store:
    """The store of that url or path; also what workers call to attach `Ref`s.

    A path, dir:PATH; layered:BASE,TOP; redis://, rediss://; s3://, gs://, az://, file:// and whatever else fsspec knows.
    """
    scheme, there, _ = url.partition("://")
    if url.startswith("layered:"):
        from millrace.stores.layered import open_layered

        return open_layered(url, open_store)
    if not there:
        from millrace.stores.directory import DirectoryStore

        return DirectoryStore(Path(url.removeprefix("dir:")))
    cache = Path(load_settings({}).cache)
    if scheme in ("redis", "rediss"):
        from millrace.stores.redis import RedisStore

        return RedisStore(url, cache)
    from millrace.stores.remote import RemoteStore

    return RemoteStore(url, cache)


def open_run(
    analysis: str = "run",
    machine: Machine | None = None,
    *,
    spec: Mapping[str, Any] | None = None,
    preload: tuple[str, ...] = (),
    functions: tuple[Callable[..., Any], ...] = (),
) -> Run:
    """A Run on this machine; close it, or use it in a `with`. Its ledger lies in `folder_of(run)`. `functions`: that will
    run, as far as they are known: their packages must be the same on a cluster."""
    from millrace import host

    machine = machine or Machine()
    settings = load_settings({n: getattr(machine, n) for n in ("engine", "cores", "memory", "nice")})
    kind = settings.engine
    if not is_engine(kind):
        raise NotSupported(f"There is no engine {kind!r} in this release. Engines are {', '.join(ENGINES)}.")
    around = machine.around or look(settings.cache)
    budget = budget_of(settings, around.slots)
    address = clusters.address_of(kind)
    clusters.find_modules_in(machine.bundle)
    if settings.nice:  # workers inherit it
        os.nice(max(0, settings.nice - os.nice(0)))
    run_id = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{analysis.replace(' ', '-')}-{secrets.token_hex(2)}"
    with contextlib.ExitStack() as owned:
        out = Path(machine.out) if machine.out is not None else None
        if out is None and machine.keep_out:
            out = Path(settings.runs) / run_id
        bare = machine.light and machine.store is not None and address is None  # nothing goes to scratch
        scratch = out if out is not None and bare else _scratch(settings, owned)
        store, arena = _stores(machine.store, scratch, owned)
        cluster = clusters.connected(address, functions, owned) if address else None
        if cluster is not None:
            budget = clusters.budget_of(cluster, settings.cores, settings.memory)
            arena = clusters.arena_for(cluster, arena, open_store, scratch, owned)
        home = Home(scratch.parent) if out is None else None
        ledger = Ledger(fresh(home.path if home is not None else out) / "ledger.jsonl", home)
        if machine.traced:
            tracing.told_at_end(owned, ledger.path)
        owned.callback(ledger.close)
        light = machine.light or address is not None  # a cluster's cores are not this host's
        shared = share(settings, run_id, budget.cores, light, store, owned, around)
        deadline_s = parse_duration(machine.deadline) if machine.deadline is not None else 0.0
        begun = time.monotonic_ns()

        def make_engine(slots: int) -> Engine:
            if address is None:
                return _engine(kind, slots, preload, shared.tokens, around.meter)
            return clusters.engine_on(
                cluster,
                slots,
                opener=open_store,
                arena=arena,
                scratch=scratch,
                preload=preload,
                bundle=None if machine.bundle is None else Path(machine.bundle),
                report=None if machine.dask_report is None else Path(machine.dask_report),
                note=lambda text: run.note(text, once=True),
            )

        run = Run(
            make_engine=make_engine,
            store=store,
            arena=arena,
            ledger=ledger,
            budget=budget,
            seed=machine.seed,
            deadline_s=deadline_s,
            show=machine.show,
            measure=host.private_bytes,
            throttled_ns=around.throttled_since_now(),
            around=around.one_thread,
            owned=owned.pop_all(),
            watch=_watch(machine, ledger.path.parent),
            sharing=shared.sharing,
        )
    ledger.write(
        "run",
        schema=SCHEMA,
        run_id=run_id,
        analysis=analysis,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        from_ns=begun,
        slots=budget.cores,
        engine=kind,
        seed=machine.seed,
        budget=dataclasses.asdict(budget),
        host=around.described,
        versions=versions(),
        spec=spec or {},
    )
    for remark in getattr(store, "remarks", ()):  # such as: this server evicts by itself
        run.note(remark, once=True)
    if cluster is not None and cluster.dashboard:
        run.note(f"Dask's own dashboard of this cluster: {cluster.dashboard}", once=True)
    if machine.opened is not None:
        machine.opened(run)
    return run


def _scratch(settings: Settings, owned: contextlib.ExitStack) -> Path:
    from millrace import host

    made = Path(tempfile.mkdtemp(prefix="millrace-", dir=host.scratch(settings.scratch)))
    owned.callback(shutil.rmtree, made, ignore_errors=True)
    return made


def is_engine(name: str) -> bool:
    return name in ENGINES[:-1] or name.startswith("dask=")


def budget_of(settings: Settings, allowed: int = 0) -> Budget:
    """Cores and bytes: what was asked for, within what the host allows (`allowed` slots, where that is known)."""
    from millrace import host

    allowed = allowed or host.slots(host.cores())
    cores = min(settings.cores or allowed, 4 * allowed)
    private_bytes = settings.memory if settings.memory is not None else host.default_budget_bytes()
    return Budget(cores, private_bytes, isolates=settings.engine != "inline")


def _watch(machine: Machine, folder: Path) -> Callable[[Task, int, str], Task] | None:
    """How tasks are made to tell of themselves, None when nobody asked."""
    if not machine.timing_log and not machine.profile:
        return None
    from millrace.diagnose.stacks import FOLDER
    from millrace.engines.watching import Watch

    return Watch(machine.timing_log, folder / FOLDER if machine.profile else None)


def _stores(asked: str | os.PathLike[str] | None, scratch: Path, owned: contextlib.ExitStack) -> tuple[Store, Store]:
    """The store for results, and the one that workers reach: the same when results go to a directory."""
    from millrace.stores.directory import DirectoryStore

    if asked is not None:
        store = open_store(os.fspath(asked))
        owned.callback(store.close)
        return store, store
    from millrace.stores.memory import MemoryStore

    arena = DirectoryStore(scratch / "arena")
    owned.callback(arena.close)
    return MemoryStore(REMEMBERED_BYTES), arena


def _engine(kind: str, slots: int, preload: tuple[str, ...], tokens: Tokens | None, meter: Meters | None) -> Engine:
    from millrace.engines.inline import InlineEngine

    if kind == "inline" or (kind == "auto" and sys.platform != "linux"):  # worker processes need Linux
        return InlineEngine(open_store, tokens, meter)
    from millrace.engines.processes import ProcessEngine

    def pool() -> Engine:
        if tokens is None:
            return ProcessEngine(slots, opener=open_store, meter=meter, preload=preload)
        modules = *preload, "millrace.host.tokens"
        return ProcessEngine(slots, opener=open_store, tokens=tokens, meter=meter, preload=modules, environment=WITHOUT)

    if kind == "processes":
        return pool()
    from millrace.engines.auto import AutoEngine

    return AutoEngine(pool, threshold_s=2 * POOL_START_S, slots=slots, opener=open_store, tokens=tokens, meter=meter)


def tiers_of(settings: Settings, gpus: int = 0) -> Tiers:
    """The tiers of these settings. `gpus`: how many workers the tier gpu may have, where the file does not say."""
    from millrace.tiers import load_tiers

    return load_tiers(settings.tiers, gpus)


def open_jobs(settings: Settings, say: Callable[[str], None] | None = None) -> Desk:
    """The job table, inputs and tiers of these settings; close its table. `say` is told when a broker is away (not given:
    stderr is)."""
    from millrace.host.gpu import gpus
    from millrace.jobs.database import open_database
    from millrace.jobs.desk import Desk
    from millrace.jobs.table import JobTable, Service

    tiers = tiers_of(settings, len(gpus()))
    settings.jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = open_database(settings.database or settings.jobs / "jobs.sqlite")
    table = JobTable(engine, lease_s=tiers.lease_s, service=Service(tiers.weight, tiers.unknown_s))
    if settings.broker is None:
        return Desk(settings.jobs, table, tiers)
    from millrace.jobs.celery.opening import messages

    tell = say or (lambda text: print(text, file=sys.stderr))
    return Desk(settings.jobs, table, tiers, messages(settings.broker, table, tiers, tell))


def versions() -> dict[str, str]:
    """millrace, Python, and the numeric libraries that are loaded."""
    from millrace import __version__

    said = {"millrace": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("numpy", "numba", "scipy", "pyarrow", "lightgbm", "xgboost", "sklearn"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "__version__"):
            said[name] = module.__version__
    return said


# -- from a question to its answer -------------------------------------------------------------------------------
def carry_out(
    analysis: str, question: Mapping[str, Any], machine: Machine, run: Run | None = None, notes: Iterable[str] = ()
) -> Any:
    """Ask the question: validate it, run the analysis, write the answer where it was asked for.

    `run`: a run that is open already, whose pool and store are used; it is not closed.
    """
    entry = catalogue.find(analysis)
    spec = entry.load("spec")(**question)
    if run is not None:
        for text in notes:  # what was decided about the question before it was asked
            run.note(text)
        return entry.load("analysis")(spec, run)
    from millrace.lessons import question_key

    machine = looked_around(machine)
    question_digest = question_key(analysis, spec, machine.seed)
    run = open_run(analysis, machine, spec=described(spec), preload=entry.preload)
    for text in notes:
        run.note(text)
    return finish(run, lambda: entry.load("analysis")(spec, run), machine, question_digest)


def plan(analysis: str, question: Mapping[str, Any], machine: Machine) -> Plan:
    """What the question will take on this machine by the analysis' own arithmetic; see `forecast` for what runs teach."""
    entry = catalogue.find(analysis)
    facts = entry.load("facts")(entry.load("spec")(**question))
    settings = load_settings({n: getattr(machine, n) for n in ("engine", "cores", "memory")})
    return entry.load("plan")(facts, budget_of(settings))  # type: ignore[no-any-return]


def looked_around(machine: Machine) -> Machine:
    """The machine with what is around it: looked up once, for `open_run` and `finish` alike."""
    return machine if machine.around else dataclasses.replace(machine, around=look(load_settings({}).cache))


def finish(run: Run, work: Callable[[], Any], machine: Machine, question: str = "", function: str = "") -> Any:
    """Do the work within the run, close it, account for it, learn from it, and write what was asked for.

    `question`: its digest where its inputs are files (see `lessons.question_key`); `function`: the user's, by name.
    """
    from millrace import lessons

    wants_out = machine.out is not None or machine.keep_out
    around = looked_around(machine).around
    assert around is not None
    taught_in, strained = around.taught_in, around.waiting_since_now()
    with run:
        answer = work()
        if hasattr(answer, "digest"):
            run.ledger.write("answer", digest=answer.digest)
        if wants_out:
            run.ledger.write("speed", **lessons.speed(taught_in))
        run.ledger.write("strain", cpu_waiting=strained())
    if machine.closed is not None:
        machine.closed()
    report = report_of(run.ledger.path.parent, run.ledger.home)
    lessons.learn_from(taught_in, report, question, function)
    answer = dataclasses.replace(answer, report=report, out=report.folder if wants_out else None, saver=save)
    if wants_out:
        save(answer, report.folder, page=not machine.light)
    return answer


def map_function(
    function: Callable[..., Any] | str, items: Iterable[Any], machine: Machine, preload: tuple[str, ...] = ()
) -> Any:
    """The user's own function, one call an item, as an analysis like any other."""
    from millrace.lessons import method_of
    from millrace.run.function import Mapped, find_function

    clusters.find_modules_in(machine.bundle)
    fn = find_function(function) if isinstance(function, str) else function
    said = {"function": f"{fn.__module__}:{getattr(fn, '__qualname__', fn)}"}
    machine = looked_around(machine)
    run = open_run("run", machine, spec=said, preload=preload, functions=(fn,))
    return finish(run, lambda: Mapped.of(run, fn, items), machine, function=method_of(fn))

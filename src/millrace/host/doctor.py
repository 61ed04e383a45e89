"""`millrace doctor`: all facts of this machine in one answer, and the settings that follow from them.

`doctor` collects (it measures for well under a second); `advise` is pure. Changes nothing, but for an empty scratch
directory of this user. The sentences for people are in `lines`, everything for machines in `as_dict`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.host.ceilings import Ceilings, absences, ceilings
from millrace.host.cgroups import Root
from millrace.host.cores import Cores, cores, slots
from millrace.host.extras import Extra, extras
from millrace.host.gpu import Gpu, gpus
from millrace.host.identity import processor, system
from millrace.host.instances import Instance, instances
from millrace.host.memory import Memory, budget_bytes, memory
from millrace.host.neighbours import Neighbour, neighbours
from millrace.host.placing import crossovers
from millrace.host.scratch import Filesystem, filesystem, scratch
from millrace.host.speed import CoreSpeed, DiskSpeed, disk_speed, single_core_reference
from millrace.host.strain import Pressure, Stall, Throttling, pressure, stolen_share, throttling
from millrace.host.threads import Blas, blas
from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes

_MUCH_THROTTLED = 0.05
_MUCH_STOLEN = 0.02
_MUCH_PRESSURE_PCT = 10.0
_CROWDED_PCT = 50.0
_FEW_FILES = 1024
_LITTLE_MEMORY_BYTES = 1 << 30
_TOML = "millrace.toml"


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do. `line` can be pasted into the file `into` ("millrace.toml", "shell"); both may be ""."""

    why: str
    line: str = ""
    into: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. None is "this machine does not tell", and for scratch "there is none" (see `scratch_refusal`).

    `slots` is how many tasks run at once by default and `budget_bytes` what they may hold together. `jail`: layers for
    untrusted programs, each with why it is not here, "" when it is; empty when nobody looked.
    """

    millrace: str | None
    python: str
    system: str
    processor: str
    cores: Cores
    slots: int
    memory: Memory
    budget_bytes: int
    ceilings: Ceilings
    throttling: Throttling | None
    pressure: Pressure | None
    stolen_share: float | None
    core_speed: CoreSpeed
    blas: tuple[Blas, ...]
    scratch: Path | None
    scratch_refusal: str
    filesystem: Filesystem | None
    disk_speed: DiskSpeed | None
    gpus: tuple[Gpu, ...]
    instances: tuple[Instance, ...] | None
    runs: tuple[Neighbour, ...]
    jail: Mapping[str, str]
    crossovers: Mapping[str, int]
    extras: tuple[Extra, ...] | None
    absences: tuple[str, ...]

    @property
    def others(self) -> frozenset[int]:
        """Processes of other runs: those that share this host's cores, and those that use the store."""
        return frozenset(run.pid for run in self.runs if run.cores) | {one.pid for one in self.instances or ()}


@dataclass(frozen=True, slots=True)
class Doctor:
    """Facts, and what to do about them."""

    facts: Facts
    advice: tuple[Advice, ...]

    def lines(self) -> list[str]:
        """For people, a fact a line; what can be pasted stands at the end, on lines of its own."""
        found = [*_machine_lines(self.facts), *_strain_lines(self.facts), *_place_lines(self.facts)]
        found += _other_lines(self.facts)
        found += _jail_lines(self.facts.jail)
        found += [_row("", sentence) for sentence in self.facts.absences]
        found += _extra_lines(self.facts.extras)
        for into in (_TOML, "shell"):
            pasted = [advice for advice in self.advice if advice.into == into]
            if pasted:
                rows = [line for advice in pasted for line in (f"  # {advice.why}", f"  {advice.line}")]
                found += ["", f"To paste into {'the ' if into == 'shell' else ''}{into}:", *rows]
        plain = [advice.why for advice in self.advice if not advice.line]
        return [*found, *(["", "To do:", *(f"  {why}" for why in plain)] if plain else [])]

    def as_dict(self) -> dict[str, Any]:
        """For machines: numbers, text, lists and None only, with the names of `Facts`."""
        facts = dataclasses.asdict(self.facts)
        advice = [dataclasses.asdict(one) for one in self.advice]
        return {**{name: _plain(value) for name, value in facts.items()}, "advice": advice}


def doctor(
    wanted_scratch: str | Path | None = None,
    root: Root = "/",
    locks: Iterable[Path] = (),
    shared: Path | None = None,
    learnt: Path | None = None,
    jail: Mapping[str, str] | None = None,
) -> Doctor:
    """Look at everything. Takes under two seconds, most of it measuring the scratch disk. `locks`: the folders of the lock
    files that runs hold; `shared`: the folder of this host's tokens; `learnt`: the file of crossovers;
    `jail`: what was found of its layers.

    Raises `MillraceError` when not even the memory of the machine can be read.
    """
    found_cores, found_memory = cores(root), memory(root)
    place, refusal = _scratch_or_refusal(wanted_scratch, root)
    facts = Facts(
        millrace=_version(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=system(),
        processor=processor(root),
        cores=found_cores,
        slots=slots(found_cores),
        memory=found_memory,
        budget_bytes=budget_bytes(found_memory),
        ceilings=ceilings(root),
        throttling=throttling(root),
        pressure=pressure(root),
        stolen_share=stolen_share(root),
        core_speed=single_core_reference(),
        blas=blas(),
        scratch=place,
        scratch_refusal=refusal,
        filesystem=filesystem(place, root) if place else None,
        disk_speed=disk_speed(place) if place else None,
        gpus=gpus(root),
        instances=instances(locks, root),
        runs=neighbours(shared, root) if shared is not None else (),
        jail=jail or {},
        crossovers={n: int(told["wins_from"]) for n, told in (crossovers(learnt) if learnt else {}).items()},
        extras=extras(),
        absences=absences(root, sys.platform),
    )
    return Doctor(facts, advise(facts))


def advise(facts: Facts) -> tuple[Advice, ...]:
    """What follows from the facts: pure. Settings first, then what only people can change."""
    mib = facts.budget_bytes >> 20
    found = [
        Advice(
            f"whole cores of {facts.cores.allowed:g} allowed by {facts.cores.where}",
            f"cores = {facts.slots}",
            _TOML,
        )
    ]
    if mib > 0:
        free = format_bytes(facts.memory.available_bytes)
        why = f"of {free} that are free; the rest is for others and the file cache"
        found.append(Advice(why, f'memory = "{mib}MiB"', _TOML))
    if facts.scratch is not None and facts.filesystem is not None:
        why = f"{format_bytes(facts.filesystem.free_bytes)} free on {facts.filesystem.kind or 'a disk'}"
        found.append(Advice(why, f"scratch = {json.dumps(str(facts.scratch), ensure_ascii=False)}", _TOML))
    if any(library.threads > 1 for library in facts.blas):
        why = "for your own programs: as many threads as cores in each process get in each other's way"
        found.append(Advice(why, "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1", "shell"))
    if facts.others:
        count = len(facts.others)
        share = max(1, facts.slots // (count + 1))
        why = f"{count} other {'run uses' if count == 1 else 'runs use'} this host: a fair share of its cores"
        found.append(Advice(why, f"millrace ... --cores {share}", "shell"))
    return (*found, *(Advice(why) for why in [*_strain_advice(facts), *_place_advice(facts)]))


def _strain_advice(facts: Facts) -> list[str]:
    found = []
    slow = facts.throttling
    if slow and slow.throttled_periods > _MUCH_THROTTLED * slow.periods:
        share = slow.throttled_periods / slow.periods
        found.append(
            f"Throttled in {share:.0%} of all periods: use fewer workers, or raise the quota of the container."
        )
    if facts.stolen_share is not None and facts.stolen_share > _MUCH_STOLEN:
        found.append(f"The hypervisor takes {facts.stolen_share:.0%} of the processor time: this machine is oversold.")
    crowded = facts.pressure.cpu if facts.pressure else None
    if crowded and crowded.some_60s_pct > _CROWDED_PCT:
        found.append(
            f"Programs wait {crowded.some_60s_pct:g} % of the time for a processor: these cores are in use already."
        )
    squeezed = facts.pressure.memory if facts.pressure else None
    if squeezed and squeezed.some_60s_pct > _MUCH_PRESSURE_PCT:
        found.append(
            f"Tasks wait {squeezed.some_60s_pct:g} % of the time for memory: give runs less, or end something."
        )
    if facts.memory.available_bytes < _LITTLE_MEMORY_BYTES:
        free = format_bytes(facts.memory.available_bytes)
        found.append(f"Only {free} of memory are free below {facts.memory.where}: large questions will not fit.")
    ceiling = facts.ceilings.address_space_bytes
    if ceiling is not None:
        found.append(f"`ulimit -v` is {format_bytes(ceiling)} and counts mapped files too: set it to unlimited.")
    if facts.ceilings.open_files is not None and facts.ceilings.open_files < _FEW_FILES:
        found.append(f"Only {facts.ceilings.open_files} files may be open at once: `ulimit -n {_FEW_FILES}`.")
    return found


def _place_advice(facts: Facts) -> list[str]:
    found = [facts.scratch_refusal] if facts.scratch_refusal else []
    if facts.filesystem is not None and facts.filesystem.over_network:
        found.append(f"Scratch is on {facts.filesystem.kind}, over a network: a disk of this machine is faster to map.")
    for extra in facts.extras or ():
        old = ", ".join(f"{p.name} {p.version} (wants {p.wanted})" for p in extra.missing if p.version)
        if old:
            found.append(f"Too old for {extra.name!r}: {old}. {extra.pip} --upgrade")
    return found


def _scratch_or_refusal(wanted: str | Path | None, root: Root) -> tuple[Path | None, str]:
    try:
        return scratch(wanted, root=root), ""
    except WrongQuestion as refused:
        return None, str(refused)


def _version() -> str | None:
    from importlib import metadata  # 10 ms, and only here

    try:
        return metadata.version("millrace")
    except metadata.PackageNotFoundError:
        return None


def _row(name: str, text: str) -> str:
    return f"{name:<12}{text}"


def _machine_lines(facts: Facts) -> list[str]:
    found = facts.cores
    parts = [f"{found.logical} logical", f"affinity {found.affinity}"]
    parts += [f"cpuset {found.cpuset}"] if found.cpuset is not None else []
    parts += [f"quota {found.quota:g}" if found.quota is not None else "no quota"]
    held = facts.memory
    limit = f"{format_bytes(held.limit_bytes)} by {held.where}"
    if held.limit_bytes < held.total_bytes:
        limit += f", of {format_bytes(held.total_bytes)} in the machine"
    speed = facts.core_speed
    return [
        _row("Millrace", f"{facts.millrace or 'from sources'}, {facts.python}, {facts.system}"),
        _row("Cores", f"{facts.slots} ({', '.join(parts)}; set by {found.where})"),
        _row("Memory", f"{format_bytes(held.available_bytes)} free of {limit}"),
        _row("One core", f"{facts.processor}: {speed.index:.2f} of the reference ({speed.reference})"),
        _row(
            "",
            f"{speed.gathers_per_s / 1e6:.0f} million random reads/s, {speed.flops / 1e9:.1f} GFLOP/s by BLAS",
        ),
        *(_row("Threads", _library(library)) for library in facts.blas),
    ]


def _library(library: Blas) -> str:
    kernels = f", kernels for {library.kernels}" if library.kernels else ""
    return f"{library.name} {library.version or ''}".strip() + f": {library.threads}{kernels}"


def _strain_lines(facts: Facts) -> list[str]:
    slow, told = facts.throttling, facts.pressure
    found = []
    if slow is None:
        found.append(_row("Throttling", "not told here"))
    elif slow.periods == 0:
        found.append(_row("Throttling", "none, as there is no quota"))
    else:
        found.append(
            _row(
                "Throttling",
                f"{slow.throttled_s:.1f} s in {slow.throttled_periods} of {slow.periods} periods",
            )
        )
    stalls = [("cpu", told.cpu), ("memory", told.memory), ("io", told.io)] if told else []
    text = ", ".join(f"{name} {_stall(stall)}" for name, stall in stalls)
    found.append(_row("Pressure", f"waiting in the last minute: {text}" if text else "not told here"))
    if facts.stolen_share is not None and facts.stolen_share > 0:
        found.append(_row("Stolen", f"{facts.stolen_share:.2%} of processor time since boot by the hypervisor"))
    return found


def _stall(stall: Stall | None) -> str:
    return "unknown" if stall is None else f"{stall.some_60s_pct:g} %"


def _other_lines(facts: Facts) -> list[str]:
    """GPUs, and who else is here."""
    found = [_row("GPU", _gpu(gpu)) for gpu in facts.gpus] or [_row("GPU", "none")]
    for name, wins_from in facts.crossovers.items():
        found.append(_row("", f"{name}: the GPU wins {f'from {wins_from} items on' if wins_from else 'never'}"))
    for run in facts.runs:
        held = f"{run.tokens} of {run.cores} tokens" if run.cores else f"{run.tokens} tokens"
        waits = f", waits for {format_bytes(run.wanted_bytes)}" if run.wanted_bytes else ""
        found.append(
            _row("Run", f"{run.run_id}, process {run.pid}: {held}, {format_bytes(run.declared_bytes)} declared{waits}")
        )
    if facts.instances is None:
        return [*found, _row("Other runs", "not told here")]
    known = {run.pid for run in facts.runs}
    named = [f"process {one.pid} ({one.locks} locks)" for one in facts.instances if one.pid not in known]
    beside = " beside these" if known else ""
    told = f"{len(named)} of the store{beside}: {', '.join(named)}" if named else f"none that uses this store{beside}"
    return [*found, _row("Other runs", told)]


def _gpu(gpu: Gpu) -> str:
    return f"{gpu.name}, {format_bytes(gpu.memory_bytes) if gpu.memory_bytes else 'memory not told'}"


def _place_lines(facts: Facts) -> list[str]:
    on, speed = facts.filesystem, facts.disk_speed
    if facts.scratch is None or on is None or speed is None:
        return [_row("Scratch", "none: see below")]
    return [
        _row("Scratch", f"{facts.scratch} on {on.kind or 'a disk'}, {format_bytes(on.free_bytes)} free"),
        _row(
            "",
            f"writes {format_bytes(int(speed.write_bytes_per_s))}/s, "
            f"reads {format_bytes(int(speed.read_bytes_per_s))}/s ({format_bytes(speed.size_bytes)} timed)",
        ),
    ]


def _jail_lines(layers: Mapping[str, str]) -> list[str]:
    if not layers:
        return []
    there = [name for name, missing in layers.items() if not missing]
    lines = [_row("Jail", f"untrusted programs are held by {', '.join(there) or 'nothing but a process of their own'}")]
    return lines + [_row("", f"{name} is not here: {missing}") for name, missing in layers.items() if missing]


def _extra_lines(found: tuple[Extra, ...] | None) -> list[str]:
    if found is None:
        return [_row("Extras", "not known: millrace runs from sources that are not installed")]
    whole = [extra.name for extra in found if not extra.missing]
    lines = [_row("Extras", "installed: " + (", ".join(whole) or "none"))]
    for extra in found:
        if extra.missing:
            lines.append(_row("", f"{extra.name} lacks {', '.join(p.name for p in extra.missing)}: {extra.pip}"))
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

"""The analyses there are, by string, so that naming one imports nothing. One line an analysis, or one of its verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """`spec`: the frozen pydantic model; `analysis`: `(spec, run) -> result`; `facts`: `(spec) -> Facts`, read from
    attributes and file headers; `plan`: `(facts, budget) -> Plan`, pure ("": nothing to plan). `preload`: modules that workers
    have warm.

    verb: what it is called after the analysis' name on the command line, "" when the name is all. in_file: its question is a
    TOML file, whose simple fields are options as well. command: who makes its command.
    """

    name: str
    about: str
    extra: str
    spec: str
    analysis: str
    facts: str
    plan: str
    preload: tuple[str, ...]
    verb: str = ""
    in_file: bool = False
    command: str = "millrace.cli.analyse:command"

    @property
    def path(self) -> tuple[str, ...]:
        """The words of its command: ("explain",), ("calibrate", "run")."""
        return (self.name.partition(" ")[0], self.verb) if self.verb else (self.name,)

    def load(self, room: str) -> Any:
        """The object that `spec`, `analysis`, `facts` or `plan` names."""
        module, _, name = getattr(self, room).partition(":")
        return getattr(import_module(module), name)


def _entry(name: str, about: str, preload: tuple[str, ...]) -> Entry:
    home = f"millrace.analyses.{name}"
    return Entry(
        name, about, name,
        spec=f"{home}.spec:Spec", analysis=f"{home}.analysis:{name}", facts=f"{home}.facts:facts", plan=f"{home}.plan:plan",
        preload=preload,
    )  # fmt: skip


def _verb(analysis: str, verb: str, about: str, **more: Any) -> Entry:
    """A verb beside the analysis itself, in a file of its name."""
    home = f"millrace.analyses.{analysis}.{verb}"
    return Entry(
        f"{analysis} {verb}", about, analysis, analysis=f"{home}:{verb}", verb=verb,
        **{"spec": f"{home}:Spec", "facts": "", "plan": "", "preload": (), **more},
    )  # fmt: skip


def _twin(verb: str, about: str, preload: tuple[str, ...]) -> Entry:
    """A verb of twin with its plan."""
    return _verb(
        "twin", verb, about, spec=f"{TWIN}.spec:{verb.capitalize()}", facts=f"{TWIN}.facts:facts_of_{verb}",
        plan=f"{TWIN}.plan:plan_{verb}", preload=tuple(f"{TWIN}.{name}" for name in preload),
    )  # fmt: skip


CALIBRATE = "millrace.analyses.calibrate"
SIMULATING, OF_RUN = (f"{CALIBRATE}.simulating",), "millrace.cli.calibrate:of_run"
TWIN = "millrace.analyses.twin"
JUDGING = ("millrace.analyses.validate.kernels.judge",)
ENTRIES = (
    _entry("explain", "SHAP values of a fitted model, exact where they can be", ("millrace.analyses.explain.blocks",)),
    _entry("refute", "tries to break a causal estimate, a thousand times", ("millrace.analyses.refute.batches",)),
    dataclasses.replace(
        _entry("calibrate", "fits a stochastic simulator to data", SIMULATING), verb="run", in_file=True
    ),
    _verb(
        "calibrate",
        "rescore",
        "finished trials under new targets or weights, without a simulation",
        spec=f"{CALIBRATE}.looks:Rescore",
        command=OF_RUN,
    ),
    _verb(
        "calibrate",
        "replay",
        "one simulation of a run again, by trial and seed, with all that it prints",
        spec=f"{CALIBRATE}.looks:Replay",
        command=OF_RUN,
    ),
    _verb(
        "calibrate",
        "probe",
        "a small study three times: what each part costs",
        spec=f"{CALIBRATE}.spec:Spec",
        in_file=True,
        preload=SIMULATING,
    ),
    dataclasses.replace(
        _entry("validate", "runs untrusted programs on cases", JUDGING),
        verb="run",
    ),
    _verb("validate", "inline", "candidates in their canonical form", preload=JUDGING),
    _verb("validate", "export", "the best programs of a run as files", command="millrace.cli.validate:export"),
    _twin("fit", "learns a population: all columns together, then outcome and effects", ("parts",)),
    _twin("generate", "twins of a learnt population, as one Parquet file", ("tabling",)),
    _verb(
        "twin",
        "simulate",
        "what interventions would do to twins, how surely, and what to do about it",
        spec=f"{TWIN}.simulate_spec:Simulate",
        facts=f"{TWIN}.simulate_plan:facts_of_simulate",
        plan=f"{TWIN}.simulate_plan:plan_simulate",
        preload=(f"{TWIN}.simulate_blocks",),
    ),
    _verb("twin", "track", "a real result beside the simulated one", spec=f"{TWIN}.simulate_spec:Track"),
    _twin("assess", "how like the real rows twins are, and how far from single ones", ("assess",)),
)
ABOUT = {
    "twin": "a synthetic population that behaves like the real one: fit, generate, simulate, assess, track",
    "calibrate": "fits a stochastic simulator to data: run, rescore, replay, probe",
    "validate": "runs thousands of untrusted candidate programs: run, inline, export",
}
"""What stands beside the name of an analysis that has verbs."""


def find(name: str) -> Entry:
    """The entry of that name ("explain", "calibrate", "calibrate rescore"); KeyError when there is none."""
    return {e.name: e for e in ENTRIES}[name]

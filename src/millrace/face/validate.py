"""`mr.validate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.validate.answer import Validation


def validate(
    candidates: Any,
    cases: Any,
    *,
    library: str | Sequence[str] = (),
    entry: str | None = None,
    isolation: str = "auto",
    pure_library: bool = False,
    require_isolation: bool = False,
    stop: str = "first",
    case_cpu_s: float = 1.0,
    candidate_cpu_s: float = 30.0,
    case_memory: str = "256MiB",
    output_bytes: int = 1 << 20,
    recursion: int = 1000,
    top: int = 32,
    repeats: int = 3,
    scale: float = 1.0,
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    run: OpenRun | None = None,
) -> Validation:
    """Run untrusted programs on cases: which pass, and none can hang, crash or deceive the rest.

    `candidates`: a folder of .py files, a .py file of functions `solve_<task>`, a .jsonl file (id, source, entry), or any
    iterable of sources, which may come while others run. `cases`: ARC tasks (file, folder, pair of files, mappings), lines of
    input and expected, HumanEval's file, or "module:scorer", a function that is handed the program and gives a number in
    [0, 1]. `library`: modules that programs may use. Limits are processor time, private memory and output of a program; a
    program that is proven to call nothing but the library shares its process with others of its kind, every other has its
    own, behind the layers of the jail that this machine has. `pure_library`: what the library returns depends on its arguments
    alone, and it changes none of them, so that what such programs have in common is computed once a case.

    The answer holds a verdict for each candidate and the best `top` programs, verified once more alone. The rest is about
    the machine and never changes the answer: see `explain`; but with `fit` the first candidates, as many as fit the deadline,
    are all there are, and the answer says so. Raises the errors of `millrace.run.errors`, `WrongQuestion` and its
    kin before any work.
    """
    question = {
        "candidates": candidates, "cases": cases, "library": library if isinstance(library, str) else tuple(library),
        "entry": entry, "isolation": isolation, "pure_library": pure_library, "require_isolation": require_isolation,
        "stop": stop, "case_cpu_s": case_cpu_s, "candidate_cpu_s": candidate_cpu_s, "case_memory": case_memory,
        "output_bytes": output_bytes, "recursion": recursion, "top": top, "repeats": repeats, "scale": scale, "limit": limit,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return ask("validate", question, machine, run, fit)  # type: ignore[no-any-return]

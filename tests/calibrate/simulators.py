"""Simulators of a curve with known parameters: a fast one, and ones that misbehave where `a` is large."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

TRUE = {"a": 2.0, "b": 0.3}
BOUNDS = {"a": (0.5, 5.0), "b": ("log", 0.05, 2.0)}
HIGH = 3.0
"""Above it misbehave those that do."""
TIMES = np.arange(10.0)


def simulate(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """A noisy decay at ten times, and its running sum."""
    draws = np.random.default_rng(seed)
    curve = params["a"] * np.exp(-params["b"] * TIMES) * np.exp(draws.normal(0, 0.05, len(TIMES)))
    return {"curve": {"t": TIMES, "curve": curve}, "total": {"t": TIMES, "total": np.cumsum(curve)}}


def summarise(outputs: dict[str, Any]) -> dict[str, Any]:
    return {"curve": outputs["curve"], "total": outputs["total"]}


def frames(params: dict[str, Any], seed: int) -> dict[str, Any]:
    import pandas  # every worker of every test imports this module
    import pyarrow

    made = simulate(params, seed)
    return {"curve": pandas.DataFrame(made["curve"]), "total": pyarrow.table(made["total"])}


def large(params: dict[str, Any], seed: int) -> dict[str, Any]:
    made = simulate(params, seed)
    return {**made, "everything": np.full(200_000, params["a"])}


def raises(params: dict[str, Any], seed: int) -> dict[str, Any]:
    print("a is", params["a"])
    if params["a"] > HIGH:
        raise RuntimeError("unlucky a")
    return simulate(params, seed)


def hangs(params: dict[str, Any], seed: int) -> dict[str, Any]:
    if params["a"] > HIGH:
        time.sleep(600)
    return simulate(params, seed)


def exits(params: dict[str, Any], seed: int) -> dict[str, Any]:
    if params["a"] > HIGH:
        os._exit(3)
    return simulate(params, seed)


def not_a_number(params: dict[str, Any], seed: int) -> dict[str, Any]:
    made = simulate(params, seed)
    if params["a"] > HIGH:
        made["curve"]["curve"][3] = np.nan
    return made


def lacks_a_column(params: dict[str, Any], seed: int) -> dict[str, Any]:
    made = simulate(params, seed)
    if params["a"] > HIGH:
        del made["curve"]["curve"]
    return made


HELD: list[Any] = []


def leaks(params: dict[str, Any], seed: int) -> dict[str, Any]:
    if params["a"] > HIGH:
        HELD.append(np.ones(60_000_000))
    return simulate(params, seed)


def prints_megabytes(params: dict[str, Any], seed: int) -> dict[str, Any]:
    print("the beginning")
    for _ in range(20_000):
        print("x" * 100)
    os.write(1, b"y" * 200_000 + b"written past Python\n")
    print("the end")
    return simulate(params, seed)


WAYS = {"raises": raises, "hangs": hangs, "exits": exits, "nan": not_a_number, "lacks": lacks_a_column, "leaks": leaks}


def misbehaves(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """As its parameter `way` says."""
    return WAYS.get(params["way"], simulate)(params, seed)


def counts_itself(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Leaves a line for every call in the file that MILLRACE_TEST_CALLS names."""
    with open(os.environ["MILLRACE_TEST_CALLS"], "a") as file:
        file.write(f"{os.getpid()} {seed}\n")
    time.sleep(0.02)
    return simulate(params, seed)


def observed(seed: int = 999) -> dict[str, Any]:
    made = simulate(TRUE, seed)
    return {name: {"data": table, "on": ("t",)} for name, table in made.items()}

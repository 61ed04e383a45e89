"""The laws of an analysis, to be run over every analysis: `for law in LAWS: law(ask, folder)`.

`ask(**machine)` asks one fixed question on the machine described (engine, cores, memory, store, seed, out) and gives
the answer; it must be small enough to be asked a dozen times, and large enough for several tasks. The laws compare
digests and count tasks; whether the answer is right is compared with its oracle elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from millrace.folder import history
from millrace.run.errors import DoesNotFit, Paused
from millrace.run.run import Run

Ask = Callable[..., Any]


def one_digest_on_every_engine_and_with_any_number_of_workers(ask: Ask, folder: Path) -> None:
    told = {
        ask(engine=engine, cores=cores).digest
        for engine, cores in (("inline", 1), ("processes", 1), ("processes", 2), ("auto", 2))
    }
    assert len(told) == 1, told


def one_digest_under_every_budget_and_from_every_store(ask: Ask, folder: Path) -> None:
    told = {
        ask(engine="inline", memory=memory, store=store).digest
        for memory in ("700MiB", "4GiB")
        for store in (None, folder / "store", folder / "store")
    }
    assert len(told) == 1, told


def the_same_seed_gives_the_same_bits(ask: Ask, folder: Path) -> None:
    assert ask(engine="inline", seed=3).digest == ask(engine="inline", seed=3).digest


def a_second_run_executes_nothing(ask: Ask, folder: Path) -> None:
    first = ask(engine="inline", store=folder / "store", out=folder / "first")
    again = ask(engine="processes", store=folder / "store", out=folder / "again")
    assert first.digest == again.digest
    assert history(folder / "first").end["computed"] > 1, "the question is too small for this law"
    assert history(folder / "again").end["computed"] == 0


def a_run_that_was_stopped_goes_on_with_what_is_missing(ask: Ask, folder: Path) -> None:
    whole = ask(engine="inline", out=folder / "whole")
    tasks = history(folder / "whole").end["computed"]
    stopped = 0
    while True:
        try:
            last = ask(engine="inline", store=folder / "store", out=folder / f"slice {stopped}", opened=Run.pause)
            break
        except Paused:
            assert history(folder / f"slice {stopped}").end["computed"] == 1, "a slice commits one task"
            stopped += 1
            assert stopped <= tasks
    assert last.digest == whole.digest
    assert stopped + history(folder / f"slice {stopped}").end["computed"] == tasks


def too_small_a_budget_is_an_error_with_the_one_that_would_do(ask: Ask, folder: Path) -> None:
    try:
        ask(engine="processes", memory="1MiB")
    except DoesNotFit as e:
        assert e.needs_bytes > 1 << 20
        ask(engine="processes", cores=1, memory=e.needs_bytes)
    else:
        raise AssertionError("a budget of 1 MiB was taken")


def core_seconds_add_up(ask: Ask, folder: Path) -> None:
    for engine in ("inline", "processes"):
        account = ask(engine=engine, cores=2).report.accounting
        assert sum(account.parts_ns.values()) == account.core_ns
        assert account.share("unexplained") <= 0.02, account.parts_ns


LAWS = (
    one_digest_on_every_engine_and_with_any_number_of_workers,
    one_digest_under_every_budget_and_from_every_store,
    the_same_seed_gives_the_same_bits,
    a_second_run_executes_nothing,
    a_run_that_was_stopped_goes_on_with_what_is_missing,
    too_small_a_budget_is_an_error_with_the_one_that_would_do,
    core_seconds_add_up,
)

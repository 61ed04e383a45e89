"""Tokens for cores: never more than cores, all of them in use, fair, freed by the kernel, never waiting for the dead."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path

import pytest
import takers

from millrace.host.tokens import CoreTokens, held, holding, holds


def test_no_more_are_held_than_there_are_cores_and_all_may_be(tmp_path: Path) -> None:
    first, second, third = (CoreTokens(tmp_path, 2) for _ in range(3))
    assert first.take() == second.take() == 0
    assert {first.core, second.core} == {0, 1}
    assert held(tmp_path) == {os.getpid(): 2}
    taken = threading.Event()

    def wait() -> None:
        assert third.take() > 0
        taken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not taken.wait(0.2)
    freed = second.core
    second.release()
    assert taken.wait(takers.PATIENCE_S)
    waiter.join()
    assert third.core == freed
    third.release()
    first.close()
    assert held(tmp_path) == {}


def test_taking_twice_and_releasing_twice_is_once(tmp_path: Path) -> None:
    tokens, other = CoreTokens(tmp_path, 1), CoreTokens(tmp_path, 1)
    tokens.take()
    assert tokens.take() == 0
    tokens.release()
    tokens.release()
    with holding(other) as core:
        assert core == 0
    assert other.core == -1


def test_a_copy_is_a_taker_of_its_own(tmp_path: Path) -> None:
    tokens = CoreTokens(tmp_path, 2, "gpu", (0, 2))
    copy = pickle.loads(pickle.dumps(tokens))
    tokens.take()
    copy.take()
    assert {tokens.core, copy.core} == {0, 2}
    tokens.close()
    copy.close()


def test_a_forked_child_does_not_let_its_parent_s_token_go(tmp_path: Path) -> None:
    tokens = CoreTokens(tmp_path, 1)
    tokens.take()
    child = os.fork()
    if not child:
        tokens.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert held(tmp_path) == {os.getpid(): 1}
    tokens.release()


def test_a_thread_knows_that_it_holds_one(tmp_path: Path) -> None:
    tokens = CoreTokens(tmp_path, 1)
    assert not holds()
    with holding(tokens):
        assert holds()
    assert not holds()
    with holding(CoreTokens(tmp_path, 1, "gpu")):
        assert not holds()


def test_kill_9_frees_what_a_process_held(tmp_path: Path) -> None:
    other = takers.start(tmp_path, "hold", 2, 2)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert held(tmp_path) == {other.pid: 2}
    other.kill()
    other.communicate()
    tokens = CoreTokens(tmp_path, 2)
    assert tokens.take() == 0
    tokens.release()


@pytest.mark.parametrize("what", ["hold", "gate"])
def test_a_stopped_process_keeps_nobody_waiting_for_ever(tmp_path: Path, what: str) -> None:
    """It computes nothing: its core is taken, and its gate passed. Both come back to order when it goes on."""
    others = [takers.start(tmp_path, what, 1, 1)]
    if what == "gate":
        others.append(takers.start(tmp_path, "hold", 1, 1))
    for other in others:
        assert other.stdout is not None
        if other is others[0]:
            assert other.stdout.readline() == "held\n"
            os.kill(other.pid, signal.SIGSTOP)
    tokens = CoreTokens(tmp_path, 1)
    if what == "gate":
        taken = threading.Thread(target=lambda: tokens.take())
        taken.start()
        takers.until(lambda: bool(held(tmp_path)), "somebody passes the gate")
        for other in others[1:]:
            other.kill()
        taken.join(takers.PATIENCE_S)
    else:
        assert tokens.take() > 0
    assert tokens.core == 0
    tokens.release()
    for other in others:
        other.kill()
        other.communicate()


def test_eight_processes_on_two_cores_are_served_alike_and_never_more_than_two_at_once(tmp_path: Path) -> None:
    """By counted pieces: none has less than half of what the first has. Pieces of 10 ms and of 100 ms are turns alike."""
    many = [takers.start(tmp_path, "turns", 2, n, 0.01) for n in range(8)]
    for one in many:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()

    def counts() -> list[int]:
        return [p.stat().st_size if (p := tmp_path / f"count-{n}").exists() else 0 for n in range(8)]

    takers.until(lambda: min(counts()) >= 40, "every one has had its turns")
    found = counts()
    (tmp_path / "stop").touch()
    for one in many:
        one.communicate()
    assert max(found) <= 2 * min(found) + 20, found  # a turn of 10 pieces more or less on either side
    assert not list(tmp_path.glob("clash-*"))


def test_one_alone_is_never_kept_waiting(tmp_path: Path) -> None:
    tokens = CoreTokens(tmp_path, 2)
    for _ in range(200):
        assert tokens.take() == 0
        tokens.release()
    tokens.close()

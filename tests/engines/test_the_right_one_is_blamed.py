"""Who is to blame for a death, from what the status page told."""

import os
import signal

import pytest

from millrace.engines.processes import page
from millrace.engines.processes.losses import OTHERS, OWN, Traces, judge
from millrace.engines.processes.packing import Entry, Message, Packer
from millrace.run.task import Limits, Task
from millrace.testing import toys

LIMITS = Limits(cpu_s=1.0, wall_s=2.0, private_bytes=1 << 20)
SEGV, KILL = int(signal.SIGSEGV), int(signal.SIGKILL)


def messages(*sizes: int) -> list[Message]:
    packer, number, out = Packer(0.1, 10), 1, []
    for size in sizes:
        tasks = [Task(toys.square, (i,), str(number + i), limits=LIMITS) for i in range(size)]
        message = Message(number, [Entry(t, packer.kind(t), None) for t in tasks], True, sent_ns=5)
        for seq, entry in enumerate(message.entries, number):
            entry.seq, entry.home = seq, message
        number += size
        out.append(message)
    return out


def traces(seq: int = 0, phase: int = page.RUNNING, verdict: int = 0, verdict_seq: int = 0, figure: int = 0) -> Traces:
    return Traces(seq, phase, 100 if seq else 0, 10, verdict, verdict_seq, figure, 0)


def of(trace: Traces, flying: list[Message], status: int = SEGV):  # type: ignore[no-untyped-def]
    return judge(trace, flying, slot=1, pid=77, status=status, at_ns=900, cpu_ns=600)


def test_the_running_task_is_the_cause_and_its_neighbours_are_innocent() -> None:
    flying = messages(3, 2)
    flying[0].taken = 1
    judged = of(traces(seq=2), flying)
    assert judged.failure is None and judged.running is flying[0].entries[1]
    assert [e.seq for e in judged.back] == [2, 3, 4, 5]
    assert [e.past is not None for m in flying for e in m.entries] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("status", "bound"), [(SEGV, OWN), (3 << 8, OWN), (KILL, OTHERS), (int(signal.SIGTERM), OTHERS)]
)
def test_it_is_given_up_after_so_many_deaths(status: int, bound: int) -> None:
    (message,) = messages(1)
    for death in range(1, bound + 1):
        judged = of(traces(seq=1), [message], status)
        assert (judged.failure is not None) == (death == bound)
    assert judged.failure.kind == "lost" and f"{bound} times" in judged.failure.message
    measures = judged.measures
    assert (measures.worker, measures.pid, measures.attempt) == (1, 77, bound)
    assert (measures.started_ns, measures.ended_ns, measures.cpu_ns) == (100, 900, 590)
    assert judged.back == []


@pytest.mark.parametrize(
    ("verdict", "kind", "figure", "said"),
    [
        (page.CPU, "cpu", 1_500_000_000, 1.5),
        (page.WALL, "wall", 2_500_000_000, 2.5),
        (page.MEMORY, "memory", 3 << 20, 3 << 20),
    ],
)
def test_a_broken_ceiling_is_final(verdict: int, kind: str, figure: int, said: float) -> None:
    (message,) = messages(2)
    judged = of(traces(seq=1, verdict=verdict, verdict_seq=1, figure=figure), [message], KILL)
    assert (judged.failure.kind, judged.failure.figure) == (kind, said)
    assert [e.seq for e in judged.back] == [2]
    assert message.entries[0].past is None


def test_a_verdict_for_a_task_that_has_ended_blames_nobody() -> None:
    (message,) = messages(3)
    message.taken = 1
    judged = of(traces(seq=2, verdict=page.WALL, verdict_seq=1), [message], KILL)
    assert judged.failure is None and [e.seq for e in judged.back] == [2, 3]
    assert all(e.past is None for e in message.entries)


def test_what_was_killed_on_purpose_blames_nobody() -> None:
    (message,) = messages(2)
    judged = of(traces(seq=1, verdict=page.UNWANTED), [message], KILL)
    assert judged.unwanted and judged.failure is None and all(e.past is None for e in message.entries)


@pytest.mark.parametrize(
    ("phase", "seq", "taken", "suspects"),
    [(page.UNPACKING, 1, 0, [1, 2, 3, 4]), (page.PACKING, 3, 1, [2, 3]), (page.RUNNING, 0, 2, [3, 4])],
)
def test_where_several_may_be_the_cause_each_runs_alone(phase: int, seq: int, taken: int, suspects: list[int]) -> None:
    flying = messages(4, 2)
    flying[0].taken = taken
    judged = of(traces(seq=seq, phase=phase), flying)
    assert judged.failure is None
    alone = [e for m in flying for e in m.entries if e.past is not None]
    assert [e.seq for e in alone] == suspects
    assert all(e.past.own + e.past.others == 0 for e in alone), "a suspect was counted as guilty"


def test_one_alone_is_guilty_in_every_phase() -> None:
    for phase in (page.UNPACKING, page.RUNNING, page.PACKING):
        (message,) = messages(1)
        of(traces(seq=1, phase=phase), [message])
        assert of(traces(seq=1, phase=phase), [message]).failure.kind == "lost"
    (message,) = messages(1)
    of(traces(), [message])
    assert of(traces(), [message]).failure.kind == "lost"


def test_what_was_stolen_or_done_meanwhile_is_not_sent_back() -> None:
    (message,) = messages(4)
    message.entries[1].home, message.entries[2].done = None, True
    judged = of(traces(seq=2), [message])
    assert [e.seq for e in judged.back] == [1, 4]
    assert message.entries[1].past is None


def test_a_status_is_said_in_words() -> None:
    (message,) = messages(1)
    of(traces(seq=1), [message], 9 << 8)
    said = of(traces(seq=1), [message], 9 << 8).failure.message
    assert f"exit code {os.WEXITSTATUS(9 << 8)}" in said

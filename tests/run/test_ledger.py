"""The ledger: append-only, versioned, packed; a killed driver leaves whole lines; replay gives the state back."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from millrace.run.errors import WrongQuestion
from millrace.run.ledger import COLUMNS, MEASURED, SCHEMA, STATES, Ledger, replay
from millrace.run.task import Failure, Measures, Outcome, Span

GOLDEN = Path(__file__).with_name("golden_ledger.jsonl")


def opened(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.write("run", schema=SCHEMA, run_id="r", analysis="test", from_ns=0, slots=2)
    return ledger


def test_attempts_come_back_as_they_were_written(tmp_path):
    ledger = opened(tmp_path / "ledger.jsonl")
    measured = Measures(*range(1, len(MEASURED) + 1), throttled_ns=99, gpu=2, gpu_ns=7)
    for i in range(1000):
        failure = Failure("cpu", "too long") if i % 10 == 3 else None
        ledger.attempt(Outcome(f"{i:040x}", None, failure, measured, cached=i % 10 == 5), f"kind {i % 3}", i, i * 7)
    for host in ("", "far", "near", "far"):
        ledger.attempt(Outcome("h", measures=measured._replace(host=host)), "kind 0", 0, 0)
    ledger.spans([Span(1, "tail", 5, 9), Span(0, "lost", 1, 2, "aa")])
    ledger.write("note", text="said")
    ledger.write("end", state="done", to_ns=99)
    ledger.close()
    history = replay(ledger.path)
    assert history.attempts == 1004 and history.names == ["kind 0", "kind 1", "kind 2"]
    assert list(history.columns["item"][:1000]) == list(range(1000))
    assert set(history.columns["gpu"]) == {2} and set(history.columns["gpu_ns"]) == {7}
    assert set(history.columns["throttled_ns"]) == {99} and set(history.columns["host"][:1000]) == {-1}
    assert list(history.columns["host"][1000:]) == [-1, 0, 1, 0] and history.hosts == ["far", "near"]
    for i, name in enumerate(MEASURED, 1):
        assert set(history.columns[name]) == {i}
    assert [STATES[s] for s in history.columns["state"][3:6]] == ["cpu", "done", "cached"]
    assert history.spans == [Span(1, "tail", 5, 9), Span(0, "lost", 1, 2, "aa")]
    assert history.notes == ["said"] and history.end["to_ns"] == 99


def test_attempts_are_packed_many_to_a_line(tmp_path):
    ledger = opened(tmp_path / "ledger.jsonl")
    for i in range(10_000):
        ledger.attempt(Outcome("k"), "f", i, 0)
    ledger.close()
    assert len(ledger.path.read_bytes().splitlines()) < 100


def test_a_torn_tail_is_left_out_and_other_damage_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = opened(path)
    ledger.attempt(Outcome("k"), "f", 0, 0)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert replay(path).attempts == 0
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-5] + b"\n" + lines[2])
    with pytest.raises(WrongQuestion, match="Line 2"):
        replay(path)
    path.write_bytes(b"")
    with pytest.raises(WrongQuestion, match="no record of a run"):
        replay(path)
    with pytest.raises(WrongQuestion, match="no ledger"):
        replay(tmp_path / "nowhere")


def test_a_ledger_of_a_newer_millrace_is_refused_and_an_old_one_is_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"record": "run", "schema": SCHEMA + 1, "run_id": "x"}) + "\n")
    with pytest.raises(WrongQuestion, match="newer"):
        replay(path)
    old = replay(GOLDEN)
    assert old.header["run_id"] == "20260101-000000-golden-0000" and old.attempts == 3
    assert [STATES[s] for s in old.columns["state"]] == ["done", "cached", "lost"]
    assert len(COLUMNS) == len(old.columns)


def test_kill_leaves_whole_lines(tmp_path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from millrace.run.ledger import Ledger
        from millrace.run.task import Outcome
        ledger = Ledger(Path(sys.argv[1]))
        ledger.write("run", schema=1, run_id="r")
        i = 0
        while True:
            ledger.attempt(Outcome("k" * 40), "f", i, 0)
            i += 1
            if i == 2000: print("going", flush=True)
    """)
    path = tmp_path / "ledger.jsonl"
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    history = replay(path)
    assert list(history.columns["item"]) == list(range(history.attempts)) and history.attempts >= 1500

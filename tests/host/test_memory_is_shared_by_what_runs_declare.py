"""The roster: who is alone never waits, what does not fit waits its turn or takes fewer slots, the dead hold nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import takers

from millrace.host.roster import Roster, roster

HOLDS = """
import sys
from millrace.host.roster import Roster
mine = Roster(sys.argv[1], 100)
mine.enter("other", 2)
mine.admit(lambda slots: int(sys.argv[2]) * slots, 1, lambda: False, lambda whom: None)
print("held", flush=True)
sys.stdin.read()
"""


def _other(folder: Path, declared: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDS, str(folder), str(declared)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    return other


def _entered(folder: Path) -> Roster:
    mine = Roster(folder, 100)
    mine.enter("mine", 4)
    return mine


def test_one_alone_is_never_kept_waiting(tmp_path: Path) -> None:
    mine = _entered(tmp_path)
    assert mine.admit(lambda slots: 1000 * slots, 4, lambda: False, _fail) == 4
    assert mine.admit(lambda slots: 9000 * slots, 4, lambda: False, _fail) == 4  # a second plan of the same run
    mine.close()
    assert roster(tmp_path) == []


def test_what_fits_beside_the_others_starts_and_what_does_not_waits_until_they_end(tmp_path: Path) -> None:
    other, mine = _other(tmp_path, 60), _entered(tmp_path)
    assert mine.admit(lambda slots: 10 * slots, 4, lambda: False, _fail) == 4
    mine.close()
    mine, told, given = _entered(tmp_path), [], []
    waiter = threading.Thread(
        target=lambda: given.append(mine.admit(lambda slots: 50, 1, lambda: False, told.append, patience_s=1e9))
    )
    waiter.start()
    takers.until(lambda: bool(told), "it says that it waits")
    assert f"process {other.pid}" in told[0]
    assert [entry.wanted_bytes for entry in roster(tmp_path) if entry.run_id == "mine"] == [50]
    assert not given
    other.kill()  # the kernel lets go of what it declared
    other.communicate()
    waiter.join(takers.PATIENCE_S)
    assert given == [1]
    mine.close()


def test_who_has_waited_takes_as_few_slots_as_fit(tmp_path: Path) -> None:
    other, mine = _other(tmp_path, 60), _entered(tmp_path)
    assert mine.admit(lambda slots: 15 * slots, 4, lambda: False, lambda whom: None, patience_s=0.1) == 2
    mine.close()
    other.communicate()


def test_a_run_that_is_to_end_does_not_wait(tmp_path: Path) -> None:
    other, mine = _other(tmp_path, 60), _entered(tmp_path)
    assert mine.admit(lambda slots: 90, 1, lambda: True, lambda whom: None) == 1
    mine.close()
    other.communicate()


def test_who_holds_something_never_waits_for_more(tmp_path: Path) -> None:
    """Two runs of one process, one inside of the other: the inner one would wait for the outer for ever."""
    other, outer, inner = _other(tmp_path, 60), _entered(tmp_path), _entered(tmp_path)
    assert outer.admit(lambda slots: 40, 1, lambda: False, _fail) == 1
    assert inner.admit(lambda slots: 40, 1, lambda: False, _fail) == 1
    assert outer.admit(lambda slots: 80, 1, lambda: False, _fail) == 1
    outer.close()
    inner.close()
    other.communicate()


def _fail(whom: str) -> None:
    raise AssertionError(f"it waits for {whom}")

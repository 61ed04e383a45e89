"""One call of an untrusted program: every end that it can have, and nothing that it does beyond."""

import json
import os
import sys
import time

import psutil
import pytest
from programs import GOOD, HOSTILE, TASK_GRID, short, turned

from millrace.analyses.validate.kernels import canonical, jail
from millrace.analyses.validate.kernels.cell import Cell, Limits, survey
from millrace.analyses.validate.kernels.judge import compare
from millrace.run.errors import WrongQuestion

HERE = os.path.dirname(__file__)
PATH = (HERE, *sys.path)
LIMITS = Limits(cpu_s=0.3, memory_bytes=64 << 20, output_bytes=1 << 20)


@pytest.fixture(scope="module")
def cell():
    with Cell(("grids",), PATH, jail.LAYERS, LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def names():
    return canonical.Library(*map(frozenset, survey(("grids",), PATH)[0]))


def judged(cell, names, source):
    program = canonical.read(source, "solve", names)
    if isinstance(program, canonical.Rejected):
        return "rejected"
    job = (program.source, program.entry, program.lane, program.modules)
    text, expected = json.dumps([TASK_GRID]), json.dumps(turned(TASK_GRID), separators=(",", ":"))
    result = compare(cell, job, text, expected, True)
    return short(result["verdict"], result["detail"])


def test_every_layer_of_the_jail_holds_here():
    assert jail.probe() == dict.fromkeys(jail.LAYERS, "")


@pytest.mark.parametrize("kind", list(GOOD))
def test_good_programs_pass(cell, names, kind):
    assert judged(cell, names, GOOD[kind]) == "pass"


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_hostile_programs_get_their_verdict_and_hurt_nobody(cell, names, kind):
    source, verdict = HOSTILE[kind]
    assert judged(cell, names, source) == verdict
    assert judged(cell, names, GOOD["pure"]) == judged(cell, names, GOOD["own code"]) == "pass"


def test_a_program_in_the_batch_lane_that_ends_its_child_costs_only_itself(cell, names):
    for _ in range(3):
        assert judged(cell, names, HOSTILE["endless in the library"][0]) == "cpu_limit"
        assert judged(cell, names, GOOD["pure"]) == "pass"


def test_without_progress_and_without_processor_time_there_is_no_verdict(names, monkeypatch):
    from millrace.analyses.validate.kernels import cell as module
    from millrace.analyses.validate.kernels.judge import Inconclusive

    monkeypatch.setattr(module, "GUARD_S", 0.5)  # else this test takes ten seconds
    source = "import _thread\ndef solve(I):\n    l = _thread.allocate_lock()\n    l.acquire()\n    l.acquire()\n"
    with Cell((), PATH, jail.LAYERS, Limits(cpu_s=0.01)) as made, pytest.raises(Inconclusive):
        judged(made, names, source)


def test_a_timer_that_is_swallowed_does_not_help(cell, names):
    assert judged(cell, names, HOSTILE["endless, swallowing"][0]) == "cpu_limit"


def test_the_same_program_draws_the_same_numbers(cell):
    source = "import random\ndef f(x):\n    return [random.random(), hash('a'), list({'a', 'b', 'c'})]\n"
    told = {cell.call(source, "f", "[0]", frozen=False, lane="candidate").text for _ in range(3)}
    assert len(told) == 1


def test_what_one_program_leaves_behind_the_next_does_not_find(cell, names):
    leaves = "import grids, builtins\ngrids.hmirror = None\nbuiltins.len = None\ndef solve(I):\n    return I\n"
    assert judged(cell, names, leaves) == "crash(exit 71)"  # it broke its own interpreter, too
    assert judged(cell, names, GOOD["pure"]) == judged(cell, names, GOOD["a class"]) == "pass"


def test_nothing_stays_when_a_cell_ends(names):
    with Cell((), PATH, jail.LAYERS, LIMITS) as made:
        judged(made, names, "def solve(I):\n    return len(I)\n")
        zygote = psutil.Process(made.process.pid)
        assert zygote.is_running()
        children = zygote.children(recursive=True)
    deadline = time.monotonic() + 20
    while any(p.is_running() for p in (zygote, *children)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(p.is_running() for p in (zygote, *children))


def test_a_library_that_does_not_load_is_said():
    with pytest.raises(WrongQuestion, match="no_such_library"):
        survey(("no_such_library",), PATH)


def test_memory_of_a_child_is_held(cell):
    source = "def f(x):\n    try:\n        bytearray(200 << 20)\n    except MemoryError:\n        return 'held'\n"
    assert cell.call(source, "f", "[0]", frozen=False, lane="candidate").text == '"held"'


def test_expected_outputs_are_nowhere_in_a_childs_memory(cell):
    source = (
        "import gc\ndef f(x):\n"
        "    return [o for o in gc.get_objects() if isinstance(o, (list, tuple)) and 'secret-' + str(x) in map(str, o)] != []\n"
    )
    job = (source, "f", "candidate", ("gc",))
    result = compare(cell, job, "[4711]", json.dumps("secret-4711"), False)
    assert result["verdict"] == "wrong"
    assert cell.call(source, "f", "[4711]", frozen=False, lane="candidate", modules=("gc",)).text == "false"

"""What programs have in common is computed once, and no result, limit or error moves by it."""

import json
import os
import sys
import time

import grids
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import TASK_GRID

from millrace.analyses.validate.kernels import canonical, jail
from millrace.analyses.validate.kernels.cell import Cell, Limits
from millrace.analyses.validate.kernels.shared import MOST_CASES, Sharing

PATH = (os.path.dirname(__file__), *sys.path)
calls = []


def counted(x):
    calls.append(x)
    return x + 1


def slow(x):
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    return x


def fails(x):
    calls.append(x)
    raise ValueError("no")


LIBRARY = {
    "counted": counted, "slow": slow, "fails": fails, "add": lambda a, b=2: a + b, "pair": lambda a: (a, a),
    "first": lambda p: p[0], "every": lambda xs: list(xs),
}  # fmt: skip
NAMES = canonical.Library(frozenset(LIBRARY), frozenset(LIBRARY), frozenset())


def form(body, argument="x"):
    program = canonical.read(f"def solve({argument}):\n{body}", "solve", NAMES)
    assert program.lane == "batch", program
    return program


def alone(source, entry, *args):
    names = dict(LIBRARY)
    exec(source, names)
    return names[entry](*args)


def ended(call):
    """What a call comes to: its value, or how it raised."""
    try:
        return "value", call()
    except Exception as e:  # noqa: BLE001 - what it is is what is compared
        return type(e).__name__, str(e)


def texts():
    """Expressions over x, deep enough to have parts in common."""
    leaf = st.sampled_from(["x", "1", "2.5", "True", "'a'", "()"])

    def deeper(inner):
        return st.one_of(
            inner.map(lambda a: f"pair({a})"),
            inner.map(lambda a: f"first(pair({a}))"),
            inner.map(lambda a: f"(-{a})"),
            inner.map(lambda a: f"(not {a})"),
            inner.map(lambda a: f"fails({a})"),
            inner.map(lambda a: f"every(zip({a}, {a}))"),
            inner.map(lambda a: f"zip(pair({a}), pair({a}))"),
            st.tuples(inner, inner).map(lambda p: f"add({p[0]}, b={p[1]})"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]}, {p[1]})"),
        )

    return st.recursive(leaf, deeper, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(texts(), texts()), min_size=1, max_size=6), st.integers(-3, 3))
def test_programs_that_share_come_to_what_each_comes_to_alone(bodies, x):
    sharing = Sharing(LIBRARY)
    for first, second in bodies:
        program = form(f"    v = {first}\n    w = every(pair(v))\n    return (every(pair({second})), w)\n")
        plain = ended(lambda source=program.source, entry=program.entry: alone(source, entry, x))
        together = ended(lambda source=program.source: sharing.run(source, x, lambda: [x])[0])
        assert repr(together)[:3] == repr(plain)[:3]
        if "<" not in repr(plain):  # an iterator is another one, though it gives the same
            assert together == plain


def test_a_call_runs_once_a_case_and_what_raises_runs_again():
    sharing, source = Sharing(LIBRARY), form("    return counted(counted(x))\n").source
    calls.clear()
    assert [sharing.run(source, case, lambda case=case: [case])[0] for case in (1, 1, 5)] == [3, 3, 7]
    assert calls == [1, 2, 5, 6]
    calls.clear()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            sharing.run(form("    return fails(counted(x))\n").source, 1, lambda: [1])
    assert calls == [2, 2]


def test_what_others_computed_is_charged_once_to_each():
    sharing = Sharing(LIBRARY)
    first = sharing.run(form("    return slow(x)\n").source, 0, lambda: [1])
    second = sharing.run(form("    v = slow(x)\n    return add(v, slow(x))\n").source, 0, lambda: [1])
    assert first == (1, 0.0) and second[0] == 2
    assert (
        0.02
        <= second[1]
        < 2 * sharing.cases[0].made[max(sharing.cases[0].made, key=lambda n: sharing.cases[0].made[n][1])][1]
    )


def test_an_iterator_is_never_handed_to_the_next_program():
    sharing, source = Sharing(LIBRARY), form("    return every(zip(pair(x), pair(x)))\n").source
    assert [sharing.run(source, 0, lambda: [1])[0] for _ in range(3)] == [[(1, 1), (1, 1)]] * 3
    used = form("    v = zip(pair(x), pair(x))\n    return (every(v), first(pair(every(v))), add(every(v), ()))\n", "x")
    assert ended(lambda: sharing.run(used.source, 0, lambda: [1])[0]) == ended(
        lambda: alone(used.source, used.entry, 1)
    )


def test_few_cases_are_kept():
    sharing = Sharing(LIBRARY)
    for case in range(3 * MOST_CASES):
        sharing.run(form("    return counted(x)\n").source, case, lambda case=case: [case])
    assert list(sharing.cases) == list(range(2 * MOST_CASES, 3 * MOST_CASES))


# -- in the jail --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cell():
    with Cell(("grids",), PATH, jail.LAYERS, Limits(cpu_s=0.3, memory_bytes=64 << 20, output_bytes=1 << 20)) as made:
        yield made


BODIES = (
    "rot90(hmirror(I))", "vmirror(rot90(hmirror(I)))", "swap(rot90(hmirror(I)), 1, 2)", "rot90()", "spin(rot90(I))",
    "rot90(5)", "list(zip(rot90(I), I))", "deep(I)", "bytes(1000000000)", "str(range(400000)) + str(list(range(400000)))",
)  # fmt: skip


@pytest.mark.parametrize("turn", range(2))
def test_the_verdicts_of_the_three_lanes_are_one(cell, turn):
    library = canonical.Library(*(frozenset(n for n in dir(grids) if n[0] != "_"),) * 2, frozenset({"grids"}))
    text = json.dumps([TASK_GRID])
    for body in BODIES:
        program = canonical.read(f"def solve(I):\n    return {body}\n", "solve", library)
        assert program.lane == "batch", body
        told = [
            cell.call(program.source, program.entry, text, frozen=True, lane=lane)
            for lane in ("candidate", "batch", "shared")
        ]
        assert len({said.end for said in told}) == 1, (body, told)
        assert len({said.text for said in told}) == 1, (body, told)

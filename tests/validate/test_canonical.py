"""Two programs are the same when their dataflow is, whatever their locals are called."""

import ast
import random

import grids
import pytest

from millrace.analyses.validate.kernels.canonical import Library, Program, Rejected, read

NAMES = frozenset(n for n in vars(grids) if not n.startswith("_"))
LIBRARY = Library(NAMES, NAMES, frozenset({"grids"}))


def form(source, entry="solve"):
    found = read(source, entry, LIBRARY)
    assert isinstance(found, Program), found
    return found


BASE = "def solve(I):\n    a = hmirror(I)\n    b = vmirror(I)\n    return swap(a, b, 3)\n"


@pytest.mark.parametrize(
    "same",
    [
        "def solve(I):\n    b = vmirror(I)\n    a = hmirror(I)\n    return swap(a, b, 3)\n",
        "def solve(g):\n    a = hmirror(g)\n    z = rot90(a)\n    b = vmirror(g)\n    O = swap(a, b, 3)\n    return O\n",
        "from grids import *\n\ndef solve(I):\n    'says what it does'\n    return swap(hmirror(I), vmirror(I), 3)  # so\n",
        "def solve(I):\n    a = vmirror(I)\n    b = a\n    a = hmirror(I)\n    return swap(a, b, 3)\n",
    ],
)
def test_names_order_and_dead_lines_do_not_matter(same):
    assert form(same).digest == form(BASE).digest and form(same).source == form(BASE).source


@pytest.mark.parametrize(
    "other",
    [
        "def solve(I):\n    return swap(vmirror(I), hmirror(I), 3)\n",
        "def solve(I):\n    return swap(hmirror(I), vmirror(I), 3.0)\n",
        "def solve(I):\n    return swap(hmirror(I), vmirror(I), True)\n",
        "def solve(I, J):\n    return swap(hmirror(I), vmirror(I), 3)\n",
        "def solve(I):\n    return swap(hmirror(I), vmirror(I), b=3)\n",
    ],
)
def test_what_changes_the_result_is_another_program(other):
    assert form(other).digest != form(BASE).digest


def test_the_canonical_form_is_its_own_and_computes_the_same():
    draw = random.Random(1)
    names = ["hmirror", "vmirror", "rot90"]
    for _ in range(60):
        lines, known = [], ["I"]
        for i in range(draw.randrange(1, 8)):
            lines.append(f"    x{i} = {draw.choice(names)}({draw.choice(known)})")
            known.append(f"x{i}")
        source = "\n".join(["def solve(I):", *lines, f"    return {known[-1]}", ""])
        made = form(source)
        assert form(made.source, made.entry).digest == made.digest and made.lane == "batch"
        results = []
        for text, entry in ((source, "solve"), (made.source, made.entry)):
            space = {n: getattr(grids, n) for n in NAMES}
            exec(text, space)
            results.append(space[entry](((1, 2), (3, 4))))
        assert results[0] == results[1]


def test_a_chain_of_doublings_stays_small():
    lines = [f"    x{i + 1} = swap(x{i}, x{i}, x{i})" for i in range(300)]
    made = form("\n".join(["def solve(x0):", *lines, "    return x300", ""]))
    assert made.size == 302 and len(made.source) < 20_000
    ast.parse(made.source)


@pytest.mark.parametrize(
    "impure",
    [
        "import os\ndef solve(I):\n    return os._exit(0)\n",
        "def solve(I):\n    hmirror = 3\n    return I\n",
        "def solve(I):\n    return I.__class__\n",
        "def solve(I):\n    return open('x')\n",
        "def solve(I):\n    return [hmirror(x) for x in I]\n",
        "def solve(I, x=hmirror(3)):\n    return I\n",
        "def solve(I):\n    return 2 ** 9 ** 9 ** 9\n",
        "def solve(I):\n    print(I)\n    return I\n",
        "def solve(I):\n    return getattr(I, 'x')\n",
        "def solve(I):\n    return eval('1')\n",
        "x = 1\ndef solve(I):\n    return x\n",
        "def solve(I):\n    return solve(I)\n",
    ],
)
def test_what_is_not_proven_pure_gets_a_process_of_its_own(impure):
    assert form(impure).lane == "candidate"


def test_comments_and_layout_of_other_code_do_not_matter():
    one = form("def solve(I):\n    '''Doc.'''\n    for r in I:\n        return r  # first\n")
    two = form("def solve(I):\n\n    for r in I: return r\n")
    assert one.digest == two.digest and one.lane == "candidate"


def test_modules_of_the_standard_library_are_told():
    made = form("import os.path, json\nfrom re import match\nimport nothing_like_it\ndef solve(I):\n    return I\n")
    assert made.modules == ("json", "os.path", "re.match")


@pytest.mark.parametrize(
    "source", ["def solve(:", "x = 1", b"\xff", "(" * 5000, "-" * 200_000 + "1", "x" * 300_000, "a\0b"]
)
def test_what_is_no_program_is_rejected_with_a_reason(source):
    found = read(source, "solve", LIBRARY)
    assert isinstance(found, Rejected) and found.reason

"""Attacks on the jail and on the judge, one by one, each with its right verdict; what is found open is mended and added here."""

# ruff: noqa: E501 - programs stand as they are

import json
import os
import re
import sys

import psutil
import pytest
from programs import GOOD, TASK_GRID, short, turned

from millrace.analyses.validate.kernels import canonical, jail
from millrace.analyses.validate.kernels import cell as module
from millrace.analyses.validate.kernels.cell import Cell, Limits, survey
from millrace.analyses.validate.kernels.judge import Inconclusive, check, compare, read_block

HERE = os.path.dirname(__file__)
PATH = (HERE, *sys.path)
LIMITS = Limits(cpu_s=0.3, memory_bytes=64 << 20, output_bytes=1 << 20)
C = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.mmap.restype = ctypes.c_void_p\nlibc.mmap.argtypes = [ctypes.c_void_p] + [ctypes.c_size_t] * 5\n"
RIGHT = "return [list(r) for r in zip(*[row[::-1] for row in I][::-1])]"


@pytest.fixture(scope="module")
def cell():
    with Cell(("grids",), PATH, jail.LAYERS, LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def library():
    return canonical.Library(*map(frozenset, survey(("grids",), PATH)[0]))


def judged(cell, library, source):
    program = canonical.read(source, "solve", library)
    if isinstance(program, canonical.Rejected):
        return "rejected"
    job = (program.source, program.entry, program.lane, program.modules)
    text, expected = json.dumps([TASK_GRID]), json.dumps(turned(TASK_GRID), separators=(",", ":"))
    result = compare(cell, job, text, expected, True)
    return short(result["verdict"], result["detail"])


def mapped(flags, protection=3):
    """A program that asks for 256 MiB of memory of a kind, and says whether it got it."""
    return (
        C
        + f"def solve(I):\n    p = libc.mmap(None, 1 << 28, {protection}, {flags}, 2**64 - 1, 0)\n    assert p != 2**64 - 1\n"
    )


ATTACKS = {
    # -- memory that RLIMIT_DATA does not see
    "a mapping that grows down as a stack does": (mapped(0x22 | 0x100), "error(AssertionError)"),
    "a shared mapping": (mapped(0x21), "error(AssertionError)"),
    "a shared mapping, checked": (mapped(0x23), "error(AssertionError)"),
    "huge pages": (mapped(0x22 | 0x40000), "error(AssertionError)"),
    "locked pages": (mapped(0x22 | 0x2000), "error(AssertionError)"),
    "private memory": (mapped(0x22), "error(AssertionError)"),
    "read-only memory, made writable": (
        C + "def solve(I):\n    p = libc.mmap(None, 1 << 28, 1, 0x22, 2**64 - 1, 0)\n"
        "    assert libc.mprotect(ctypes.c_void_p(p), ctypes.c_size_t(1 << 28), 3) == 0\n",
        "error(AssertionError)",
    ),
    "tables of pages that are only read": (
        C + "def solve(I):\n    p = libc.mmap(None, 1 << 42, 1, 0x4022, 2**64 - 1, 0)\n    assert p != 2**64 - 1\n",
        "error(AssertionError)",
    ),
    "limits raised": (
        "import resource\ndef solve(I):\n    resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40))\n",
        "error(ValueError)",
    ),
    # -- its line to the judge
    "closes its line": ("import os, time\ndef solve(I):\n    os.close(3)\n    while True: pass\n", "crash"),
    "a huge frame": (
        "import os, struct\ndef solve(I):\n    os.write(3, struct.pack('<I', 2**32 - 1))\n    while True: os.write(3, b'v' * 65536)\n",
        "crash",
    ),
    "half a frame, then nothing": (
        "import os, struct\ndef solve(I):\n    os.write(3, struct.pack('<I', 100) + b'v')\n    os._exit(0)\n",
        "crash(exit 0)",
    ),
    "half a frame, then for ever": (
        "import os, struct\ndef solve(I):\n    os.write(3, struct.pack('<I', 100) + b'v')\n    while True: pass\n",
        "crash(it wrote to the judge what is no answer)",
    ),
    "an empty frame": (
        "import os\ndef solve(I):\n    os.write(3, bytes(4))\n    " + RIGHT + "\n",
        "crash(it wrote to the judge what is no answer)",
    ),
    "two answers": (
        "import os\ndef solve(I):\n    os.write(3, b'\\x02\\0\\0\\0v1\\x02\\0\\0\\0v1')\n    while True: pass\n",
        "crash(it wrote to the judge what is no answer)",
    ),
    "an answer that is not UTF-8": ("import os\ndef solve(I):\n    os.write(3, b'\\x02\\0\\0\\0v\\xff')\n    os._exit(0)\n", "wrong"),
    "an answer of brackets": (
        "import os\ndef solve(I):\n    os.write(3, (100001).to_bytes(4, 'little') + b'v' + b'[' * 100000)\n    os._exit(0)\n",
        "wrong",
    ),
    "a letter of the check's": (
        "import os\ndef solve(I):\n    os.write(3, b'\\x02\\0\\0\\0c1')\n    os._exit(0)\n",
        "crash(it wrote to the judge what is no answer)",
    ),
    "an exception of brackets": (
        "import os\ndef solve(I):\n    os.write(3, (100001).to_bytes(4, 'little') + b'x' + b'[' * 100000)\n    os._exit(0)\n",
        "error(unknown)",
    ),
    # -- numbers and texts that are long to write
    "a number of a million digits": ("def solve(I):\n    return 10 ** 10 ** 6\n", "(error\\(ValueError\\)|cpu_limit)"),
    "a number of a million digits, allowed": (
        "import sys\ndef solve(I):\n    sys.set_int_max_str_digits(0)\n    return 10 ** 99_999\n",
        "wrong",
    ),
    "a hexadecimal literal that has no decimal": ("def solve(I):\n    x = 0x" + "f" * 6000 + "\n    " + RIGHT + "\n", "pass"),
    "a hexadecimal literal, returned": ("def solve(I):\n    return 0x" + "f" * 6000 + "\n", "error(ValueError)"),
    "a format that is wide": ("def solve(I):\n    return format(1, '9999999999d')\n", "memory"),
    "half a character": ("def solve(I):\n    return chr(0xd800)\n", "wrong"),
    "not a number": ("def solve(I):\n    return float('nan')\n", "wrong"),
    # -- exceptions
    "a name of a million letters": ("E = type('E' * 10**6, (Exception,), {})\ndef solve(I):\n    raise E()\n", "error"),
    "a name that is made when asked": (
        "class M(type):\n    __name__ = property(lambda c: 1 / 0)\nclass E(Exception, metaclass=M): pass\n"
        "def solve(I):\n    raise E()\n",
        "error(E)",
    ),
    "a message that is no text": (
        "class S(str):\n    def __getitem__(self, i): return object()\nclass E(Exception):\n    def __str__(self): return S('x')\n"
        "def solve(I):\n    raise E()\n",
        "error(E)",
    ),
    "a message that never ends": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef solve(I):\n    raise E()\n",
        "cpu_limit",
    ),
    "raises what stops the judge": ("def solve(I):\n    raise SystemExit(0)\n", "error(SystemExit)"),
    "raises the timer's own": (
        "import sys\ndef solve(I):\n    raise [c for c in BaseException.__subclasses__() if c.__name__ == 'TooSlow'][0]\n",
        "cpu_limit",
    ),
    # -- timers and signals
    "the timer at its default": (
        "import signal\ndef solve(I):\n    signal.signal(signal.SIGPROF, signal.SIG_DFL)\n    while True: pass\n",
        "cpu_limit",
    ),
    "all signals ignored": (
        "import signal\nfor s in (signal.SIGPROF, signal.SIGXCPU, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)\n"
        "def solve(I):\n    while True: pass\n",
        "cpu_limit",
    ),
    "all signals blocked": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ndef solve(I):\n    while True: pass\n",
        "cpu_limit",
    ),
    "an alarm of its own": ("import signal\ndef solve(I):\n    signal.setitimer(signal.ITIMER_REAL, .01)\n    while True: pass\n", "crash(SIGALRM)"),
    "a fault that is caught": (
        "import signal, ctypes\nsignal.signal(signal.SIGSEGV, lambda *_: None)\ndef solve(I):\n    ctypes.string_at(8)\n",
        "cpu_limit",
    ),
    # -- stacks and depth
    "recursion without its limit": ("import sys\nsys.setrecursionlimit(10**9)\ndef solve(I):\n    return solve(I)\n", "(memory|cpu_limit)"),
    "recursion in C without its limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(I):\n    a = []\n    for _ in range(10**5): a = [a]\n    return repr(a)\n",
        "(crash\\(SIGSEGV\\)|cpu_limit)",
    ),
    "a copy that doubles": (
        "import copy\ndef solve(I):\n    a = [0]\n    for _ in range(60): a = [copy.deepcopy(a), copy.deepcopy(a)]\n",
        "(cpu_limit|memory)",
    ),
    "unpacking that doubles": ("def solve(I):\n    a = [0] * 1000\n    while True: a = [*a, *a]\n", "memory"),
    "text that doubles": ("def solve(I):\n    a = 'x'\n    while True: a += a\n", "memory"),
    "a class that is nested by the compiler": ("def solve(I):\n    return eval('(' * 10**5)\n", "error"),
    # -- leaves something for the next, or for the end
    "code for the end": ("import atexit\natexit.register(print)\ndef solve(I):\n    " + RIGHT + "\n", "pass"),
    "code for when it is collected": (
        "class D:\n    def __del__(self):\n        while True: pass\nD()\ndef solve(I):\n    " + RIGHT + "\n",
        "cpu_limit",
    ),
    "a trace of all calls": (
        "import sys\ndef f(*a):\n    while True: pass\nsys.settrace(f)\ndef solve(I):\n    " + RIGHT + "\n",
        "cpu_limit",
    ),
    "an audit that never ends": (
        "import sys\ndef f(*a):\n    while True: pass\nsys.addaudithook(f)\ndef solve(I):\n    exec('')\n    " + RIGHT + "\n",
        "cpu_limit",
    ),
    "another standard output": ("import sys\nsys.stdout = None\ndef solve(I):\n    print(I)\n    " + RIGHT + "\n", "pass"),
    "prints where nobody counts": (
        "import os\ndef solve(I):\n    while True: os.write(1, bytes(1 << 20))\n",
        "cpu_limit",
    ),
    "modules that lie": (
        "import sys\nfor m in list(sys.modules): sys.modules[m] = None\ndef solve(I):\n    " + RIGHT + "\n",
        "pass",
    ),
    "a module that is the judge's": (
        "from millrace.analyses.validate.kernels import zygote, plain\nplain.answer = lambda v: '1'\nzygote._exactly = None\n"
        "def solve(I):\n    return 1\n",
        "(wrong|crash.*)",
    ),
    "a faulthandler that writes to its line": (
        "import faulthandler, ctypes\nfaulthandler.enable(file=3)\ndef solve(I):\n    ctypes.string_at(8)\n",
        "crash",
    ),
    # -- what comes back
    "a generator": ("def solve(I):\n    yield from I\n", "error(TypeError)"),
    "a text that is more": ("class S(str):\n    def __eq__(self, o): return True\ndef solve(I):\n    return S('x')\n", "wrong"),
    "a number that is more": (
        "class N(int):\n    def __repr__(self): return '[[3,6,9],[2,5,8],[1,4,7]]'\ndef solve(I):\n    return N(1)\n",
        "wrong",
    ),
    "a list that never ends": (
        "class L(list):\n    def __iter__(self):\n        while True: yield 1\ndef solve(I):\n    return L([1])\n",
        "(memory|cpu_limit)",
    ),
    "an array that never ends": ("class A:\n    def tolist(self): return A()\ndef solve(I):\n    return A()\n", "error"),
    "a set that sorts for ever": (
        "class E:\n    def __lt__(self, o):\n        while True: pass\ndef solve(I):\n    return {E(), E()}\n",
        "cpu_limit",
    ),
    # -- the kernel
    "opens by number": (C + "def solve(I):\n    assert libc.syscall(257, -100, b'/etc/passwd', 0) >= 0\n", "error(AssertionError)"),
    "a ring of requests": (C + "def solve(I):\n    assert libc.syscall(425, 8, None) >= 0\n", "error(AssertionError)"),
    "another process' memory": (
        C + "import os\ndef solve(I):\n    assert libc.syscall(310, os.getppid(), None, 0, None, 0, 0) >= 0\n",
        "error(AssertionError)",
    ),
    "a handle to its parent": (C + "import os\ndef solve(I):\n    assert libc.syscall(434, os.getppid(), 0) >= 0\n", "error(AssertionError)"),
    "a descriptor copied": ("import os\ndef solve(I):\n    os.dup(3)\n", "error(PermissionError)"),
    "the old way of calls": (C + "def solve(I):\n    assert libc.syscall(0x40000000 + 39) >= 0\n", "error(AssertionError)"),
    "lists its descriptors": ("import os\ndef solve(I):\n    return os.listdir('/proc/self/fd')\n", "error(PermissionError)"),
    "the environment": (
        "import os, ctypes\ndef solve(I):\n    assert not os.environ and not ctypes.CDLL(None).getenv(b'HOME')\n    " + RIGHT + "\n",
        "pass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ATTACKS))
def test_attacks_fail_with_their_verdict(cell, library, kind):
    source, verdict = ATTACKS[kind]
    told = judged(cell, library, source)
    pattern = verdict if verdict.startswith("(") else re.escape(verdict)
    assert re.match(pattern, told), told
    assert judged(cell, library, GOOD["pure"]) == "pass"


def test_a_program_that_sleeps_is_given_up_soon_and_not_condemned(cell, library):
    for sleeps in ("import os\ndef solve(I):\n    os.read(3, 1)\n",
                   "import _thread\ndef solve(I):\n    l = _thread.allocate_lock()\n    l.acquire(); l.acquire()\n"):  # fmt: skip
        with pytest.raises(Inconclusive):
            judged(cell, library, sleeps)


def test_memory_that_others_left_in_a_child_is_not_the_next_ones_fault(library):
    """Thirty-two calls in one child: what the first one leaves in the library's cache is not counted against the last."""
    with Cell(("hoarding",), PATH, jail.LAYERS, LIMITS) as made:
        names = canonical.Library(*map(frozenset, survey(("hoarding",), PATH)[0]))
        for i in range(40):
            program = canonical.read(f"def solve(I):\n    return keep(I, {i})\n", "solve", names)
            assert program.lane == "batch"
            assert made.call(program.source, program.entry, "[1]", frozen=False, lane="batch").end == "value", i


def test_what_one_program_imports_the_next_does_not_find(cell):
    with_it = "import sqlite3\ndef f(x):\n    return 'sqlite3' in __import__('sys').modules\n"
    without = "def f(x):\n    return 'sqlite3' in __import__('sys').modules\n"
    assert cell.call(with_it, "f", "[0]", frozen=False, lane="candidate", modules=("sqlite3",)).text == "true"
    assert cell.call(without, "f", "[0]", frozen=False, lane="candidate").text == "false"


def test_modules_within_packages_and_late_imports_of_the_library_work(cell, library):
    source = (
        "from __future__ import annotations\nimport xml.etree.ElementTree as E\nfrom concurrent import futures\n"
        "from dataclasses import dataclass\nimport datetime\nfrom urllib.parse import urlparse\n"
        "@dataclass\nclass P:\n    x: int\n"
        "def solve(I):\n    datetime.datetime.strptime('2020-01-02', '%Y-%m-%d')\n    E.fromstring('<a/>')\n"
        "    'x'.encode('utf-16'), 'x'.encode('latin-1')\n    assert P(1) == P(1) and urlparse('http://x/y').path == '/y'\n    "
        + RIGHT + "\n"
    )  # fmt: skip
    assert judged(cell, library, source) == "pass"


def test_a_child_does_not_outlive_its_zygote(library):
    made = Cell((), PATH, jail.LAYERS, LIMITS)
    child = made.fork()
    zygote, process = psutil.Process(made.process.pid), psutil.Process(child.pid)
    zygote.kill()
    made.process.wait()
    process.wait(timeout=30)
    made.control.close()
    child.sock.close()


@pytest.mark.parametrize(
    ("body", "returned", "verdict"),
    [
        ("assert sum(candidate()) >= 0", "range(10**18)", "error(ValueError)"),
        ("assert [0] * candidate()", "10**12", "memory"),
        ("while candidate(): pass", "True", "(cpu_limit|inconclusive)"),
        ("for _ in range(candidate()): pass", "10**12", "cpu_limit"),
        ("assert str(10 ** candidate()) == '1'", "10**6", "wrong"),
        ("assert candidate() == {'~': ['tuple', 5]}", "{'~': ['tuple', 5]}", "pass"),
        ("assert candidate() == (1, {2: b'x'}, {3}, 1j)", "(1, {2: b'x'}, {3}, 1j)", "pass"),
        ("import numpy\n    assert numpy.allclose(candidate(), [1, 2])", "[1, 2]", "pass"),
        ("from os import path\n    assert open('/etc/passwd')", "1", "wrong"),
        ("try:\n        candidate()\n    except ZeroDivisionError:\n        return\n    assert False", "1 / 0", "pass"),
        ("candidate()", "1 / 0", "error(ZeroDivisionError)"),
        ("raise KeyError(candidate())", "1", "wrong"),
    ],
)
def test_a_check_is_not_attacked_by_what_it_is_given(cell, monkeypatch, body, returned, verdict):
    monkeypatch.setattr(module, "REFEREE_S", 0.5)
    job = (f"def f():\n    return {returned}\n", "f", "candidate", ())
    told = check(cell, job, f"def check(candidate):\n    {body}\n")
    pattern = verdict if verdict.startswith("(") else re.escape(verdict)
    assert re.match(pattern, short(told["verdict"], told["detail"])), told


@pytest.mark.parametrize(
    "forged",
    [
        '{"~":["range",[0,1000000000000000000,1]]}',
        '{"~":["bytes",5]}',
        '{"~":["nothing",5]}',
        "[" * 5000,
        '{"~":["complex",["a"]]}',
    ],
)
def test_a_check_is_not_handed_what_is_no_value(cell, forged):
    data = f"v{forged}".encode()
    writes = f"import os\ndef f():\n    os.write(3, {len(data).to_bytes(4, 'little') + data!r})\n    os._exit(0)\n"
    told = check(cell, (writes, "f", False, ()), "def check(candidate):\n    assert list(candidate())\n")
    assert told["verdict"] == "crash"


@pytest.mark.parametrize(
    "source", [None, 5, ["x"], "x = '\ud800'", b"\xff", "0x" + "f" * 9000, "(" * 90_000, "[" * 250 + "]" * 250]
)
def test_the_reader_says_what_is_no_program_and_lives(source):
    found = read_block([(source, "solve"), (GOOD["own code"], "solve")], ((), (), ()))
    assert "rejected" in found[0] and found[1]["lane"] == "candidate"


@pytest.mark.parametrize(
    "escape",
    [
        "from os import *\ndef solve(I):\n    return abs(I)\n",  # not the library's: who knows what abs is now
        "def solve(I, I2, I):\n    return hmirror(I)\n",
        "def solve(I):\n    a = len(I)\n    len = 3\n    return a\n",
        "def solve(I):\n    return solve\n",
        "def solve(I):\n    return '{0.__class__}'.format(I)\n",
        "def solve(I):\n    return f'{I.__class__}'\n",
        "def solve(I):\n    return attrgetter('__globals__')(hmirror)\n",
        "def solve(I):\n    return 1e999\n",
        "def solve(I):\n    return (lambda: I)()\n",
        "def solve(I):\n    return map(exec, I)\n",
        "def solve(I):\n    return type(I)\n",
        "def solve(I):\n    return os\n",
    ],
)
def test_what_is_not_proven_pure_has_a_child_of_its_own(escape):
    names, pure, modules = survey(("importing",), PATH)[0]
    assert {"os", "attrgetter", "hmirror"} <= set(names) and not {"os", "attrgetter"} & set(pure) and "hmirror" in pure
    found = read_block([(escape, "solve")], (names, pure, modules))[0]
    assert found.get("lane", "rejected") in ("candidate", "rejected")


def test_long_chains_run_as_they_came(cell, library):
    lines = [f"    x{i + 1} = hmirror(x{i})" for i in range(1001)]
    source = "\n".join(["def solve(x0):", *lines, "    return rot90(x1001)", ""])
    assert judged(cell, library, source) == "pass"


def test_programs_that_can_see_their_text_are_the_same_only_to_the_letter(library):
    def digest(source):
        return canonical.read(source, "solve", library).digest

    plain = "def solve(I):\n    'one'\n    for r in I: return r\n"
    looks = "def solve(I):\n    'one'\n    for r in I: return solve.__doc__\n"
    assert digest(plain) == digest(plain.replace("one", "two"))
    assert digest(looks) != digest(looks.replace("one", "two")) and digest(looks) != digest(looks + "\n")

"""Candidates whose verdict is known, good and hostile, and the cases that they are for."""

import random

import grids

TASK_GRID = ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def arc_task(function, count=4, seed=0):
    """An ARC task whose outputs are `function` of random grids; the last pair is its test."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        grid = tuple(tuple(draw.randrange(10) for _ in range(6)) for _ in range(6))
        pairs.append({"input": [list(r) for r in grid], "output": [list(r) for r in function(grid)]})
    return {"train": pairs[:-1], "test": pairs[-1:]}


def turned(grid):
    return grids.rot90(grids.hmirror(grid))


GOOD = {
    "pure": "def solve(I):\n    a = hmirror(I)\n    return rot90(a)\n",
    "own code": "def solve(I):\n    return [list(r) for r in zip(*[row[::-1] for row in I][::-1])]\n",
    "a class": "class T:\n    def go(self, I):\n        return rot90(hmirror(I))\ndef solve(I):\n    return T().go(I)\n",
    "its own exceptions": "def solve(I):\n    try:\n        [][1]\n    except IndexError:\n        return rot90(hmirror(I))\n",
    "imports": "import functools\ndef solve(I):\n    return functools.reduce(lambda g, f: f(g), [hmirror, rot90], I)\n",
}
HOSTILE = {
    "wrong": ("def solve(I):\n    return hmirror(I)\n", "wrong"),
    "endless": ("def solve(I):\n    while True: pass\n", "cpu_limit"),
    "endless, swallowing": (
        "def solve(I):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass\n",
        "cpu_limit",
    ),
    "endless in C": ("def solve(I):\n    return sum(range(10**14))\n", "cpu_limit"),
    "endless by regex": ("import re\ndef solve(I):\n    return re.match('(a+)+$', 'a' * 60 + 'b')\n", "cpu_limit"),
    "endless in the library": ("def solve(I):\n    return spin(I)\n", "cpu_limit"),
    "timer off": (
        "import signal\ndef solve(I):\n    signal.setitimer(signal.ITIMER_PROF, 0)\n    while True: pass\n",
        "cpu_limit",
    ),
    "memory at once": ("def solve(I):\n    return bytearray(1 << 34)\n", "memory"),
    "memory by and by": ("def solve(I):\n    a = []\n    while True: a.append(bytes(1 << 20))\n", "memory"),
    "memory that is shared": (
        "import mmap\ndef solve(I):\n    m = mmap.mmap(-1, 1 << 31)\n    m[:] = bytes(1 << 31)\n",
        "error(PermissionError)",
    ),
    "os._exit": ("import os\ndef solve(I):\n    os._exit(0)\n", "crash(exit 0)"),
    "sys.exit": ("import sys\ndef solve(I):\n    sys.exit()\n", "error(SystemExit)"),
    "segfault": ("import ctypes\ndef solve(I):\n    ctypes.string_at(8)\n", "crash(SIGSEGV)"),
    "abort": (
        "import os\ndef solve(I):\n    os.abort()\n",
        "crash(SIGSEGV)",
    ),  # the jail lets no signal out, not even to itself
    "recursion": ("def solve(I):\n    return solve(I)\n", "error(RecursionError)"),
    "recursion in the library": ("def solve(I):\n    return deep(I)\n", "error(RecursionError)"),
    "fork bomb": ("import os\ndef solve(I):\n    while True: os.fork()\n", "error(PermissionError)"),
    "threads": ("import threading\ndef solve(I):\n    threading.Thread(target=print).start()\n", "error(RuntimeError)"),
    "a process": ("import subprocess\ndef solve(I):\n    return subprocess.run(['id'])\n", "error(PermissionError)"),
    "reads a file": ("def solve(I):\n    return open('/etc/passwd').read()\n", "error(PermissionError)"),
    "reads its memory": ("def solve(I):\n    return open('/proc/self/mem', 'rb').read(1)\n", "error(PermissionError)"),
    "a socket": ("import socket\ndef solve(I):\n    return socket.socket()\n", "error(PermissionError)"),
    "kills its parent": ("import os\ndef solve(I):\n    os.kill(os.getppid(), 9)\n", "error(PermissionError)"),
    "kills its group": ("import os\ndef solve(I):\n    os.killpg(0, 9)\n", "error(PermissionError)"),
    "prints gigabytes": ("def solve(I):\n    while True: print('x' * 100000)\n", "error(TooMuchOutput)"),
    "a large result": ("def solve(I):\n    return 'x' * (1 << 22)\n", "error(TooMuchOutput)"),
    "no plain result": ("def solve(I):\n    return object()\n", "error(TypeError)"),
    "a circular result": ("def solve(I):\n    a = []\n    a.append(a)\n    return a\n", "error(ValueError)"),
    "a deep result": (
        "def solve(I):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a\n",
        "error(RecursionError)",
    ),
    "equal to all": (
        "class A(list):\n    def __eq__(self, other): return True\ndef solve(I):\n    return A()\n",
        "wrong",
    ),
    "forges an answer": ("import os\ndef solve(I):\n    os.write(3, b'\\x02\\0\\0\\0v1')\n    os._exit(0)\n", "wrong"),
    "writes rubbish": (
        "import os\ndef solve(I):\n    os.write(3, b'\\xff' * 100)\n    return I\n",
        "crash(it wrote to the judge what is no answer)",
    ),
    "patches the library": (
        "import grids\ngrids.hmirror = lambda g: g\ndef solve(I):\n    return grids.hmirror(I)\n",
        "wrong",
    ),
    "looks at the stack": (
        "import sys\ndef solve(I):\n    f = sys._getframe()\n    while f.f_back: f = f.f_back\n"
        "    return [v for v in f.f_locals.values() if isinstance(v, list)]\n",
        "wrong",
    ),
    "sleeps": ("import time\ndef solve(I):\n    time.sleep(1000)\n", "error(PermissionError)"),
    "raises at import": ("raise KeyError('x')\ndef solve(I): return I\n", "error(KeyError)"),
    "a wicked exception": (
        "class E(Exception):\n    def __str__(self): raise E()\ndef solve(I):\n    raise E()\n",
        "error(E)",
    ),
    "syntax": ("def solve(I:\n", "rejected"),
    "no function": ("x = 1\n", "rejected"),
    "not UTF-8": (b"def solve(I):\n    return '\xff'\n", "rejected"),
    "null bytes": ("def solve(I):\n    return I\0\n", "rejected"),
    "nested": ("def solve(I): return " + "(" * 300 + "I" + ")" * 300 + "\n", "rejected"),
    "a huge literal": ("def solve(I): return " + "9" * 2_000_000 + "\n", "rejected"),
    "a deep expression": ("def solve(I): return " + "-" * 50_000 + "1\n", "rejected"),
}


def short(verdict, detail):
    """ "error(ValueError)" for an error of that type; "crash(SIGSEGV)"."""
    if verdict == "error":
        return f"error({detail.partition(':')[0]})"
    return f"crash({detail})" if verdict == "crash" else verdict

"""What is on the pipe between the driver and a worker: frames of a length, a few numbers, and a pickle.

To the worker: TASKS, a pickle of `(codes, place)` when there is news, and one of the `Run`s. `codes`: functions that it
does not know yet, as (number, pickle). `place`: working directory, module path, the opener of stores, what makes
tokens for cores, and what makes a meter of quotas. They come in a pickle of their own, which holds plain data only: they
count even when the tasks cannot be read or are not wanted.

To the driver: RESULTS, the end of each attempt as 64-bit numbers, the processor time after each, then a pickle of
`(values, extras)`. Attempts of a frame follow each other without a gap, each starts where the one before it ended, so
two numbers tell all times of a plain one; `extras` maps the place in the frame to the fields of an `Extra` for the
others. Results
come in the order of the message.

These pickles pass between processes of one user that made each other; nothing here is read from a file or a network.
"""

from __future__ import annotations

import struct
from array import array
from typing import Any, NamedTuple

LENGTH = struct.Struct("<Q")
TASKS = struct.Struct("<QQQQQQ")
"""Bytes after this field; bytes of the news; number of the first task, which names the message; then what is allowed:
processor ns, wall ns, private bytes (0: no ceiling)."""
RESULTS = struct.Struct("<QQIIIIQQQQQQ")
"""Bytes after this field; message; place of the first result in it; results; flags; the worker's pid; start of the first
attempt; processor time then; ns of unpacking the message, which the first attempt includes; ns of packing the values,
which the last one includes; ns that the worker waited for a core before the first attempt, which it does not include; ns
that a quota held its group back meanwhile."""
LAST, UNREAD = 1, 2
"""Flags: the message is over (what has no result is handed back); its tasks could not be read, the values are one
failure (kind, message, traceback)."""
CODES = 512
"""Functions that a worker remembers; both sides count, and forget all of them when there are more. Whoever makes a new
function for each task must not fill the memory of the workers with them."""


class Run(NamedTuple):
    """Consecutive tasks of one kind, as its reader sees it; on the pipe a plain tuple, which is read in half the time.
    Groups and keys are () when none of them has one."""

    function: int
    resources: tuple[int, ...]
    keep: Any
    args: list[tuple[Any, ...]]
    groups: list[int] | tuple[()]
    keys: list[str] | tuple[()]


class Results(NamedTuple):
    """A frame to the driver, taken apart; `body` is the pickle of `(values, extras)`."""

    message: int
    first: int
    size: int
    flags: int
    pid: int
    began_ns: int
    began_cpu_ns: int
    unpack_ns: int
    pack_ns: int
    wait_ns: int
    throttled_ns: int
    ends_ns: array[int]
    cpus_ns: array[int]
    body: memoryview


def parse_results(frame: bytes | bytearray) -> Results:
    """`frame` is without its length."""
    view = memoryview(frame)
    head = _RESULTS_HEAD.unpack_from(view)
    size = head[2]
    ends, cpus = array("q"), array("q")
    half = _RESULTS_HEAD.size + 8 * size
    ends.frombytes(view[_RESULTS_HEAD.size : half])
    cpus.frombytes(view[half : half + 8 * size])
    return Results(*head, ends, cpus, view[half + 8 * size :])


_RESULTS_HEAD = struct.Struct("<QIIIIQQQQQQ")

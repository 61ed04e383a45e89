"""What is on the pipe between the driver and a worker: frames of a length, a few numbers, and a pickle.

To the worker: TASKS, then `(codes, runs, place)`. `codes`: functions it does not know yet, as (number, pickle).
`runs`: consecutive tasks of one kind, see `Run`. `place`: working directory, module path and the opener of stores,
when they are new to it.

To the driver: RESULTS, the end of each attempt as 64-bit numbers, the processor time after each, then `(values,
extras)`. Attempts of a frame follow each other without a gap, each starts where the one before it ended, so two numbers
tell all times of a plain one; `extras` maps the place in the frame to `Extra` for the others. Results come in the order
of the message.

These pickles pass between processes of one user that made each other; nothing here is read from a file or a network.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

LENGTH = struct.Struct("<Q")
TASKS = struct.Struct("<QQQQQ")
"""Bytes that follow; number of the first task (which names the message); cpu_ns, wall_ns, private bytes allowed."""
RESULTS = struct.Struct("<QQIIIIQQ")
"""Bytes that follow; message; place of the first result in it; results; flags; 0; start of the first attempt; processor
time then."""
LAST, UNREAD = 1, 2
"""Flags: the message is over (what has no result is handed back); its pickle could not be read, `(failure,)` follows."""


class Run(NamedTuple):
    """Consecutive tasks of one kind. Groups and keys are () when none of them has one."""

    function: int
    resources: tuple[int, ...]
    keep: Any
    args: list[tuple[Any, ...]]
    groups: list[int] | tuple[()]
    keys: list[str] | tuple[()]


class Extra(NamedTuple):
    """What is not plain about an attempt: failure (kind, message, traceback) or None, parts of its time, peak."""

    failure: tuple[str, str, str] | None = None
    unpack_ns: int = 0
    enter_ns: int = 0
    read_ns: int = 0
    write_ns: int = 0
    peak_bytes: int = 0

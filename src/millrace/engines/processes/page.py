"""One shared page (memfd) on which workers say what they run, and the fork server and the driver say verdicts.

Every field is one aligned 64-bit number with one writer; a read or a write is no system call. The page outlives a
worker, so after `kill -9` it still tells which task was running, and since when.
"""

from __future__ import annotations

import mmap
import os

RING = 256
"""Fields of the ring at the front: a count, then ids of messages and groups that are not wanted any more. The driver
writes the id first and the count last. A worker that falls behind by more than a ring runs what nobody wants: that is
harmless, its outcome is thrown away."""
RING_IDS = RING - 1

(SEQ, PHASE, START_NS, START_CPU_NS, CPU_LIMIT_NS, WALL_LIMIT_NS, BYTES_LIMIT, SEEN) = range(8)
"""Written by the worker. SEQ: the task that runs, 0 when none does; it is written last, so that the others hold.
SEEN: how many entries of the ring it has read."""

WAITS, UNSENT = 13, 14
"""Written by the worker. WAITS: 1 while it waits for a core of the host with a message in its hands. UNSENT: the first
task whose result is not on its way (when another one runs, results lie in the worker); 0: a part of such results is."""

(VERDICT, VERDICT_SEQ, FIGURE, PEAK_SEQ, PEAK_BYTES) = range(8, 13)
"""Written by the fork server (VERDICT also by the driver, when it kills what was cancelled)."""

FIELDS = 16
RUNNING, UNPACKING, PACKING = range(3)
NO_VERDICT, CPU, WALL, MEMORY, UNWANTED = range(5)


def create(slots: int) -> int:
    """A new page as a file descriptor."""
    fd = os.memfd_create("millrace-page", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8 * (RING + FIELDS * slots))
    return fd


def base(slot: int) -> int:
    """Where the fields of a slot begin."""
    return RING + FIELDS * slot


class Page:
    """The page mapped here: `cells` is the whole of it as 64-bit numbers."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED)
        self._bytes = memoryview(self._map)
        self.cells = self._bytes.cast("Q")

    def drop(self, number: int) -> None:
        """Tell all workers that a message or a group is not wanted any more. For the driver alone."""
        count = self.cells[0]
        self.cells[1 + count % RING_IDS] = number
        self.cells[0] = count + 1

    def clear(self, slot: int) -> None:
        """Before a new worker takes the slot: nothing runs, everything dropped so far is not for it."""
        at = base(slot)
        for field in range(FIELDS):
            self.cells[at + field] = 0
        self.cells[at + SEEN] = self.cells[0]

    def close(self) -> None:
        self.cells.release()
        self._bytes.release()
        self._map.close()

"""Frames come out of a pipe as they went in, however they were cut, and large ones are not copied as they grow."""

import socket
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engines.processes.client import BUFFER_BYTES, WorkerEnd
from millrace.engines.processes.frames import LENGTH

LARGE = [BUFFER_BYTES - 8, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES]


def ends() -> tuple[WorkerEnd, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return WorkerEnd(0, ours), theirs


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.one_of(st.integers(0, 50), st.sampled_from(LARGE)), max_size=12),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_frames_come_out_as_they_went_in(sizes: list[int], cuts: list[int]) -> None:
    worker, theirs = ends()
    buffer = bytearray(BUFFER_BYTES)
    payloads = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    stream = b"".join(LENGTH.pack(len(p)) + p for p in payloads)
    got, at, turn = [], 0, 0
    while at < len(stream):
        step = max(cuts[turn % len(cuts)], len(stream) // 100)
        theirs.sendall(stream[at : at + step])
        got += worker.read(buffer)
        at, turn = at + step, turn + 1
    theirs.close()
    got += worker.read(buffer)
    if not worker.closed:
        got += worker.read(buffer)
    assert worker.closed
    assert [bytes(g) for g in got] == payloads
    worker.release()


def test_what_does_not_fit_waits_for_room() -> None:
    worker, theirs = ends()
    data = bytes(5 << 20)
    assert worker.write(data), "5 MiB fitted into a pipe"
    received = bytearray()

    def drain() -> None:
        while len(received) < len(data):
            received.extend(theirs.recv(1 << 20))

    thread = threading.Thread(target=drain)
    thread.start()
    while worker.write():
        pass
    thread.join()
    assert received == data
    theirs.close()
    assert not worker.write(b"more"), "a dead worker's pipe is not waited for"
    worker.release()

"""What a directory store adds to the laws of every store: files that others can read, maps, limits of the disk, archives."""

from __future__ import annotations

import hashlib
import io
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.stores import codecs, segments
from millrace.stores.directory import PACKED_BYTES, DirectoryStore, open_by_url
from millrace.stores.index import Index, extra_bytes, tag_of, write_table
from millrace.testing.stores import LARGE_BYTES, examples, key_of, same


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(tmp_path / "store")
    yield store
    store.close()


def _objects(store: DirectoryStore, suffix: str = "") -> list[Path]:
    return sorted((store.path / "v1" / "objects").rglob(f"*{suffix}"))


def _python(code: str, *args: object, **named: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **named)  # type: ignore[call-overload, no-any-return]


# -- files -------------------------------------------------------------------------------------------------------
def test_a_large_array_is_a_npy_file(store: DirectoryStore) -> None:
    named = np.zeros(5_000, dtype=[("größe", "<f8"), ("b", "S3")])
    for name, array in (
        ("rows", np.random.rand(500, 40)),
        ("columns", np.asfortranarray(np.random.rand(500, 40))),
        ("fields", named),
    ):
        store.put(key_of(name), array)
        (path,) = (store.path / "v1" / "objects" / key_of(name)[:2]).glob(f"{key_of(name)}-*.npy")
        for mode in (None, "r"):
            found = np.load(path, mmap_mode=mode)
            assert same(np.asarray(found), array)


def test_a_large_table_is_an_arrow_file(store: DirectoryStore) -> None:
    table = pa.table({"a": range(50_000)})
    store.put(key_of("table"), table)
    (path,) = (path for path in _objects(store, ".arrow"))
    assert pa.ipc.open_file(pa.memory_map(str(path))).read_all().equals(table)


def test_a_large_mapping_is_a_container_that_tells_itself(store: DirectoryStore) -> None:
    value = {"a": np.random.rand(5_000), "table": pa.table({"a": range(50_000)}), "b": [(1, 2.5)]}
    store.put(key_of("mapping"), value)
    (path,) = (path for path in _objects(store, ".mill"))
    assert same(codecs.read_container(path.read_bytes()), value)
    found = store.attach(key_of("mapping"))
    assert found["a"].ctypes.data % 64 == 0
    with pytest.raises(codecs.Damaged):
        codecs.read_container(path.read_bytes()[:-1])


def test_small_values_share_a_file(store: DirectoryStore) -> None:
    for i in range(2_000):
        store.put(key_of(i), np.arange(i % 50))
    store.put(key_of("edge"), b"x" * (PACKED_BYTES - 10))
    store.flush()
    assert not [path for path in _objects(store) if path.is_file()]
    assert len(list((store.path / "v1" / "segments").iterdir())) == 1


def test_processes_one_after_the_other_share_a_segment(tmp_path: Path) -> None:
    for i in range(20):
        store = DirectoryStore(tmp_path)
        store.put(key_of(i), i)
        store.put(key_of((i, "large")), b"x" * LARGE_BYTES)
        store.close()
    assert len(list((tmp_path / "v1" / "segments").iterdir())) == 2


# -- maps --------------------------------------------------------------------------------------------------------
ATTACH = """
import sys, time
from millrace.stores.directory import open_by_url
import numpy
def private(): return sum(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(("RssAnon", "RssShmem"))) << 10
open_by_url(sys.argv[1]).attach(sys.argv[3])
before = private()
array = open_by_url(sys.argv[1]).attach(sys.argv[2])
grown = private() - before
total = array.sum()
print(grown, private() - before, total, sum("/objects/" in line for line in open("/proc/self/maps")))
"""


def test_attaching_maps_and_reads_nothing(store: DirectoryStore) -> None:
    array = np.arange(8_000_000, dtype="f8")
    store.put(key_of("array"), array)
    store.put(key_of("small"), np.arange(10))
    store.flush()
    said = _python(ATTACH, store.url, key_of("array"), key_of("small")).stdout.split()
    grown, read, total, maps = (float(word) for word in said)
    assert grown < 1 << 20
    assert read < 4 << 20, f"{read:,} private bytes after reading all of it"
    assert total == array.sum()
    assert maps >= 1


def test_a_mapped_value_outlives_eviction_and_the_store(store: DirectoryStore) -> None:
    array = np.random.rand(200_000)
    store.put(key_of("array"), array)
    taken = store.attach(key_of("array"))
    store.evict(0)
    assert not [path for path in _objects(store) if path.is_file()]
    store.close()
    assert same(taken, array)


def test_a_reader_that_lives_long_gives_evicted_space_back(store: DirectoryStore) -> None:
    for i in range(100):
        store.put(key_of(i), i)
    store.flush()
    other = open_by_url(store.url)
    assert other.attach(key_of(7)) == 7
    store.evict(0)
    other._reader._touched_s.clear()  # a minute later
    assert other.get(key_of(7)) is None
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    assert not [path for path in held if path.startswith(str(store.path / "v1" / "segments"))]
    other.close()


def test_numbers_need_neither_numpy_nor_pyarrow(tmp_path: Path) -> None:
    code = (
        "import sys; from millrace.stores.directory import DirectoryStore; from millrace.stores.memory import MemoryStore\n"
        "for s in (DirectoryStore(sys.argv[1]), MemoryStore()):\n"
        "    s.put('00' * 20, {'a': [1, 2.5, ('b',)]}); s.put('01' * 20, b'x' * 100000); s.flush()\n"
        "    assert s.get('00' * 20).value == {'a': [1, 2.5, ('b',)]}\n"
        "print([name for name in ('numpy', 'pyarrow', 'pickle', 'pandas') if name in sys.modules])"
    )
    assert _python(code, tmp_path).stdout.strip() == "[]"


# -- finding -----------------------------------------------------------------------------------------------------
def _alike() -> tuple[bytes, bytes]:
    """Two keys that no slot can tell apart: the same checksum and the same end."""
    seen: dict[int, bytes] = {}
    rng = random.Random(0)
    while True:
        raw = rng.randbytes(8) + b"same"
        other = seen.setdefault(zlib.crc32(raw), raw)
        if other != raw:
            return raw, other


def test_keys_that_share_a_slot_s_tag_are_told_apart(store: DirectoryStore) -> None:
    left, right = _alike()
    assert tag_of(left) == tag_of(right)
    store.put(left.hex(), "left")
    store.flush()
    assert store.get(right.hex()) is None
    store.put(right.hex(), "right")
    store.flush()
    other = open_by_url(store.url)
    assert [other.attach(left.hex()), other.attach(right.hex())] == ["left", "right"]
    assert sorted(other.keys()) == sorted([left.hex(), right.hex()])
    other.close()


def test_a_table_holds_every_key_at_every_size(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write_table(path, lambda: iter(()))
    known: dict[bytes, segments.Place] = {}
    for count in (1, 600, 700, 5_000):
        table = Index.open(path)
        assert table is not None
        if table.is_full(count):
            write_table(path, table.slots, 2 * (table.count() + count))
            assert table.moved()
            table.close()
            table = Index.open(path)
            assert table is not None
        for i in range(count):
            raw, place = hashlib.sha1(b"%d %d" % (count, i)).digest(), segments.place(i + 1, 8 * i, 64)
            found, free = table.look(tag_of(raw))
            assert not found
            table.set(free, tag_of(raw), place)
            known[raw] = place
        table.grow_count(count)
        assert all(table.find(raw) == [place] for raw, place in known.items())
        assert table.count() == len(known) == sum(1 for _ in table.slots())
        assert table.extra_bytes() >= extra_bytes(len(known))
        table.close()


def test_a_place_says_where() -> None:
    for where in ((1, 0, 8), ((1 << 24) - 1, (1 << 31) - 8, segments.MOST_RECORD_BYTES), (77, 4_096, 160)):
        place = segments.place(*where)
        assert (segments.segment_of(place), segments.offset_of(place), segments.length_of(place)) == where
        assert place < 1 << 64


def test_a_lost_index_is_made_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    wanted = examples()
    for name, value in wanted.items():
        store.put(key_of(name), value)
    store.close()
    (tmp_path / "v1" / "index").unlink()
    store = DirectoryStore(tmp_path)
    assert all(same(store.attach(key_of(name)), value) for name, value in wanted.items())
    (tmp_path / "v1" / "index").unlink()  # under an open store
    store.put(key_of("more"), 1)
    store.flush()
    other = DirectoryStore(tmp_path)
    assert all(same(other.attach(key_of(name)), value) for name, value in wanted.items())
    assert other.attach(key_of("more")) == 1
    (tmp_path / "v1" / "index").unlink()
    DirectoryStore(tmp_path).close()  # makes a table that the open store does not know
    store.put(key_of("last"), 1)
    store.flush()
    third = DirectoryStore(tmp_path)
    assert third.attach(key_of("last")) == 1
    third.close()
    for each in (store, other):
        each.close()


def test_opening_reads_no_entries(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for i in range(20_000):
        store.put(key_of(i), [i, "v" * 100])
    store.close()
    opened_s, read_s = [], []
    for _ in range(5):
        start = time.process_time()
        store = DirectoryStore(tmp_path)
        assert store.get(key_of(7)) is not None
        opened = time.process_time()
        for i in range(1_000):
            store.get(key_of(i))
        opened_s.append(opened - start)
        read_s.append(time.process_time() - opened)
        store.close()
    assert min(opened_s) < min(read_s)  # far less than to read a twentieth of them, on any machine


# -- processes and threads ---------------------------------------------------------------------------------------
def test_a_forked_child_goes_on_with_the_store(store: DirectoryStore) -> None:
    store.put(key_of("before"), "before")
    store.pin(key_of("before"))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            store.put(key_of("child"), "child")
            store.put(key_of("child's"), b"x" * LARGE_BYTES)
            store.flush()
            status = 0 if store.attach(key_of("child")) == "child" else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.attach(key_of("child")) == "child"
    store.flush()
    other = open_by_url(store.url)
    other.evict(0)
    assert list(other.keys()) == [key_of("before")], "the parent's pin holds, the child's values were not pinned"
    other.close()


def test_threads_may_share_a_store(store: DirectoryStore) -> None:
    wrong: list[object] = []

    def work(offset: int) -> None:
        for i in range(offset, offset + 600):
            value = b"%d," % i * 20_000 if i % 50 == 0 else [i]
            if store.put(key_of(i), value).value != value or store.attach(key_of(i)) != value:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(300 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    store.flush()
    assert len(list(store.keys())) == 1_500


def test_a_stopped_writer_stops_neither_readers_nor_small_puts(store: DirectoryStore) -> None:
    store.put(key_of("there"), 1)
    store.flush()
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(store.path / "v1" / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "locked"
        start = time.monotonic()
        for i in range(1_000):
            store.put(key_of(i), i)
        assert [store.attach(key_of(i)) for i in range(1_000)] == list(range(1_000))
        assert store.attach(key_of("there")) == 1
        assert time.monotonic() - start < 60
        holder.send_signal(signal.SIGKILL)
    store.flush()
    other = open_by_url(store.url)
    assert other.attach(key_of(999)) == 999
    other.close()


def test_drafts_of_dead_writers_are_swept_and_those_of_live_ones_are_not(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    code = (
        "import sys; from millrace.stores import images; from pathlib import Path\n"
        "with images._drafted(Path(sys.argv[1]), 1) as draft:\n"
        "    draft.write(b'x'); print('drafted', flush=True); sys.stdin.readline()"
    )
    drafts = tmp_path / "v1" / "drafts"
    command = [sys.executable, "-c", code, str(drafts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == "drafted"
        (draft,) = drafts.iterdir()
        os.utime(draft, (0, 0))
        DirectoryStore(tmp_path).close()
        assert draft.exists(), "the draft of a live writer was swept"
        writer.send_signal(signal.SIGKILL)
    DirectoryStore(tmp_path).close()
    assert not draft.exists()
    store.close()


# -- limits ------------------------------------------------------------------------------------------------------
FULL = """
import resource, sys
from millrace.stores.directory import open_by_url
store = open_by_url(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    for i in range(100_000):
        store.put("%040x" % i, b"x" * int(sys.argv[3]))
    print("no error")
except Exception as e:
    print(type(e).__name__, e)
"""


@pytest.mark.parametrize(
    ("limit", "size"), [(200_000, 1_000_000), (200_000, 5_000)], ids=["a large value", "small values"]
)
def test_a_full_disk_is_said_and_leaves_nothing_half_written(store: DirectoryStore, limit: int, size: int) -> None:
    store.put(key_of("before"), 1)
    store.flush()
    said = _python(FULL, store.url, limit, size).stdout
    assert said.startswith("AnalysisFailed")
    assert str(store.path) in said
    assert "bytes are free" in said
    other = open_by_url(store.url)
    assert other.attach(key_of("before")) == 1
    assert not list((store.path / "v1" / "drafts").iterdir())
    for path in (store.path / "v1" / "segments").iterdir():
        assert sum(length for _, length, _ in segments.scan(path)) == path.stat().st_size, "half a record stayed"
    for i in range(40):
        other.put(f"{i:040x}", b"x" * size)
    other.flush()
    assert other.get(f"{7:040x}") is not None
    other.close()


def test_a_limit_of_the_own_process_is_left_as_it_was() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    home = Path("/var/tmp") if not os.access("/tmp", os.X_OK) else Path("/tmp")
    folder = home / f"millrace-test-{os.getpid()}"
    store = DirectoryStore(folder)
    try:
        store.put(key_of("array"), np.arange(100_000))
        store.put(key_of("small"), 7)
        store.flush()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.setresuid(65_534, 65_534, 65_534)
                other = DirectoryStore(folder)
                right = other.attach(key_of("small")) == 7 and other.get(key_of("array")) is not None
                try:
                    other.put(key_of("mine"), b"x" * LARGE_BYTES)
                except PermissionError:
                    status = 0 if right and other.get(key_of("mine")) is None else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        store.evict(0)
        store.close()
        import shutil

        shutil.rmtree(folder)


def test_what_is_held_outlives_its_process_and_eviction(store: DirectoryStore) -> None:
    for name, value in (("small", 1), ("large", b"x" * LARGE_BYTES), ("other", 2)):
        store.put(key_of(name), value)
    for name in ("small", "large"):
        store.hold(key_of(name))
    other = open_by_url(store.url)
    store.close()
    other.evict(0)
    assert sorted(other.keys()) == sorted([key_of("small"), key_of("large")])
    for name in ("small", "large"):
        other.release(key_of(name))
    other.evict(0)
    assert list(other.keys()) == []
    assert other.size_bytes() == 0
    other.close()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(WrongQuestion, match="cannot be a store"):
        DirectoryStore(tmp_path / "store")
    with pytest.raises(WrongQuestion, match="no url"):
        open_by_url("dir:relative/path")
    store = DirectoryStore(tmp_path / "other")
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.get(key_of("x"))


# -- archives ----------------------------------------------------------------------------------------------------
def test_an_export_comes_back_in_another_store(store: DirectoryStore, tmp_path: Path) -> None:
    wanted = examples()
    for name, value in wanted.items():
        store.put(key_of(name), value)
    file = io.BytesIO()
    assert store.export(file) == len(wanted)
    other = DirectoryStore(tmp_path / "other")
    other.put(key_of("large array"), "mine")
    file.seek(0)
    assert other.import_(file) == len(wanted)
    assert other.attach(key_of("large array")) == "mine"
    third = open_by_url(other.url)
    assert all(same(third.attach(key_of(name)), value) for name, value in wanted.items() if name != "large array")
    assert sorted(third.keys()) == sorted(map(key_of, wanted))
    some = io.BytesIO()
    assert store.export(some, [key_of("text"), key_of("large array"), key_of("nobody")]) == 2
    for each in (other, third):
        each.close()


def test_a_damaged_export_is_said_and_takes_in_nothing_wrong(store: DirectoryStore, tmp_path: Path) -> None:
    wanted = {i: [i] if i % 3 else b"%d" % i * 30_000 for i in range(12)}
    for i, value in wanted.items():
        store.put(key_of(i), value)
    file = io.BytesIO()
    store.export(file)
    whole, rng = file.getvalue(), random.Random(3)
    with pytest.raises(WrongQuestion, match="damaged"):
        DirectoryStore(tmp_path / "longer").import_(io.BytesIO(whole + b"x"))
    with pytest.raises(WrongQuestion, match="not a file"):
        DirectoryStore(tmp_path / "other").import_(io.BytesIO(b"something else"))
    for turn in range(40):
        data = bytearray(whole)
        if turn % 2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        other = DirectoryStore(tmp_path / f"other-{turn}")
        with pytest.raises((WrongQuestion, AnalysisFailed)):
            other.import_(io.BytesIO(bytes(data)))
        for i, value in wanted.items():
            stored = other.get(key_of(i))
            assert stored is None or stored.value == value
        assert not list((other.path / "v1" / "drafts").iterdir())
        other.close()

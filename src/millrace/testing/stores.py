"""The laws of a store, as functions over any implementation of it.

    @pytest.mark.parametrize("law", laws.LAWS + laws.SHARED_LAWS + laws.FILE_LAWS, ids=lambda law: law.__name__)
    def test_my_store(law, tmp_path):
        law(laws.Kind(make=lambda: MyStore(tmp_path), opener="my.module:open_by_url", files=lambda store: [...]))

Each raises AssertionError when the law is broken. LAWS hold for every store; SHARED_LAWS for those that other processes
open by url: they start and kill real processes; FILE_LAWS damage files. What hypothesis draws needs hypothesis; arrays
and tables are tried when numpy and pyarrow are installed. The laws of engines and analyses are elsewhere in this package.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import pickle
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from millrace.run.errors import NotStorable
from millrace.run.ports import Store

LARGE_BYTES = 300_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of store. `make()`: a new, empty one. `opener`: "module:function", by which another process opens its url
    ("" when none can). `files(store)`: what may be damaged on its disk. `lapse_s`: how long the pins of a process may
    outlive it."""

    make: Callable[[], Store]
    opener: str = ""
    files: Callable[[Store], list[Path]] | None = None
    lapse_s: float = 0.0

    def reopened(self, store: Store) -> Store:
        """The same store as another process would see it; the object itself when no other can."""
        store.flush()
        return _opened(self.opener, store.url) if self.opener else store


def key_of(name: object) -> str:
    """A key as real ones are: 40 hex digits."""
    return hashlib.sha1(repr(name).encode()).hexdigest()


# -- values ------------------------------------------------------------------------------------------------------
def examples() -> dict[str, Any]:
    """One of each storable kind, by name."""
    found: dict[str, Any] = {
        "nothing": None,
        "truth": True,
        "number": 17,
        "long": -(2**200),
        "float": [0.1, math.inf, -math.inf, math.nan, -0.0, 5e-324],
        "complex": complex(-0.0, math.nan),
        "text": "Müßte \0 \N{SNOWMAN}",
        "odd text": "\ud800",
        "bytes": b"\0\xff",
        "list": [1, [2.5, [None]]],
        "tuple": (1, (), ("a", [b"b"])),
        "mapping": {"a": 1, 2: "b", 1.5: (3,), (1, 2): {}},
        "much text": "text" * 50_000,
        "many numbers": list(range(50_000)),
    }
    if importlib.util.find_spec("numpy"):
        found |= _numpy_examples()
    if importlib.util.find_spec("pyarrow"):
        found |= _arrow_examples()
    return found


def _numpy_examples() -> dict[str, Any]:
    import numpy as np

    large = np.arange(LARGE_BYTES // 8, dtype="f8").reshape(-1, 4) / 7
    fields = np.zeros(3, dtype=[("a", "<i4"), ("b", "<f8", (2,)), ("c", "S3")])
    frozen = np.arange(3)
    frozen.flags.writeable = False
    return {
        "scalars": [np.float64(0.1), np.int8(-1), np.bool_(True), np.str_("s"), np.bytes_(b"b\0"), np.float32("nan")],
        "times": [np.datetime64("2024-02-29T12", "ns"), np.timedelta64(3, "D"), np.datetime64("NaT")],
        "numpy keys": {np.int64(3): np.float64(4)},
        "array": np.arange(12.0).reshape(3, 4),
        "large array": large,
        "by columns": np.asfortranarray(large),
        "small by columns": np.asfortranarray(large[:5]),
        "strided": large[::3, 1::2],
        "backwards": large[::-1],
        "turned": np.arange(LARGE_BYTES // 8).reshape(10, -1, 5).transpose(1, 2, 0),
        "no dimension": np.array(2.5),
        "empty": np.empty((0, 3), dtype="i2"),
        "empty text": np.empty((2,), dtype="U0"),
        "fields": fields,
        "large fields": np.resize(fields, 20_000),
        "days": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        "truths": np.array([True, False]),
        "other order": np.arange(5, dtype=">i4"),
        "text array": np.array(["a", "bcd"]),
        "read-only": frozen,
        "model": {
            "trees": [large[:100], large[100:200].astype("f4")],
            "base": np.float64(0.5),
            "name": "m",
            "n": (3, 4),
        },
        "many and large": {"items": list(range(20_000)), "array": large},
    }


def _arrow_examples() -> dict[str, Any]:
    import pyarrow as pa

    small = pa.table({"a": [1, None, 3], "b": ["x", "", None]}, metadata={"made": "here"})
    large = pa.table({"a": pa.array(range(40_000)), "b": pa.array([str(i) for i in range(40_000)])})
    split = pa.concat_tables([large.slice(0, 100), large.slice(30_000)])
    words = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "a"]).dictionary_encode()])
    return {
        "table": small,
        "large table": large,
        "table in pieces": split,
        "slice": large.slice(17, 1_000),
        "batch": small.to_batches()[0],
        "large batch": large.to_batches()[0],
        "no columns": pa.table({}),
        "no rows": large.slice(0, 0),
        "arrow array": pa.array([[1], None, [2, 3]]),
        "large arrow array": large.column("b").chunk(0),
        "in chunks": split.column("a"),
        "no chunk": pa.chunked_array([], pa.int32()),
        "tables": {"left": large, "right": [small, large.column("a")]},
        "words": words.unify_dictionaries(),
    }


def same(left: Any, right: Any) -> bool:
    """Equal to the bit, of the same types, shapes and orders."""
    if type(left) is not type(right):
        return _is_map_of_array(left, right) and same(left.view(type(right)), right)
    if isinstance(left, float) and type(left) is float:
        return struct.pack("<d", left) == struct.pack("<d", right)
    if isinstance(left, complex) and type(left) is complex:
        return struct.pack("<dd", left.real, left.imag) == struct.pack("<dd", right.real, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and same([*left, *left.values()], [*right, *right.values()])
    root = type(left).__module__.partition(".")[0]
    if root == "numpy":
        return _same_arrays(left, right)
    if root == "pyarrow":
        if not left.equals(right):
            return False
        return not hasattr(left, "schema") or left.schema.equals(right.schema, check_metadata=True)
    return bool(left == right)


def _is_map_of_array(left: Any, right: Any) -> bool:
    return type(left).__name__ == "memmap" and type(right).__name__ == "ndarray"


def _same_arrays(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if isinstance(left, (str, bytes)):
        return bool(left == right)
    if hasattr(left, "setflags") and left.ndim > 1:
        columns = [a.flags.f_contiguous and not a.flags.c_contiguous for a in (left, right)]
        if columns[0] != columns[1]:
            return False
    return bool(left.tobytes() == right.tobytes())


def values() -> Any:
    """A hypothesis strategy for storable values of any nesting."""
    from hypothesis import strategies as st

    text = st.text(st.characters(exclude_categories=()), max_size=8)
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(2**62, 2**66), st.floats(), st.complex_numbers(), text,
        st.binary(max_size=20),
    )  # fmt: skip
    if importlib.util.find_spec("numpy"):
        from hypothesis.extra import numpy as hnp

        plain = hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes()
        shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
        kinds = plain | hnp.array_dtypes(plain, max_size=3)
        arrays = hnp.arrays(kinds, shapes)
        leaves = leaves | arrays | arrays.filter(lambda a: a.ndim == 2).map(lambda a: a.T)
        leaves = leaves | hnp.arrays(hnp.scalar_dtypes(), 1).map(lambda a: a[0])
    keys = st.one_of(st.integers(), st.floats(allow_nan=False), text, st.tuples(st.integers(), text))
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


# -- laws of every store -----------------------------------------------------------------------------------------
def a_miss_is_none(kind: Kind) -> None:
    store = kind.make()
    assert store.get(key_of("nobody")) is None
    assert _raises(KeyError, store.attach, key_of("nobody"))
    assert list(store.keys()) == []
    assert store.size_bytes() == 0
    store.put(key_of("somebody"), 1)
    assert store.get(key_of("nobody")) is None
    assert _raises(ValueError, store.put, "~7", 1), "a key of one run alone reached the store"


def what_was_put_comes_back(kind: Kind) -> None:
    store = kind.make()
    wanted = examples()
    for name, value in wanted.items():
        stored = store.put(key_of(name), value)
        assert stored.key == key_of(name)
        assert stored.size_bytes > 0
        assert same(stored.value, value), f"{name}: put gave {stored.value!r}"
    other = kind.reopened(store)
    for name, value in wanted.items():
        for found in (store, other):
            taken = found.get(key_of(name))
            assert taken is not None, f"{name} is missing"
            assert same(taken.value, value), f"{name}: got {taken.value!r}"
            assert same(found.attach(key_of(name)), value), f"{name}: attached otherwise"
    assert sorted(other.keys()) == sorted(map(key_of, wanted))
    prefix = key_of("nothing")[:2]
    assert set(other.keys(prefix)) == {key for key in map(key_of, wanted) if key.startswith(prefix)}


def any_nesting_comes_back(kind: Kind) -> None:
    from hypothesis import HealthCheck, given, settings

    store = kind.make()
    count = iter(range(10**9))

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(values())
    def check(value: Any) -> None:
        key = key_of(next(count))
        assert same(store.put(key, value).value, value)
        stored = kind.reopened(store).get(key)
        assert stored is not None
        assert same(stored.value, value)

    check()


def what_needs_pickle_is_refused(kind: Kind) -> None:
    store = kind.make()
    itself: list[Any] = []
    itself.append(itself)
    refused: list[Any] = [object(), {1, 2}, key_of, [{"a": (object(),)}], itself, OddText("a"), {frozenset(): 1}]
    if importlib.util.find_spec("numpy"):
        import numpy as np

        refused += [np.array([object()]), np.ma.array([1, 2], mask=[False, True]), np.zeros(2, dtype=[("o", "O")])]
    if importlib.util.find_spec("pandas"):
        import pandas

        refused.append(pandas.DataFrame({"a": [1]}))
    for value in refused:
        assert _raises(NotStorable, store.put, key_of("refused"), value), f"{type(value)} was taken"
    assert store.get(key_of("refused")) is None
    assert list(store.keys()) == []


class OddText(str):
    """What a store would flatten to its base, were it not to refuse it."""


def the_first_value_stays(kind: Kind) -> None:
    store = kind.make()
    for name, first, second in (("small", 1, 2), ("large", b"1" * LARGE_BYTES, b"2" * LARGE_BYTES)):
        store.put(key_of(name), first)
        assert store.put(key_of(name), second).value == first
        other = kind.reopened(store)
        assert other.put(key_of(name), second).value == first
        for found in (store, other):
            stored = found.get(key_of(name))
            assert stored is not None
            assert stored.value == first


def what_is_stored_cannot_be_changed(kind: Kind) -> None:
    store = kind.make()
    given = [1, [2]]
    store.put(key_of("list"), given)
    given.append(3)
    _value(store, "list").append(4)
    _value(store, "list")[1].append(5)
    assert _value(store, "list") == [1, [2]]
    if not importlib.util.find_spec("numpy"):
        return
    import numpy as np

    for size in (3, LARGE_BYTES // 8):
        array = np.arange(size, dtype="i8")
        store.put(key_of(size), [array])
        store.put(key_of((size, "bare")), array)
        array[0] = -1
        for name, taken in ((size, _value(store, size)[0]), ((size, "bare"), _value(store, (size, "bare")))):
            assert taken[0] == 0, "a later change of the caller's array reached the store"
            assert not taken.flags.writeable
            assert _raises(ValueError, taken.setflags, write=True), "a stored array can be made writable"
            assert _value(store, name) is not None


def evict_keeps_the_bound_and_the_pins(kind: Kind) -> None:
    store = kind.make()
    kept = [key_of(i) for i in (7, 4_321)]
    large = [key_of(("large", i)) for i in range(10)]
    for key in (*kept, large[3]):
        store.pin(key)
    for i in range(6_000):
        store.put(key_of(i), ["value", i, "v" * 150])
    for i, key in enumerate(large):
        store.put(key, bytes([i]) * LARGE_BYTES)
    store.flush()
    before = store.size_bytes()
    assert before > 10 * LARGE_BYTES + 6_000 * 150
    for limit in (before + 1, before // 2, before // 4, LARGE_BYTES + 100_000):
        size = store.size_bytes()
        freed = store.evict(limit)
        assert store.size_bytes() <= limit, f"{store.size_bytes():,} bytes are over the limit of {limit:,}"
        assert freed == size - store.size_bytes()
    store.evict(0)
    other = kind.reopened(store)
    for i, key in ((7, kept[0]), (4_321, kept[1])):
        assert other.attach(key) == ["value", i, "v" * 150], "a pinned value was evicted"
    assert other.attach(large[3]) == b"\3" * LARGE_BYTES, "a pinned value was evicted"
    assert other.size_bytes() < LARGE_BYTES + 100_000
    assert set(other.keys()) == {*kept, large[3]}
    for i in range(100):
        store.put(key_of(i), ["value", i, "v" * 150])
    again = kind.reopened(store)
    assert all(_value(again, i)[1] == i for i in range(100)), "values were put after an eviction and are missing"


def what_was_used_last_stays(kind: Kind) -> None:
    store = kind.make()
    for i in range(4):
        store.put(key_of(i), bytes([i]) * LARGE_BYTES)
        time.sleep(0.01)  # file systems tell times apart by some milliseconds
    used = kind.reopened(store)
    assert used.get(key_of(0)) is not None
    used.evict(3 * LARGE_BYTES)
    assert {i for i in range(4) if kind.reopened(store).get(key_of(i)) is not None} >= {0, 3}
    assert kind.reopened(store).get(key_of(1)) is None


def closing_twice_does_no_harm(kind: Kind) -> None:
    store = kind.make()
    value = store.put(key_of("large"), b"x" * LARGE_BYTES).value
    store.close()
    store.close()
    assert value == b"x" * LARGE_BYTES


# -- laws of stores that processes share -------------------------------------------------------------------------
def what_was_flushed_outlives_its_process(kind: Kind) -> None:
    store = kind.make()
    with _child(kind, store, "write", "0", "500") as child:
        assert child.said() == "flushed"
    for found in (store, kind.reopened(store)):
        for i in range(500):
            assert _value(found, i) == _worked_out(i), f"value {i} is not there"


def who_writes_first_stays(kind: Kind) -> None:
    store = kind.make()
    other = kind.reopened(store)
    for i in range(20):
        store.put(key_of(i), "store's")
        other.put(key_of(i), "other's")
    other.flush()
    first = [_value(kind.reopened(other), i) for i in range(20)]
    assert set(first) <= {"store's", "other's"}
    store.flush()
    for found in (store, other, kind.reopened(store)):
        assert [_value(found, i) for i in range(20)] == first, "what was written first was changed"


def what_others_write_is_found(kind: Kind) -> None:
    store = kind.make()
    other = kind.reopened(store)
    for start in (0, 40, 1_500, 6_000):
        assert other.get(key_of(start)) is None
        for i in range(start, start + 40 + start):
            store.put(key_of(i), [i])
        store.put(key_of(("large", start)), b"x" * LARGE_BYTES)
        store.flush()
        assert all(_value(other, i) == [i] for i in range(start, start + 40 + start))
        assert other.attach(key_of(("large", start))) == b"x" * LARGE_BYTES
        assert other.get(key_of("nobody")) is None


def racing_puts_leave_one_whole_value(kind: Kind) -> None:
    store = kind.make()
    names = [str(i) for i in range(4)]
    with ExitStack() as running:
        children = [running.enter_context(_child(kind, store, "race", name)) for name in names]
        for step in ("ready", *["large"] * LARGE_RACES, "put"):
            assert [child.said() for child in children] == [step] * len(names)
            for child in children:
                child.go()
        seen = {child.said() for child in children}
    assert len(seen) == 1, f"processes see different values: {seen}"
    found = [_value(kind.reopened(store), ("race", i)) for i in range(RACES)]
    assert all(value in [_raced(name, i) for name in names] for i, value in enumerate(found)), "a mixed value"
    assert seen == {_digest(found)}


def a_kill_at_any_moment_is_invisible(kind: Kind) -> None:
    rng = random.Random(0)
    store = kind.make()
    for start in range(0, 10_000, 1_000):
        with _child(kind, store, rng.choice(("write", "churn")), str(start), str(10**9)) as child:
            assert child.said() == "started"
            time.sleep(rng.uniform(0.0, 0.12))
        other = kind.reopened(store)
        for key in list(other.keys()):
            assert other.get(key) is not None, "a key is listed that cannot be read"
        found = [i for i in range(start, start + 1_000) if other.get(key_of(i)) is not None]
        for i in found:
            assert _value(other, i) == _worked_out(i)
        for i in range(start, start + 300, 7):
            assert other.put(key_of(i), _worked_out(i)).value == _worked_out(i)
        other.flush()
        for i in range(start, start + 300, 7):
            assert _value(kind.reopened(other), i) == _worked_out(i)
        other.close()


def pins_of_a_dead_process_are_gone(kind: Kind) -> None:
    store = kind.make()
    for name in ("small", "large"):
        store.put(key_of(name), name * (1 if name == "small" else LARGE_BYTES))
    store.flush()
    with _child(kind, store, "pin", "small", "large") as child:
        assert child.said() == "pinned"
        store.evict(0)
        assert kind.reopened(store).get(key_of("small")) is not None
        assert kind.reopened(store).get(key_of("large")) is not None
    until = time.monotonic() + kind.lapse_s
    store.evict(0)
    while store.size_bytes() and time.monotonic() < until:
        time.sleep(0.05)
        store.evict(0)
    assert store.size_bytes() == 0, "pins of a dead process hold"
    assert kind.reopened(store).get(key_of("small")) is None
    assert kind.reopened(store).get(key_of("large")) is None


def damage_is_a_miss_and_is_mended(kind: Kind) -> None:
    store = kind.make()
    wanted = {name: value for name, value in examples().items() if name not in ("many numbers", "much text")}
    files = kind.files
    assert files is not None, "this law needs `files`"
    rng = random.Random(1)
    for name, value in wanted.items():
        store.put(key_of(name), value)
    for turn in range(45):
        store.close()
        there = files(store)
        if turn % 3:
            for path in rng.sample(there, k=rng.choice((1, 1, 3))):
                _damage(path, rng)
        else:
            for path in there:
                _flip(path, rng)
        store = _opened(kind.opener, store.url)
        missed = 0
        for name, value in wanted.items():
            stored = store.get(key_of(name))
            missed += stored is None
            assert stored is None or same(stored.value, value), f"turn {turn}, {name}: garbage {stored.value!r}"
        for name, value in wanted.items():
            assert same(store.put(key_of(name), value).value, value)
        other = kind.reopened(store)
        for name, value in wanted.items():
            stored = other.get(key_of(name))
            assert stored is not None, f"turn {turn}: {name} was put after the damage and is missing"
            assert same(stored.value, value)
            assert same(other.attach(key_of(name)), value)
        other.evict(10**9)
        other.close()


def pickles_are_never_read(kind: Kind) -> None:
    store = kind.make()
    files = kind.files
    assert files is not None, "this law needs `files`"
    wanted = examples()
    for name, value in wanted.items():
        store.put(key_of(name), value)
    store.close()
    with tempfile.TemporaryDirectory() as folder:
        trap = Path(folder) / "sprung"
        payload = pickle.dumps(_Trap(str(trap)))
        for path in files(store):
            head = path.read_bytes()[:128] if path.suffix == ".npy" else b""
            path.write_bytes(head.replace(b"<f8", b"|O ") + payload * 3)
        other = _opened(kind.opener, store.url)
        for name in wanted:
            assert other.get(key_of(name)) is None, "something was read from a pickle"
        assert list(other.keys()) == []
        assert not trap.exists(), "a pickle was executed"


class _Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def readers_live_with_eviction(kind: Kind) -> None:
    store = kind.make()
    with _child(kind, store, "write", "0", str(10**9)) as child:
        assert child.said() == "started"
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            store.evict(2_000_000)
            other = kind.reopened(store)
            for i in range(0, 2_000, 13):
                stored = other.get(key_of(i))
                assert stored is None or stored.value == _worked_out(i)
            other.close()
        assert child.lives(), "the writer died of an eviction"


LAWS: tuple[Callable[[Kind], None], ...] = (
    a_miss_is_none,
    what_was_put_comes_back,
    any_nesting_comes_back,
    what_needs_pickle_is_refused,
    the_first_value_stays,
    what_is_stored_cannot_be_changed,
    evict_keeps_the_bound_and_the_pins,
    what_was_used_last_stays,
    closing_twice_does_no_harm,
)
SHARED_LAWS: tuple[Callable[[Kind], None], ...] = (
    what_was_flushed_outlives_its_process,
    what_others_write_is_found,
    who_writes_first_stays,
    racing_puts_leave_one_whole_value,
    a_kill_at_any_moment_is_invisible,
    pins_of_a_dead_process_are_gone,
    readers_live_with_eviction,
)
FILE_LAWS: tuple[Callable[[Kind], None], ...] = (damage_is_a_miss_and_is_mended, pickles_are_never_read)
"""For stores whose values lie in files that a test can damage."""


# -- parts -------------------------------------------------------------------------------------------------------
def _value(store: Store, name: object) -> Any:
    stored = store.get(key_of(name))
    assert stored is not None, f"{name} is missing"
    return stored.value


def _raises(kind: type[BaseException], call: Callable[..., Any], *args: Any, **named: Any) -> bool:
    try:
        call(*args, **named)
    except kind:
        return True
    return False


def _flip(path: Path, rng: random.Random) -> None:
    """One bit in each 4 KiB, but no more than three."""
    data = bytearray(path.read_bytes())
    for _ in range(min(3, -(-len(data) // 4_096))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _damage(path: Path, rng: random.Random) -> None:
    """Something that happens to files: a flipped bit, a lost end, zeros, another program's bytes, deletion."""
    data = bytearray(path.read_bytes())
    way = rng.randrange(6)
    if way == 0 and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del data[rng.randrange(len(data) + 1) :]
    elif way == 2 and data:
        at = rng.randrange(len(data))
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif way == 3:
        data = bytearray(rng.randbytes(len(data)))
    elif way == 4:
        data += b"another version of this file"
    else:
        path.unlink()
        return
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))


def _worked_out(i: int) -> Any:
    """The value of item i; each hundredth is a large one."""
    return b"%d," % i * (LARGE_BYTES // 4) if i % 100 == 50 else [i, i * 0.5, f"value {i}"]


RACES, LARGE_RACES = 40, 4


def _raced(name: str, i: int) -> Any:
    return f"{name}-{i} " * (1_000_000 if i < LARGE_RACES else 5)


def _digest(found: list[Any]) -> str:
    return hashlib.sha1(repr(found).encode()).hexdigest()


class _Child:
    """A process of its own that works on the same store and is killed at the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def said(self) -> str:
        return _pipe(self._process.stdout).readline().strip()

    def go(self) -> None:
        pipe = _pipe(self._process.stdin)
        pipe.write("go\n")
        pipe.flush()

    def lives(self) -> bool:
        return self._process.poll() is None


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextmanager
def _child(kind: Kind, store: Store, role: str, *args: str) -> Iterator[_Child]:
    assert kind.opener, "no other process can open this kind of store"
    command = [sys.executable, "-m", "millrace.testing.stores", role, kind.opener, store.url, *args]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield _Child(process)
        finally:
            process.send_signal(signal.SIGKILL)


def _opened(opener: str, url: str) -> Store:
    module, _, name = opener.partition(":")
    store: Store = getattr(importlib.import_module(module), name)(url)
    return store


def _say(word: str) -> None:
    print(word, flush=True)


def _write(store: Store, start: str, count: str, evict_at: int = 0) -> None:
    if int(count) == 10**9:
        _say("started")
    for i in range(int(start), int(start) + int(count)):
        store.put(key_of(i), _worked_out(i))
        if evict_at and i % 40 == 0:
            store.evict(evict_at)
    store.flush()
    _say("flushed")
    sys.stdin.readline()


def _churn(store: Store, start: str, count: str) -> None:
    _write(store, start, count, evict_at=2 * LARGE_BYTES)


def _race(store: Store, name: str) -> None:
    _say("ready")
    sys.stdin.readline()
    for i in range(LARGE_RACES):
        store.put(key_of(("race", i)), _raced(name, i))
        _say("large")
        sys.stdin.readline()
    for i in range(LARGE_RACES, RACES):
        store.put(key_of(("race", i)), _raced(name, i))
    store.flush()
    before = [_value(store, ("race", i)) for i in range(RACES)]
    _say("put")
    sys.stdin.readline()
    after = [_value(store, ("race", i)) for i in range(RACES)]
    _say(_digest(after) if after == before else "a value changed after it was there")
    sys.stdin.readline()


def _pin(store: Store, *names: str) -> None:
    for name in names:
        store.pin(key_of(name))
    _say("pinned")
    sys.stdin.readline()


if __name__ == "__main__":
    role, opener, url, *rest = sys.argv[1:]
    roles: dict[str, Callable[..., None]] = {"write": _write, "churn": _churn, "race": _race, "pin": _pin}
    roles[role](_opened(opener, url), *rest)

"""What a memory store adds to the laws of every store: its limit."""

from __future__ import annotations

import numpy as np

from millrace.stores.memory import MemoryStore
from millrace.testing.stores import key_of


def test_the_limit_holds_and_the_least_used_go() -> None:
    store = MemoryStore(limit_bytes=1_000_000)
    store.put(key_of("pinned"), b"p" * 1_000)
    store.pin(key_of("pinned"))
    for i in range(50):
        store.put(key_of(i), np.full(10_000, i, dtype="f8"))
        assert store.get(key_of(0)) is not None
        assert store.size_bytes() <= 1_000_000
    assert store.get(key_of("pinned")) is not None
    assert store.get(key_of(49)) is not None
    assert store.get(key_of(1)) is None
    assert 10 < len(list(store.keys())) < 15


def test_what_was_handed_out_outlives_eviction() -> None:
    store = MemoryStore()
    array = store.put(key_of("array"), np.arange(100_000)).value
    store.evict(0)
    assert store.get(key_of("array")) is None
    assert array.sum() == sum(range(100_000))


def test_a_value_larger_than_the_limit_is_still_returned() -> None:
    store = MemoryStore(limit_bytes=10)
    assert store.put(key_of("large"), b"x" * 1_000).value == b"x" * 1_000
    assert store.size_bytes() == 0

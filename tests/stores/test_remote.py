"""What a store in object storage adds to the laws of every store: packs, plain files, orphans, outages."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
import servers

from millrace.run.errors import AnalysisFailed
from millrace.stores import remote_eviction
from millrace.stores.remote import RemoteStore
from millrace.testing.stores import LARGE_BYTES, key_of, same


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(path for path in (folder / "v1" / part).rglob("*") if path.is_file())


def test_small_values_share_an_object_and_large_ones_are_plain_files(bucket: str, tmp_path: Path) -> None:
    import s3fs

    array = np.random.default_rng(0).standard_normal((500, 40))
    store = RemoteStore(bucket, tmp_path / "here")
    for i in range(500):
        store.put(key_of(i), [i, "v" * 50])
    store.put(key_of("array"), array)
    store.flush()
    storage = s3fs.S3FileSystem(skip_instance_cache=True)
    assert len(storage.find(f"{bucket}/v1/packs")) <= 3
    (name,) = storage.find(f"{bucket}/v1/objects")
    assert name.endswith(".npy")
    assert same(np.load(io.BytesIO(storage.cat_file(name))), array)
    other = RemoteStore(bucket, tmp_path / "there")
    assert [other.get(key_of(i)).value for i in range(500)] == [[i, "v" * 50] for i in range(500)]  # type: ignore[union-attr]
    found = other.attach(key_of("array"))
    assert same(found, array)
    assert not found.flags.owndata, "mapped, not read"
    storage.rm(name)
    again = RemoteStore(bucket, tmp_path / "there")
    assert same(again.attach(key_of("array")), array), "a host fetches a value once"
    for each in (store, other, again):
        each.close()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    there = tmp_path / "there"
    store = RemoteStore(f"file://{there}", tmp_path / "here")
    store.put(key_of("kept"), b"x" * LARGE_BYTES)
    (kept,) = _files(there, "objects")
    old = time.time() - 2 * remote_eviction.ABANDONED_S
    left = kept.with_name(f"{key_of('left')}-{'0' * 24}.mill")
    lost = kept.with_name(f"{key_of('kept')}-{'0' * 24}.mill")
    young = kept.with_name(f"{key_of('young')}-{'0' * 24}.mill")
    for path in (left, lost, young):
        path.write_bytes(b"half")
    for path in (left, lost, kept):
        os.utime(path, (old, old))
    store.evict(10**9)
    assert _files(there, "objects") == sorted([kept, young])
    assert store.attach(key_of("kept")) == b"x" * LARGE_BYTES
    store.close()


def test_a_pinned_small_value_moves_when_its_pack_goes(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'there'}"
    store, reader = RemoteStore(url, tmp_path / "a"), RemoteStore(url, tmp_path / "b")
    for i in range(300):
        store.put(key_of(i), ["v" * 100, i])
    store.flush()
    reader.pin(key_of(7))
    assert reader.attach(key_of(7)) == ["v" * 100, 7]
    store.evict(0)
    assert list(store.keys()) == [key_of(7)]
    assert store.size_bytes() < 1_000
    for each in (store, reader, RemoteStore(url, tmp_path / "c")):
        assert each.attach(key_of(7)) == ["v" * 100, 7]
        each.close()


def test_numbers_of_packs_are_never_given_twice(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'there'}"
    old = RemoteStore(url, tmp_path / "a", renew_s=0.0)
    old.put(key_of("first"), 1)
    old.flush()
    other = RemoteStore(url, tmp_path / "b", renew_s=0.0)
    other.evict(0)
    other.put(key_of("second"), 2)
    other.close()
    assert old.attach(key_of("second")) == 2
    old.put(key_of("third"), 3)
    old.close()
    assert [path.name for path in _files(tmp_path / "there", "packs")] == [f"{n:010d}" for n in range(3)]


def test_another_store_at_the_same_place_is_another_store(tmp_path: Path) -> None:
    import shutil

    url = f"file://{tmp_path / 'there'}"
    for value in ("before", "now"):
        store = RemoteStore(url, tmp_path / "here")
        assert store.get(key_of("small")) is None
        assert store.put(key_of("small"), value).value == value
        store.close()
        shutil.rmtree(tmp_path / "there")


def test_an_outage_is_a_clear_error_and_finished_work_goes_out_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.s3(tmp_path / "server", monkeypatch):
        store = RemoteStore("s3://team/outage", tmp_path / "here", patience_s=0.5)
        store.put(key_of("small"), [1])
    with pytest.raises(AnalysisFailed, match="s3://team/outage could not be reached"):
        store.flush()
    with pytest.raises(AnalysisFailed):
        store.put(key_of("large"), b"x" * LARGE_BYTES)
    with servers.s3(tmp_path / "server", monkeypatch):
        again = RemoteStore("s3://team/outage", tmp_path / "here")
        assert again.get(key_of("small")).value == [1]  # type: ignore[union-attr]
        again.close()
        other = RemoteStore("s3://team/outage", tmp_path / "there")
        assert other.attach(key_of("small")) == [1], "what was kept here did not go out"
        other.close()

"""What a store in Redis adds to the laws of every store: outages, a server that evicts, who may read, limits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import servers

from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.stores.redis import CHUNK_BYTES, RedisStore
from millrace.testing.stores import LARGE_BYTES, examples, key_of, same

redis = pytest.importorskip("redis")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[servers.Valkey]:
    """A server that no other test uses."""
    with servers.valkey(tmp_path / "server") as server:
        yield server


def _client(server: servers.Valkey) -> redis.Redis:
    return redis.Redis(port=server.port)


def _names(server: servers.Valkey, part: str) -> list[bytes]:
    client = _client(server)
    found = sorted(name for name in client.scan_iter("*", count=1_000) if f":1:{part}:".encode() in name)
    client.close()
    return found


def test_damage_and_pickles_are_misses_and_are_mended(own: servers.Valkey, tmp_path: Path) -> None:
    wanted = {name: value for name, value in examples().items() if name not in ("many numbers", "much text")}
    store = RedisStore(own.url, tmp_path / "0")
    for name, value in wanted.items():
        store.put(key_of(name), value)
    store.close()
    client = _client(own)
    for turn, harm in enumerate(
        (_flipped, lambda data: data[: len(data) // 2], lambda _: b"cos\nsystem\n(S'false'\ntR.")
    ):
        for part in ("v", "c") if turn else ("c",):
            for name in _names(own, part):
                client.set(name, harm(client.get(name)), keepttl=True)
        store = RedisStore(own.url, tmp_path / f"bad {turn}")
        missed = 0
        for name, value in wanted.items():
            stored = store.get(key_of(name))
            missed += stored is None
            assert stored is None or same(stored.value, value), f"{name}: garbage {stored.value!r}"
        assert missed
        for name, value in wanted.items():
            assert same(store.put(key_of(name), value).value, value)
        store.close()
        other = RedisStore(own.url, tmp_path / f"good {turn}")
        for name, value in wanted.items():
            assert same(other.attach(key_of(name)), value), f"{name} was put after the damage and is missing"
        other.close()
    client.close()


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_short_outage_is_waited_out_and_loses_nothing(own: servers.Valkey, tmp_path: Path) -> None:
    store = RedisStore(own.url, tmp_path / "here")
    for i in range(100):
        store.put(key_of(i), i)
    store.flush()
    time.sleep(1.5)  # the server syncs its file each second
    store.put(key_of("small"), 1)
    own.stop()
    back = threading.Timer(1.0, own.start)
    back.start()
    store.put(key_of("large"), b"x" * LARGE_BYTES)  # waits
    store.close()
    back.join()
    other = RedisStore(own.url, tmp_path / "there")
    assert [other.attach(key_of(i)) for i in range(100)] == list(range(100))
    assert other.attach(key_of("small")) == 1
    assert other.attach(key_of("large")) == b"x" * LARGE_BYTES
    other.close()


def test_a_long_outage_is_a_clear_error_and_finished_work_goes_out_later(own: servers.Valkey, tmp_path: Path) -> None:
    url = f"redis://default:secret@127.0.0.1:{own.port}/0"
    client = _client(own)
    client.config_set("requirepass", "secret")
    store = RedisStore(url, tmp_path / "here", patience_s=0.5)
    store.put(key_of("small"), [1])
    client.close()
    own.stop()
    with pytest.raises(AnalysisFailed, match=r"redis://default:\*\*\*@127") as caught:
        store.flush()
    assert "secret" not in str(caught.value)
    with pytest.raises(AnalysisFailed):
        store.put(key_of("large"), b"x" * LARGE_BYTES)
    store.close()
    own.options = ("--requirepass", "secret")
    own.start()
    again = RedisStore(url, tmp_path / "here")
    assert again.get(key_of("small")).value == [1]  # type: ignore[union-attr]
    again.close()
    other = RedisStore(url, tmp_path / "there")
    assert other.attach(key_of("small")) == [1], "what was kept here did not go out"
    other.close()


def test_a_large_value_is_fetched_once_by_a_host(own: servers.Valkey, tmp_path: Path) -> None:
    array = np.arange(3 * CHUNK_BYTES // 8 + 17, dtype="f8")
    store = RedisStore(own.url, tmp_path / "there")
    store.put(key_of("array"), array)
    store.close()
    assert len(_names(own, "c")) == 4
    first = RedisStore(own.url, tmp_path / "here")
    assert same(first.attach(key_of("array")), array)
    client = _client(own)
    client.unlink(*_names(own, "c"))
    client.close()
    second = RedisStore(own.url, tmp_path / "here")
    found = second.attach(key_of("array"))
    assert same(found, array)
    assert not found.flags.owndata
    third = RedisStore(own.url, tmp_path / "elsewhere")
    assert third.get(key_of("array")) is None, "a value without its chunks is a miss"
    for each in (first, second, third):
        each.close()


def test_chunks_of_a_killed_writer_expire(own: servers.Valkey, tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        store = RedisStore(own.url, tmp_path / "child")
        store._commit = lambda entries: os._exit(9)  # type: ignore[method-assign]  # where a kill hurts most
        store.put(key_of("large"), b"x" * LARGE_BYTES)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    client = _client(own)
    (left,) = _names(own, "c")
    assert 0 < client.ttl(left) <= 3_600
    client.close()
    store = RedisStore(own.url, tmp_path / "here")
    assert store.get(key_of("large")) is None
    assert list(store.keys()) == []
    assert store.put(key_of("large"), b"y" * LARGE_BYTES).value == b"y" * LARGE_BYTES
    store.close()


def test_a_server_that_evicts_is_said_and_what_it_took_is_a_miss(tmp_path: Path) -> None:
    with servers.valkey(tmp_path / "server", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
        store = RedisStore(server.url, tmp_path / "here")
        assert "maxmemory-policy allkeys-lru" in store.remarks[0]
        for i in range(20):
            store.put(key_of(i), [i])
        store.put(key_of("large"), b"x" * LARGE_BYTES)
        store.flush()
        size = store.size_bytes()
        client = _client(server)
        client.delete(_names(server, "v")[0])
        assert len(list(store.keys())) == 20, "a key is listed whose value is gone"
        client.delete(b"{millrace}:1:about", b"{millrace}:1:total")
        client.close()
        assert 0 < store.size_bytes() < size
        assert len(list(store.keys())) == 20
        assert store.evict(0) > LARGE_BYTES
        assert _names(server, "c") == _names(server, "v") == []
        store.close()


def test_a_limit_in_the_url_holds(own: servers.Valkey, tmp_path: Path) -> None:
    store = RedisStore(f"{own.url}?limit=1MiB&namespace=small", tmp_path / "here")
    for i in range(10):
        store.put(key_of(i), bytes([i]) * LARGE_BYTES)
        assert store.size_bytes() <= 1 << 20
    assert key_of(9) in set(store.keys())
    assert key_of(0) not in set(store.keys())
    store.close()
    other = RedisStore(own.url, tmp_path / "there")
    assert list(other.keys()) == [], "namespaces are apart"
    other.close()


def test_pins_are_renewed_while_their_process_lives(own: servers.Valkey, tmp_path: Path) -> None:
    store = RedisStore(own.url, tmp_path / "here", lease_s=0.6)
    store.put(key_of("pinned"), 1)
    store.pin(key_of("pinned"))
    store.flush()
    client = _client(own)
    client.delete(*_names(own, "p"))  # lapsed, as when this host was cut off
    servers.wait_until(lambda: _names(own, "p"), "the pin that had lapsed")
    client.close()
    other = RedisStore(own.url, tmp_path / "there")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        other.evict(0)
        assert other.get(key_of("pinned")) is not None
        time.sleep(0.1)
    store.close()
    other.evict(0)
    assert list(other.keys()) == []
    other.close()


def test_who_may_only_read_reads(own: servers.Valkey, tmp_path: Path) -> None:
    client = _client(own)
    client.execute_command("ACL", "SETUSER", "team", "on", ">work", "~{millrace}*", *WRITER)
    client.execute_command("ACL", "SETUSER", "guest", "on", ">look", "%R~{millrace}*", "+@read", "+@connection")
    client.close()
    at = f"127.0.0.1:{own.port}/0"
    store = RedisStore(f"redis://team:work@{at}", tmp_path / "here")
    store.put(key_of("small"), 1)
    store.put(key_of("large"), b"x" * LARGE_BYTES)
    store.pin(key_of("small"))
    store.evict(10**9)
    store.close()
    guest = RedisStore(f"redis://guest:look@{at}", tmp_path / "there")
    assert guest.attach(key_of("small")) == 1
    assert guest.get(key_of("large")).value == b"x" * LARGE_BYTES  # type: ignore[union-attr]
    guest.put(key_of("new"), 1)
    with pytest.raises(WrongQuestion, match="does not allow"):
        guest.flush()
    guest.close()
    with pytest.raises(WrongQuestion, match="does not let this user in") as caught:
        RedisStore(f"redis://guest:wrong@{at}", tmp_path / "there")
    assert "wrong@" not in str(caught.value)


WRITER = ("+@read", "+@write", "+@scripting", "+@connection", "+info", "+time")


@pytest.mark.parametrize("url", ["redis://host:port", "redis://h/0?namespace=a:b", "redis://h/0?limit=much"])
def test_a_url_that_cannot_be_is_said(url: str, tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion):
        RedisStore(url, tmp_path)

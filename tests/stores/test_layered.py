"""What a layered store adds to the laws of every store: its base is found and never changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millrace.compose import open_store
from millrace.run.errors import WrongQuestion
from millrace.stores.directory import DirectoryStore
from millrace.testing.stores import LARGE_BYTES, key_of


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_base_is_found_and_stays_as_it_was(tmp_path: Path) -> None:
    base = DirectoryStore(tmp_path / "a, base")
    base.put(key_of("small"), 1)
    base.put(key_of("large"), b"1" * LARGE_BYTES)
    base.close()
    before = _files(tmp_path / "a, base")
    store = open_store(f"layered:{str(tmp_path / 'a, base').replace(',', '%2C')},{tmp_path / 'top'}")
    assert store.attach(key_of("small")) == 1
    assert store.put(key_of("small"), 2).value == 1
    assert store.put(key_of("large"), b"2" * LARGE_BYTES).value == b"1" * LARGE_BYTES
    store.put(key_of("new"), 3)
    store.pin(key_of("large"))
    store.flush()
    assert sorted(store.keys()) == sorted(map(key_of, ("small", "large", "new")))
    other = open_store(store.url)
    assert [other.attach(key_of(name)) for name in ("small", "new")] == [1, 3]
    assert other.evict(0) > 0
    assert other.get(key_of("new")) is None
    assert other.attach(key_of("large")) == b"1" * LARGE_BYTES
    other.close()
    store.close()
    assert _files(tmp_path / "a, base") == before


def test_a_base_that_nobody_may_write_to_will_do(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    base = DirectoryStore(tmp_path / "base")
    base.put(key_of("large"), b"1" * LARGE_BYTES)
    base.put(key_of("small"), 1)
    base.close()
    (tmp_path / "top").mkdir()
    os.chown(tmp_path / "top", 65_534, 65_534)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setresuid(65_534, 65_534, 65_534)
            store = open_store(f"layered:{tmp_path / 'base'},{tmp_path / 'top'}")
            store.pin(key_of("large"))
            store.put(key_of("new"), 2)
            found = [store.attach(key_of(name)) for name in ("small", "new", "large")]
            store.close()
            status = 0 if found == [1, 2, b"1" * LARGE_BYTES] else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("url", ["layered:", "layered:one", "layered:a,b,c", "layered:,b"])
def test_a_url_that_does_not_name_two_is_said(url: str) -> None:
    with pytest.raises(WrongQuestion, match="BASE,TOP"):
        open_store(url)

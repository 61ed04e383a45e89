"""Values as bytes: what is kept otherwise than it came is said here, and bytes that are no value are found out."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.run.errors import NotStorable
from millrace.stores import codecs
from millrace.stores.codecs import Damaged, decode, encode
from millrace.testing.stores import same, values


def _image(encoded: codecs.Encoded) -> bytes | None:
    if not encoded.image_bytes:
        return None
    image = bytearray(encoded.image_bytes)
    at = 0
    for offset, chunk in encoded.chunks():
        assert offset >= at, "an image is written front to back"
        image[offset : offset + len(chunk)] = chunk
        at = offset + len(chunk)
    assert at == len(image), "the size was right before anything was written"
    return bytes(image)


@settings(deadline=None, max_examples=120)
@given(values())
def test_any_value_comes_back_with_its_image_and_in_a_container(value: Any) -> None:
    encoded = encode(value)
    assert same(decode(encoded.tree, _image(encoded)), value)
    if encoded.layout == "tree":
        assert same(codecs.read_container(_image(encoded.in_container())), value)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_damaged(data: bytes) -> None:
    for image in (None, b"", data):
        try:
            value = decode(data, image)
        except Damaged:
            continue
        encode(value)


@settings(deadline=None, max_examples=150)
@given(values(), st.data())
def test_a_changed_tree_is_a_value_or_damaged(value: Any, data: st.DataObject) -> None:
    tree = bytearray(encode(value).tree)
    tree[data.draw(st.integers(0, len(tree) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(tree))
    except Damaged:
        return


def test_arrays_of_objects_are_never_read() -> None:
    loaded = pickle.dumps(print)
    for descr in ("|O", ["list"], "O8"):
        content = msgspec.msgpack.encode([descr, [1], "C", loaded])
        with pytest.raises(Damaged):
            decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(codecs.ARRAY, content)))


def test_chunks_with_words_of_their_own_get_common_ones() -> None:
    plain = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "a"]).dictionary_encode()]
    nested = [pa.array([[w]], pa.list_(pa.dictionary(pa.int32(), pa.string()))) for w in "ab"]
    for chunks in (plain, nested):
        for value in (pa.chunked_array(chunks), pa.table({"w": pa.chunked_array(chunks)})):
            encoded = encode(value)
            found = decode(encoded.tree, _image(encoded))
            assert found.to_pylist() == value.to_pylist()
            assert (found.schema if isinstance(value, pa.Table) else found.type) == (
                value.schema if isinstance(value, pa.Table) else value.type
            )


def test_a_map_comes_back_as_an_array(tmp_path: Any) -> None:
    np.save(tmp_path / "a.npy", np.arange(20_000))
    for value in (np.load(tmp_path / "a.npy", mmap_mode="r"), np.load(tmp_path / "a.npy", mmap_mode="r")[:10]):
        encoded = encode(value)
        found = decode(encoded.tree, _image(encoded))
        assert type(found) is np.ndarray
        assert same(value, found)


def test_nesting_has_an_end() -> None:
    value: Any = 1
    for _ in range(codecs.DEPTH):
        value = [value]
    assert decode(encode(value).tree) == value
    with pytest.raises(NotStorable, match="nested"):
        encode([[value]])


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (object(), "without pickle"),
        (np.array([None]), "astype"),
        (np.ma.array([1.0]), "numpy.asarray"),
        (np.array([1]).view(np.recarray), "numpy.asarray"),
        (np.zeros(1, np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 0]})), "astype"),
    ],
    ids=["object", "objects", "masked", "recarray", "overlapping"],
)
def test_a_refusal_says_what_to_do(value: Any, advice: str) -> None:
    with pytest.raises(NotStorable, match=advice):
        encode(value)


def test_frames_are_sent_to_arrow() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for frame, way in ((pandas.DataFrame({"a": [1]}), "from_pandas"), (polars.DataFrame({"a": [1]}), "to_arrow")):
        with pytest.raises(NotStorable, match=way):
            encode({"frame": frame})


GOLDEN: list[tuple[Any, str]] = [
    (["", None, 123, 0.5, b"b"], "95a0c07bcb3fe0000000000000c40162"),
    ((1, 2, "a"), "c70501930102a161"),
    (2**64, "c70902000000000000000001"),
    (1j, "d8030000000000000000000000000000f03f"),
    ("\ud800", "c70304eda080"),
    ({(1,): -1}, "c7060592d5019101ff"),
    (np.float64(0.5), "c70f0692a33c6638c408000000000000e03f"),
    (np.str_("s"), "d50ba173"),
    (np.bytes_(b"b"), "c7030cc40162"),
    (np.arange(3, dtype="<i2"), "c7110794a33c69329103a143c406000001000200"),
    (
        np.zeros(1, [("a", "<i2"), ("b", "S1", (2,))]),
        "c724079492c7070192a161a33c6932c70b0193a162a37c5331d50191029101a143c40400000000",
    ),
]


@pytest.mark.parametrize(("value", "tree"), GOLDEN, ids=[type(value).__name__ + tree[2:4] for value, tree in GOLDEN])
def test_the_format_is_pinned(value: Any, tree: str) -> None:
    """Stores outlive the version that wrote them: these bytes are read for ever, or `layout.LAYOUT` gets another name."""
    assert encode(value).tree.hex() == tree
    assert same(decode(bytes.fromhex(tree)), value)

"""What an attempt does around the call: sizes that decide what stays in a store, failures, parts of its time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from millrace.engines.attempt import Stores, Warm, carry_out, failure_of, is_over
from millrace.run.errors import WrongQuestion
from millrace.run.task import Ref
from millrace.testing import toys


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (b"x" * 1000, 1000),
        ("x" * 1000, 1000),
        (np.zeros(1000), 8000),
        (pa.table({"a": np.zeros(1000)}), 8000),
        ({"a": np.zeros(500), "b": [np.zeros(500)]}, 8000),
        ([1.0] * 1000, 9000),
        ((b"x" * 500, {"deep": [b"x" * 500]}), 1000),
        (None, 0),
        ([], 0),
    ],
)
def test_a_size_is_about_what_it_takes_to_send(value: object, size: int) -> None:
    assert is_over(value, size - 1)
    assert not is_over(value, int(1.1 * size) + 100)


def test_a_long_list_is_not_walked_to_its_end() -> None:
    class Watched(list[float]):
        looked = 0

        def __iter__(self) -> Iterator[float]:
            for member in super().__iter__():
                self.looked += 1
                yield member

    long = Watched([0.5] * 100_000)
    assert is_over(long, 65_536)
    assert 0 < long.looked < 10_000


def test_parts_of_the_time_are_told_and_a_failure_stops_them() -> None:
    warm, stores = Warm(), Stores(None)
    factory = lambda: toys.nap(0.02, 5)  # noqa: E731
    value, extra = carry_out(lambda f: f, lambda r, x: toys.nap(0.01, r + x), [factory], (1,), None, "", warm, stores)
    assert value == 6 and extra.failure is None
    assert extra.enter_ns >= 0.02e9 and extra.unpack_ns + extra.read_ns + extra.write_ns < 0.01e9
    value, extra = carry_out(
        lambda f: f, lambda r, x: r + x, [factory], (Ref("k", "nowhere", 1),), None, "", warm, stores
    )
    assert value is None and extra.enter_ns < 0.01e9
    assert extra.failure is not None and "opener" in extra.failure[1]


def test_what_may_pass_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(lambda f: f, interrupt, (), (), None, "", Warm(), Stores(None), (KeyboardInterrupt,))
    _, extra = carry_out(lambda f: f, interrupt, (), (), None, "", Warm(), Stores(None))
    assert extra.failure is not None and extra.failure[:2] == ("raised", "KeyboardInterrupt")


def test_resources_are_left_in_the_opposite_order() -> None:
    told: list[str] = []

    class Resource:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> str:
            told.append(f"in {self.name}")
            return self.name

        def __exit__(self, *_: object) -> None:
            told.append(f"out {self.name}")

    warm = Warm()
    for name in ("a", "b", "a"):
        assert warm.enter(name, lambda n: lambda: Resource(n)) == name
    warm.leave()
    warm.leave()
    assert told == ["in a", "in b", "out b", "out a"]


def test_an_exception_that_cannot_even_speak_is_a_failure() -> None:
    class Wicked(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    try:
        raise Wicked
    except Wicked as e:
        kind, message, trace = failure_of(e)
    assert kind == "raised" and message.startswith("Wicked: (its message could not be made") and "Wicked" in trace


def test_without_an_opener_a_reference_is_a_clear_error() -> None:
    with pytest.raises(WrongQuestion, match="without an opener"):
        Stores(None).attach((Ref("k", "dir:/nowhere", 1),))

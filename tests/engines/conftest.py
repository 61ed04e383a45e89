"""What the tests of this folder share ends with them."""

from collections.abc import Iterator

import local_dask
import pytest


@pytest.fixture(scope="session", autouse=True)
def no_cluster_is_left() -> Iterator[None]:
    yield
    local_dask.stop()

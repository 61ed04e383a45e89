"""One BLAS thread: by environment before the import, by switch after it, and what was there comes back."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from millrace.host import blas, one_thread, one_thread_environment

_PRODUCT = """
import os, numpy as np
from millrace.host import blas
a = np.ones((600, 600)); a @ a
print(max(library.threads for library in blas()), len(os.listdir("/proc/self/task")))
"""


def _limits() -> list[int]:
    return [library.threads for library in blas()]


def test_blas_of_numpy_is_told() -> None:
    found = blas()
    assert any(library.kind == "blas" for library in found)
    assert all(library.threads >= 1 and library.path for library in found)


def test_inside_it_is_one_and_afterwards_what_it_was() -> None:
    before = _limits()
    with one_thread():
        assert set(_limits()) == {1}
        np.ones((64, 64)) @ np.ones((64, 64))
    assert _limits() == before


def test_it_comes_back_after_an_error_too() -> None:
    before = _limits()
    with pytest.raises(KeyError), one_thread():
        raise KeyError("x")
    assert _limits() == before


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_a_process_with_this_environment_starts_no_threads() -> None:
    environment = {**os.environ, **one_thread_environment()}
    done = subprocess.run([sys.executable, "-c", _PRODUCT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]

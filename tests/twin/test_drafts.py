"""A file has its name when it is whole; what a dead writer left is taken away, what a living one writes is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from millrace.analyses.twin import drafts


def test_a_file_is_whole_or_not_there(tmp_path):
    place = tmp_path / "a.parquet"
    with pytest.raises(KeyError), drafts.draft(place) as making:
        making.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with drafts.draft(place) as making:
        making.write_text("whole")
        assert not place.exists()
    assert place.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_let_be(tmp_path):
    place = tmp_path / "a.parquet"
    code = f"""
import pathlib, sys, time
from millrace.analyses.twin import drafts
with drafts.draft(pathlib.Path({str(place)!r})) as making:
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        (left,) = tmp_path.iterdir()
        os.utime(left, (time.time() - 3_600,) * 2)
        with drafts.draft(place):
            assert left.exists()  # it is locked
        writer.kill()
        writer.wait()
    with drafts.draft(place):
        assert not left.exists()

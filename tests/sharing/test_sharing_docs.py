"""Every snippet of docs/sharing.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text()
SNIPPETS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_recipes_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text("def square(item):\n    return float(item) ** 2\n")
    (tmp_path / "items.txt").write_text("".join(f"{i}\n" for i in range(50)))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for kind, text in SNIPPETS:
        if kind == "bash":
            done = subprocess.run(
                ["bash", "-ec", text], env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
    for night in range(1, 9):
        assert (tmp_path / f"night-{night}" / "results.jsonl").read_text().count("\n") == 20  # --limit
    assert (tmp_path / "at-home" / "results.jsonl").exists()


def test_the_python_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for kind, text in SNIPPETS:
        if kind == "python":
            exec(compile(text, "docs/sharing.md", "exec"), space)
    assert space["values"] == [i * i for i in range(1000)]


def test_the_page_names_the_settings_that_there_are() -> None:
    from millrace.settings import Settings

    for name in ("sharing", "tokens", "placement", "gpu_memory"):
        assert name in Settings.model_fields and f"`{name}`" in PAGE

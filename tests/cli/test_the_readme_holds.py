"""README.md says what is so: every snippet runs in the folder that `make page` furnishes, every command can be given as it is."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from millrace.cli import page
from millrace.cli.main import Faults, root

HOME = Path(__file__).parents[2]
README = (HOME / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tour")
    page.furnish(folder, people=1_500)
    return folder


@pytest.fixture
def inside(tour: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tour)
    monkeypatch.syspath_prepend(str(tour))
    yield tour
    sys.modules.pop("epidemic", None)


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_python_runs(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    snippets = blocks("python")
    assert len(snippets) == 6
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "incentive" in said and "proceed" in said.lower() and "refine" in said.lower() and "contagion" in said
    assert (inside / "explained" / "report.html").exists()


@pytest.mark.parametrize("name", ["README.md", "docs/operating.md"])
def test_every_command_can_be_given(name: str, inside: Path) -> None:
    text = (HOME / name).read_text("utf-8")
    lines = [
        line.split("$ ", 1)[1].partition("#")[0]
        for block in blocks("console", text)
        for line in block.splitlines()
        if "$ " in line
    ]
    commands = [shlex.split(line.rpartition("|")[2])[1:] for line in lines if "millrace " in line]
    assert len(commands) >= 7
    for words in commands:
        given(words)
    made = (HOME / "Makefile").read_text("utf-8")
    for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", README):
        assert re.search(rf"^{name}:", made, re.MULTILINE), name


def given(words: list[str]) -> None:
    """Read a command line down to its last option, and do nothing. `UsageError` when it cannot be so."""
    command: click.Command = root(Faults())
    context, rest = None, words
    while True:
        context = command.make_context(command.name, list(rest), parent=context)
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command = found


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert (HOME / target).exists(), target


def test_the_five_questions_can_be_asked(inside: Path) -> None:
    from millrace import ordering
    from millrace.analyses import catalogue
    from millrace.compose import load_settings, open_jobs

    desk = open_jobs(load_settings({}))
    ordering.register(desk, "model", "visits", Path("visits.txt"))
    for name in ("people", "rows"):
        ordering.register(desk, "data", name, Path(f"{name}.parquet"))
    orders = [ordering.order(desk, analysis, question, label=label) for analysis, label, question in page.questions()]
    desk.table.close()
    assert {job.analysis.split()[0] for job in orders} == {entry.path[0] for entry in catalogue.ENTRIES}

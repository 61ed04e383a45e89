"""What the pages about scaling show is what there is: their files of tiers are read, their commands have their options."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import click
import pytest

from millrace.autoscale.contenders import contenders
from millrace.cli.main import COMMANDS
from millrace.tiers import load_tiers

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("scaling.md", "coming-from-autoscaler.md")
OF_OTHERS = {"--no-deps", "--scale", "--replicas"}
"""Options of docker and kubectl."""


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def options() -> set[str]:
    """Of `up`, `worker` and all of `scale`."""
    entries = {entry.name: entry for entry in COMMANDS}
    scale = entries["scale"].make()
    commands: list[click.Command] = [entries["up"].make(), entries["worker"].make()]
    commands += [entry.make() for entry in scale.entries.values()]  # type: ignore[attr-defined]
    return {name for command in commands for param in command.params for name in param.opts}


@pytest.mark.parametrize("name", PAGES)
def test_the_tiers_shown_can_be_read(name: str, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", page(name), re.DOTALL)
    (tmp_path / "tiers.toml").write_text(textwrap.dedent(shown))
    tiers = load_tiers(tmp_path / "tiers.toml")
    assert tiers.scaler.driver == "compose" and tiers.of_queue("causal").most in (3, 4)


@pytest.mark.parametrize("name", PAGES)
def test_every_option_named_is_one(name: str) -> None:
    assert set(re.findall(r"(?<![-\w])(--[a-z][a-z-]+)", page(name))) <= options() | OF_OTHERS


@pytest.mark.parametrize("name", PAGES)
def test_every_command_named_is_one(name: str) -> None:
    scale = {entry.name: entry for entry in COMMANDS}["scale"].make()
    verbs = set(re.findall(r"millrace scale (\w+)", page(name)))
    assert verbs and verbs <= set(scale.entries)  # type: ignore[attr-defined]


def test_every_driver_has_its_row() -> None:
    from millrace.cli.scaler import DRIVERS

    for driver in DRIVERS:
        assert page("scaling.md").count(f"| `{driver}` |") == 1, driver


def test_every_rule_has_its_line_in_the_tables() -> None:
    for rule in contenders():
        assert page("scaling.md").count(f"| {rule.name} |") == 2, rule.name

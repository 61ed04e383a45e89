"""One model of the question makes the command's options and the Python signature; names, defaults, help agree."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import click
import pytest

import millrace
from millrace.analyses import catalogue
from millrace.analyses.explain.spec import Spec
from millrace.cli.main import COMMANDS, Faults, root
from millrace.cli.options import MACHINE, QUESTION, flag, machine_options

FIRST = {"model": "model", "data": "X"}
"""How Python calls the two that come first; the rest is called as the field is."""
OF_THE_TERMINAL = {"nice", "bundle", "dask_report"}
OF_A_RUN = {"bundle", "dask_report"}
"""Of Python's `Run` only, which the analyses can share."""
OF_PYTHON = {"progress", "run"}


def options(*path: str) -> dict[str, click.Parameter]:
    """The parameters of a command of the real command line."""
    command: click.Command = root(Faults())
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return {param.name or "": param for param in command.params}


def given_by_default(param: click.Parameter) -> Any:
    """What the command gets when the option is not there."""
    command = click.Command("x", params=[param], callback=lambda **given: given)
    return next(iter(command.main([], standalone_mode=False).values()))


@pytest.mark.parametrize("path", [("explain",), ("plan", "explain")])
def test_every_field_of_the_question_is_an_option_with_its_default_and_help(path: tuple[str, ...]) -> None:
    found = options(*path)
    asked = [name for name, param in found.items() if getattr(param, "section", "") == QUESTION]
    assert asked == list(Spec.model_fields)
    for name, field in Spec.model_fields.items():
        param = found[name]
        assert isinstance(param, click.Option)
        assert param.opts == [flag(name)]
        assert param.help == field.description
        assert param.required == field.is_required()
        if not field.is_required():
            assert given_by_default(param) == field.default


def test_python_takes_the_fields_in_their_order_with_their_defaults_and_then_the_machine() -> None:
    parameters = list(inspect.signature(millrace.explain).parameters.values())
    fields = Spec.model_fields
    assert [p.name for p in parameters[: len(fields)]] == [FIRST.get(n, n) for n in fields]
    for parameter, field in zip(parameters, fields.values(), strict=False):
        wanted = inspect.Parameter.empty if field.is_required() else field.default
        assert parameter.default == wanted
    assert {p.name for p in parameters[: len(FIRST)]} == set(FIRST.values())
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(FIRST) :])


def test_the_machine_is_asked_for_alike_by_python_and_by_the_command() -> None:
    ours = {option.name for option in machine_options()}
    assert "fit" in options("explain")  # of questions that have a plan, in both
    theirs = set(inspect.signature(millrace.explain).parameters) - {FIRST.get(n, n) for n in Spec.model_fields}
    assert ours | {"fit"} == theirs - OF_PYTHON | OF_THE_TERMINAL
    of_run = set(inspect.signature(millrace.Run).parameters)
    assert ours - (OF_THE_TERMINAL - OF_A_RUN) == of_run - OF_PYTHON


def test_defaults_of_the_machine_are_left_to_the_settings() -> None:
    for option in machine_options():
        assert given_by_default(option) == (0 if option.name == "seed" else None)


@pytest.mark.parametrize("name", [entry.name for entry in catalogue.ENTRIES])
def test_every_analysis_of_the_catalogue_has_its_command_and_its_plan(name: str) -> None:
    entry = catalogue.find(name)
    assert options(*entry.path)
    if entry.plan:
        assert options("plan", *entry.path)


@pytest.mark.parametrize("name", [entry.name for entry in catalogue.ENTRIES])
def test_every_room_of_the_catalogue_is_there(name: str) -> None:
    entry = catalogue.find(name)
    for room in ("spec", "analysis", *(("facts", "plan") if entry.plan else ())):
        assert callable(entry.load(room)), room
    for module in entry.preload:
        assert find_spec(module) is not None


@pytest.mark.parametrize("path", [("calibrate", "run"), ("plan", "calibrate", "run"), ("calibrate", "probe")])
def test_simple_fields_of_a_question_in_a_file_are_options_that_change_it(path: tuple[str, ...]) -> None:
    found = options(*path)
    fields = catalogue.find("calibrate").load("spec").model_fields
    nested = {name for name, field in fields.items() if field.json_schema_extra == {"in_file": True}}
    asked = [name for name, param in found.items() if getattr(param, "section", "") == QUESTION]
    assert asked == ["study", *(name for name in fields if name not in nested)]
    assert all(given_by_default(found[name]) is None for name in asked[1:])
    assert {"parameters", "targets"} <= nested


def test_python_takes_the_fields_of_calibrate_in_their_order_with_their_defaults() -> None:
    spec = catalogue.find("calibrate").load("spec")
    parameters = list(inspect.signature(millrace.calibrate).parameters.values())[: len(spec.model_fields)]
    assert [p.name for p in parameters] == list(spec.model_fields)
    asked = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    needed = {"simulate": "a:b", "parameters": {"x": (0, 1)}, "targets": {"y": {"data": [1]}}}
    given = {name: value for name, value in asked.items() if value is not None}
    assert spec(**needed, **given) == spec(**needed)


def walk(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            found += walk(inner, (*path, name))
    return found


def test_every_entry_of_the_tables_names_a_command_whose_options_all_have_help() -> None:
    commands = walk(root(Faults()))
    assert len(commands) > len(COMMANDS)
    for path, command in commands:
        assert command.help, path
        for param in command.params:
            if getattr(param, "hidden", False):  # what millrace's own processes say to each other
                continue
            record = param.get_help_record(click.Context(command))
            assert record is not None, (path, param)
            assert record[1], (path, param)


def test_no_two_commands_have_one_name() -> None:
    names = [entry.name for entry in COMMANDS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", [entry.name for entry in catalogue.ENTRIES])
def test_what_has_a_plan_can_be_made_to_fit(name: str) -> None:
    entry = catalogue.find(name)
    assert ("fit" in options(*entry.path)) == bool(entry.plan)


def test_help_stands_in_sections() -> None:
    command = root(Faults()).get_command(click.Context(click.Group()), "explain")
    assert command is not None
    told = command.get_help(click.Context(command, info_name="explain"))
    assert (
        told.index(QUESTION)
        < told.index("--model")
        < told.index(MACHINE)
        < told.index("--engine")
        < told.index("--json")
    )

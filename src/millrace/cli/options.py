"""Options: those of a question, made from the fields of its pydantic model, and those of the machine.

The same model makes the signature of the Python function, so that names, defaults and help never differ.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from millrace.run.errors import WrongQuestion
from millrace.run.units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

QUESTION, MACHINE, SAID = "The question", "The machine", "What is said"


class Option(click.Option):
    """An option with the section of the help in which it stands."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Argument(click.Argument):
    """An argument that the help tells about, which click leaves to the command's text."""

    section = QUESTION

    def __init__(self, declared: Sequence[str], metavar: str, about: str, **kwargs: Any) -> None:
        super().__init__(declared, metavar=metavar, **kwargs)
        self._record = (metavar, about)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self._record


class Sectioned(click.Command):
    """A command whose help lists its options by section."""

    def __init__(
        self, name: str, *, params: Sequence[click.Parameter], callback: Callable[..., int], help: str
    ) -> None:
        super().__init__(name, params=list(params), callback=callback, help=help)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", SAID), []).append(record)
        for name in sorted(sections, key=[QUESTION, MACHINE, SAID].index):
            with formatter.section(name):
                formatter.write_dl(sections[name])


class Measure(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Text such as "4GiB" or "9h", kept as it was written once it is known to be readable."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._parse(value)
        except WrongQuestion as wrong:
            self.fail(str(wrong), param, ctx)
        return value


SIZE = Measure("size", parse_bytes)
DURATION = Measure("duration", parse_duration)


def flag(name: str) -> str:
    """`max_evaluations` is --max-evaluations."""
    return f"--{name.replace('_', '-')}"


def spec_options(spec: type[BaseModel], in_file: bool = False) -> list[Option]:
    """One option a field: its name, default, bounds and description.

    in_file: the question lies in a file. Its nested fields have no option, and the others no default: what is not given is as
    the file says.
    """
    fields = spec.model_fields.items()
    return [_of_field(name, field, in_file) for name, field in fields if not (in_file and _nested(field))]


def file_argument() -> Argument:
    """The file in which a question lies."""
    return Argument(["study"], "STUDY.toml", "the question, as a TOML file", type=click.Path())


def _nested(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and "in_file" in field.json_schema_extra


def machine_options(without: Iterable[str] = ()) -> list[Option]:
    """Where and within what to run. Without a default here: what is not given is as the settings say."""
    found = [
        _machine(
            "engine",
            "auto|inline|processes|dask|dask=ADDRESS",
            str,
            "where tasks run (not given: as the settings say, auto)",
        ),
        _machine(
            "cores",
            "N",
            click.IntRange(min=1),
            "tasks at once (not given: all cores that this process may use)",
        ),
        _machine(
            "memory",
            "SIZE",
            SIZE,
            "for all processes together, such as 4GiB (not given: 3/4 of what is free)",
        ),
        _machine("seed", "N", int, "for everything random", default=0, show_default=True),
        _machine(
            "store",
            "STORE",
            click.Path(file_okay=False),
            "where finished work is kept and found again: a folder, redis://HOST, s3://BUCKET/FOLDER, layered:BASE,TOP",
        ),
        _machine("out", "DIR", click.Path(file_okay=False), "where the answer goes (not given: millrace-runs/RUN)"),
        _machine(
            "deadline",
            "DURATION",
            DURATION,
            "stop after this long, such as 9h, and answer with what there is",
        ),
        _machine("nice", "N", click.IntRange(0, 19), "give way to other programs, 0 to 19"),
        _machine("bundle", "DIR", click.Path(file_okay=False), "your modules, for Dask workers that do not have them"),
        _machine("dask_report", "FILE", click.Path(dir_okay=False), "where Dask's own performance report goes (HTML)"),
    ]
    return [option for option in found if option.name not in set(without)]


def said_options(without: Iterable[str] = ()) -> list[Option]:
    """What is said, and the exit code."""
    found = [
        _flag("json", "print result.json on stdout and nothing else there"),
        _flag("quiet", "say nothing but errors"),
        _flag("fail_on_no", "exit code 1 when the analysis says no"),
        _flag("timing_log", "workers write a SIM_TIMING line for each task on stderr"),
        _flag("profile", "sample what tasks are doing: top functions and flame graphs in the report"),
    ]
    return [option for option in found if option.name not in set(without)]


def question_of(spec: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the question that were given; the others have their defaults."""
    return {name: given[name] for name in spec.model_fields if given.get(name) is not None}


def json_option() -> Option:
    return _flag("json", "print JSON on stdout and nothing else there")


def _machine(name: str, metavar: str, kind: Any, help: str, **more: Any) -> Option:
    return Option([flag(name)], metavar=metavar, type=kind, help=help, section=MACHINE, **more)


def _flag(name: str, help: str) -> Option:
    return Option([flag(name)], is_flag=True, help=help, section=SAID)


def _of_field(name: str, field: FieldInfo, in_file: bool) -> Option:
    kind, metavar = _kind(field)
    needed = field.is_required() and not in_file
    help_text = field.description
    if in_file and field.default not in (None, (), {}) and not field.is_required():
        help_text = f"{help_text} (where the file says nothing: {field.default})"
    default = None if field.default in ((), {}) else field.default
    more: dict[str, Any] = {} if needed or in_file else {"default": default, "show_default": default is not None}
    if kind is bool and not in_file:  # "--stream" says yes, "--stream false" no; beside a file's name it takes a word
        metavar, more = "[BOOLEAN]", {**more, "is_flag": False, "flag_value": True}
    return Option(
        [flag(name)],
        type=kind,
        metavar=metavar,
        required=needed,
        help=help_text,
        section=QUESTION,
        **more,
    )


def _kind(field: FieldInfo) -> tuple[Any, str | None]:
    """click's type of a field and how it stands in the help."""
    inner = _without_none(field.annotation)
    if get_origin(inner) is Annotated:
        inner = get_args(inner)[0]
    if isinstance(field.json_schema_extra, dict):  # a field of any type that says itself how it is written
        return str, str(field.json_schema_extra["metavar"])
    if inner is Any:
        return click.Path(), "FILE"
    if get_origin(inner) is Literal:
        return click.Choice([str(value) for value in get_args(inner)]), None
    if inner is bool:
        return bool, None
    if inner in (int, float):
        return _bounded(inner, field.metadata), "N"
    if inner is str:
        return str, "NAME"
    if get_origin(inner) is tuple:
        return str, "NAME,NAME,..."
    if get_origin(inner) in (dict, Mapping):
        return str, "NAME=VALUE,..."
    raise TypeError(f"a field of type {inner!r} has no option yet: say here how the command line writes it")


def _bounded(kind: type, metadata: Sequence[Any]) -> Any:
    low = next((m.ge for m in metadata if getattr(m, "ge", None) is not None), None)
    high = next((m.le for m in metadata if getattr(m, "le", None) is not None), None)
    ranged = click.IntRange if kind is int else click.FloatRange
    return ranged(low, high) if low is not None or high is not None else kind


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        kept = [a for a in get_args(annotation) if a is not type(None)]
        return kept[0] if len(kept) == 1 else annotation
    return annotation

"""The machine's settings: where things lie and how much of the machine a run may take, never what is computed.

A value is taken from the first of these that gives it: the call or the command line; the environment (MILLRACE_...);
millrace.toml, or [tool.millrace] of pyproject.toml, in the nearest directory upwards that has one; the user's file
(~/.config/millrace/millrace.toml); the default. Each value remembers where it came from. Finds nothing out about
the machine (see `host`) and builds nothing (see `compose`).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes, parse_bytes
from millrace.run.urls import is_url, spoken

_PREFIX = "MILLRACE_"
_FILE = "millrace.toml"
_HEADER = re.compile(r"^\s*\[\s*tool\s*\.\s*millrace\s*\]", re.MULTILINE)
_MUCH_ALIKE = 0.8


def _progress(value: object) -> object:
    """TOML has true and false, which say it as well."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _no_truth(value: object) -> object:
    """pydantic would read true as 1."""
    if isinstance(value, bool):
        raise WrongQuestion("a number is wanted.")
    return value


def _some_path(value: object) -> object:
    """pydantic would read "" as the current directory."""
    if value == "":
        raise WrongQuestion("it is empty.")
    return value


def _place(value: object) -> object:
    """A url stays text, all else is a path."""
    value = _some_path(value)
    return value if not isinstance(value, str) or is_url(value) else Path(value)


def _url(value: object) -> object:
    if not isinstance(value, str) or not re.match(r"https?://[^/\s]", value):
        raise WrongQuestion("it is no http:// or https:// address.")
    return value


def _cache_home(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    """By the XDG rules: a relative value there is not valid and does not count."""
    told = environ.get(name, "")
    if os.path.isabs(told):
        return Path(told)
    home = environ.get("HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~"), below_home)


def _list(value: object) -> object:
    """Several, with commas between them where it is text."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


_Progress = Annotated[Literal["auto", "on", "off"], BeforeValidator(_progress)]
_OnOff = Annotated[Literal["on", "off"], BeforeValidator(_progress)]
_Path = Annotated[Path, BeforeValidator(_some_path)]
_Place = Annotated[Path | str, BeforeValidator(_place)]
_Url = Annotated[str, BeforeValidator(_url)]
_Paths = Annotated[tuple[Path, ...], BeforeValidator(_list)]
_Texts = Annotated[tuple[str, ...], BeforeValidator(_list)]
_Number = Annotated[int, BeforeValidator(_no_truth)]
_Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


class Settings(BaseModel):
    """What this machine gives to millrace. Paths are absolute once loaded; None is "find out when it is needed"."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    store: _Place = Field(
        default_factory=lambda: _cache_home(os.environ) / "millrace" / "store",
        description="where results are kept that runs share: a directory of this user, redis://, s3://, gs://, az://, or "
        "layered:BASE,TOP",
    )
    cache: _Path = Field(
        default_factory=lambda: _cache_home(os.environ) / "millrace" / "copies",
        description="directory of the copies that this host keeps of large values of a store elsewhere",
    )
    store_limit: _Bytes = Field(
        default=10 << 30,
        description="the store is kept below this size; what was not used for longest goes first",
    )
    scratch: _Path | None = Field(
        default=None,
        description="directory for large files of a run, on a disk; by default the first of $TMPDIR, /var/tmp, /tmp "
        "and the user's cache that is one and has room",
    )
    runs: _Path = Field(
        default=Path("millrace-runs"),
        description="directory of the ledgers and results of runs",
    )
    jobs: _Path = Field(
        default=Path("millrace-jobs"),
        description="directory of durable jobs: their table, inputs, results and logs",
    )
    database: str | None = Field(
        default=None,
        min_length=1,
        description="where the job table is, postgresql://HOST/NAME; by default SQLite in the directory of jobs",
    )
    broker: str | None = Field(
        default=None,
        min_length=1,
        description="what wakes workers of jobs on other hosts, redis://HOST:PORT/0; by default they look at the table",
    )
    tiers: _Path | None = Field(
        default=None,
        description="TOML file of the tiers, queues and routes of jobs; by default those of millrace",
    )
    webhook: _Url | None = Field(
        default=None,
        description="https://... that is told of scaling events, as Slack reads them; by default nobody is",
    )
    engine: str = Field(
        default="auto",
        min_length=1,
        description="where tasks run; auto is inline for work shorter than the start of a pool",
    )
    cores: _Number | None = Field(
        default=None,
        ge=1,
        description="how many tasks run at once; by default whole cores that affinity, cpuset and quotas allow",
    )
    memory: _Bytes | None = Field(
        default=None,
        description="what a run may hold in all its processes; by default three quarters of what is free at its start",
    )
    nice: _Number = Field(
        default=0,
        ge=0,
        le=19,
        description="how much workers give way to other programs, 0 to 19",
    )
    sharing: _OnOff = Field(
        default="on",
        description="runs share the cores and memory of this host with other runs of this user: on, or off",
    )
    tokens: _Path | None = Field(
        default=None,
        description="directory of the locks by which runs share this host, on a disk of it; by default in /var/tmp, /tmp or "
        "the user's cache",
    )
    placement: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|gpu|gpu:\d+(,\d+)*)$",
        description="where kernels with two bodies run: auto (by measurement), cpu, gpu, or gpu:0,2",
    )
    gpu_memory: Annotated[float, BeforeValidator(_no_truth)] = Field(
        default=0.9,
        gt=0,
        le=1,
        description="what a run may take of a GPU's memory, 0 to 1",
    )
    core_hour_price: Annotated[float, BeforeValidator(_no_truth)] = Field(
        default=0.08,
        ge=0,
        description="what an hour of one core costs, for the money that a plan tells; the default is an example",
    )
    service_tokens: _Path | None = Field(
        default=None,
        description="TOML file of the tokens of the HTTP service (see `millrace token`); without, it serves this machine alone",
    )
    roots: _Paths = Field(
        default=(),
        description="directories whose files clients of the service may name, separated by commas",
    )
    functions: _Texts = Field(
        default=(),
        description="functions and modules that clients of the service may name, such as simulate:one_run, study:*",
    )
    upload_limit: _Bytes = Field(
        default=1 << 30,
        description="the largest model or data that a client of the service may send",
    )
    upload_quota: _Bytes = Field(
        default=20 << 30,
        description="how much a user of the service may keep of what they have sent",
    )
    open_jobs: _Number = Field(
        default=100,
        ge=1,
        description="how many jobs a user of the service may have queued or running",
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="the service that `millrace --url` and mr.connect() ask, such as http://127.0.0.1:8373",
    )
    url_token: str | None = Field(
        default=None,
        min_length=1,
        description="the token for that service; better in the environment than in a file",
    )
    progress: _Progress = Field(
        default="auto",
        description="a progress line: on, off, or auto (when somebody watches a terminal)",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where a value came from: "default", "user file PATH:LINE", "file PATH:LINE", "environment MILLRACE_..." or
        "command line"."""
        if name not in type(self).model_fields:
            raise WrongQuestion(_unknown(name, "Settings.origin"))
        return self._origins.get(name, "command line" if name in self.model_fields_set else "default")

    def show(self) -> tuple[Row, ...]:
        """All settings in the order of this class, as text."""
        fields = type(self).model_fields
        return tuple(Row(n, _text(n, getattr(self, n)), self.origin(n), fields[n].description or "") for n in fields)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as people read it."""

    name: str
    value: str
    origin: str
    help: str


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, where, and the directory that a relative path in it belongs to."""

    value: Any
    origin: str
    base: Path


def load(
    explicit: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> Settings:
    """Settings from everywhere. In `explicit` a None is "not given".

    Raises `WrongQuestion`: an unknown name, a value that cannot be, a file that cannot be read; each with its place.
    """
    seen = os.environ if environ is None else environ
    here = Path(cwd or os.getcwd()).absolute()
    given = _from_files(here, seen)
    given |= _from_environment(seen, here)
    given |= _from_call(explicit or {}, here)
    defaults = {
        "store": _Given(_cache_home(seen) / "millrace" / "store", "default", here),
        "cache": _Given(_cache_home(seen) / "millrace" / "copies", "default", here),
        "runs": _Given(Settings.model_fields["runs"].default, "default", here),
        "jobs": _Given(Settings.model_fields["jobs"].default, "default", here),
    }
    return _validated(defaults | given, _home(seen))


def _validated(given: dict[str, _Given], home: Path) -> Settings:
    paths = {"store", "cache", "scratch", "runs", "tokens", "jobs", "tiers", "service_tokens"}
    if (roots := given.get("roots")) is not None and isinstance(several := _list(roots.value), list | tuple):
        absolute = tuple(_absolute(one, roots.base, home) for one in several)
        given = given | {"roots": _Given(absolute, roots.origin, roots.base)}
    values = {n: _absolute(g.value, g.base, home) if n in paths else g.value for n, g in given.items()}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as wrong:
        raise WrongQuestion(" ".join(_complaint(error, given) for error in wrong.errors())) from wrong
    settings._origins.update({name: one.origin for name, one in given.items()})
    return settings


def _absolute(value: Any, base: Path, home: Path) -> Any:
    if not isinstance(value, str | Path) or not str(value):
        return value  # pydantic says what is wrong with it
    if isinstance(value, str) and is_url(value):
        return value
    parts = Path(value).parts
    expanded = home.joinpath(*parts[1:]) if parts[:1] == ("~",) else Path(value)
    return Path(os.path.normpath(base / expanded))


def _complaint(error: Any, given: Mapping[str, _Given]) -> str:
    name = str(error["loc"][0])
    one = given[name]
    reason = str(error["ctx"]["error"]) if error["type"] == "value_error" else f"{error['msg']}."
    about = Settings.model_fields[name].description
    return f"The setting {name!r} from {one.origin} cannot be {one.value!r}: {reason} It is: {about}."


def _from_call(explicit: Mapping[str, Any], here: Path) -> dict[str, _Given]:
    for name in explicit:
        if name not in Settings.model_fields:
            raise WrongQuestion(_unknown(name, "the call"))
    return {name: _Given(value, "command line", here) for name, value in explicit.items() if value is not None}


def _from_environment(environ: Mapping[str, str], here: Path) -> dict[str, _Given]:
    """Variables that are set and not empty. One that looks like a slip of the pen is an error; others with the prefix
    may belong to somebody else (a tool that wraps millrace) and are let be."""
    known = {name.upper(): name for name in Settings.model_fields}
    found = {}
    for variable, value in environ.items():
        tail = variable.removeprefix(_PREFIX)
        if tail == variable or not value:
            continue
        if tail in known:
            found[known[tail]] = _Given(value, f"environment {variable}", here)
        elif alike := difflib.get_close_matches(tail, known, 1, _MUCH_ALIKE):
            raise WrongQuestion(
                f"The environment has {variable}, which is no setting of millrace: is {_PREFIX}{alike[0]} meant?"
            )
    return found


def _from_files(here: Path, environ: Mapping[str, str]) -> dict[str, _Given]:
    found = _from_file(_xdg(environ, "XDG_CONFIG_HOME", ".config") / "millrace" / _FILE, "user file") or {}
    for directory in (here, *here.parents):
        for name in (_FILE, "pyproject.toml"):
            nearest = _from_file(directory / name, "file")
            if nearest is not None:
                return found | nearest
    return found


def _from_file(path: Path, kind: str) -> dict[str, _Given] | None:
    """The settings of one file; None when there is no such file, or it is a pyproject.toml without any."""
    if not os.path.isfile(path):  # unlike Path.is_file, a directory that may not be searched is no file
        return None
    text = _read(path)
    own = path.name == _FILE
    if not own and "millrace" not in text:
        return None  # most of them: not worth parsing
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise WrongQuestion(f"{path} is not a TOML file: {wrong}.") from wrong
    settings = table if own else table.get("tool", {}).get("millrace")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise WrongQuestion(f"{path}: tool.millrace is {settings!r} and not a table of settings.")
    header = None if own else _HEADER.search(text)
    first = text.count("\n", 0, header.end()) + 1 if header else 1
    found = {}
    for name, value in settings.items():
        place = f"{path}:{line}" if (line := _line_of(name, text, first)) else str(path)
        if name not in Settings.model_fields:
            raise WrongQuestion(_unknown(name, place))
        found[name] = _Given(value, f"{kind} {place}", path.parent)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        raise WrongQuestion(f"The settings in {path} cannot be read: {wrong}.") from wrong


def _line_of(name: str, text: str, first: int) -> int | None:
    """tomllib does not tell lines; a key or table of this name at the start of one is it, as good as always."""
    key = re.compile(rf"""\s*\[?\s*["']?{re.escape(name)}["']?\s*[=\].]""")
    lines = text.splitlines()
    return next((number for number in range(first, len(lines) + 1) if key.match(lines[number - 1])), None)


def _unknown(name: str, place: str) -> str:
    alike = difflib.get_close_matches(name, Settings.model_fields, 1)
    hint = f"is {alike[0]!r} meant?" if alike else f"there are {', '.join(Settings.model_fields)}."
    return f"{place}: {name!r} is no setting of millrace; {hint}"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def _text(name: str, value: Any) -> str:
    if value is None:
        return "none" if name in {"service_tokens", "url", "url_token", "webhook"} else "found out when needed"
    if name in {"memory", "store_limit", "upload_limit", "upload_quota"}:
        return format_bytes(value)
    if name == "url_token":
        return "(not shown)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if name == "webhook":  # what comes after the host is a secret
        return "/".join([*spoken(value).split("/")[:3], "..."])
    return spoken(str(value)) if name in {"store", "database", "broker"} else str(value)

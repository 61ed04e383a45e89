"""Settings: the nearest source wins, each value says where it came from, and a mistake names its place."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from pydantic import ValidationError

from millrace.run.errors import WrongQuestion
from millrace.settings import Settings, load

_SOURCES = ("user file", "file", "environment", "command line")


def _home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir(exist_ok=True)
    return {"HOME": str(tmp_path / "home")}


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _user_file(tmp_path: Path, text: str) -> Path:
    return _write(tmp_path / "home" / ".config" / "millrace" / "millrace.toml", text)


def test_without_anything_all_are_defaults(tmp_path: Path) -> None:
    found = load(environ=_home(tmp_path), cwd=tmp_path)
    assert found.store == tmp_path / "home/.cache/millrace/store"
    assert found.runs == tmp_path / "millrace-runs"
    assert (found.store_limit, found.engine, found.nice) == (10 << 30, "auto", 0)
    assert found.cores is found.memory is found.scratch is None
    assert {row.origin for row in found.show()} == {"default"}


@pytest.mark.parametrize("given", [c for size in range(1, 5) for c in combinations(_SOURCES, size)])
def test_the_nearest_source_wins_and_is_remembered(tmp_path: Path, given: tuple[str, ...]) -> None:
    environ, explicit = _home(tmp_path), {}
    if "user file" in given:
        _user_file(tmp_path, "# mine\nnice = 1\n")
    if "file" in given:
        _write(tmp_path / "project" / "millrace.toml", "nice = 2\n")
    if "environment" in given:
        environ["MILLRACE_NICE"] = "3"
    if "command line" in given:
        explicit["nice"] = 4
    (tmp_path / "project" / "deep").mkdir(parents=True, exist_ok=True)
    found = load(explicit, environ, tmp_path / "project" / "deep")
    assert found.nice == 1 + max(_SOURCES.index(source) for source in given)
    assert (
        found.origin("nice")
        == {
            1: f"user file {tmp_path}/home/.config/millrace/millrace.toml:2",
            2: f"file {tmp_path}/project/millrace.toml:1",
            3: "environment MILLRACE_NICE",
            4: "command line",
        }[found.nice]
    )
    assert found.origin("cores") == "default"


def test_sources_are_joined_value_by_value(tmp_path: Path) -> None:
    _user_file(tmp_path, 'memory = "2GiB"\ncores = 1\n')
    _write(tmp_path / "millrace.toml", "cores = 3\n")
    found = load({"nice": 5, "engine": None}, {**_home(tmp_path), "MILLRACE_PROGRESS": "off"}, tmp_path)
    assert (found.memory, found.cores, found.nice, found.progress, found.engine) == (
        2 << 30,
        3,
        5,
        "off",
        "auto",
    )
    assert found.origin("engine") == "default"


def test_pyproject_is_read_where_it_has_a_table_and_passed_over_where_not(tmp_path: Path) -> None:
    text = '[project]\nname = "x"\ndependencies = ["millrace"]\ncores = 9\n\n[tool.millrace]\n# all of it\ncores = 2\n'
    outer = _write(tmp_path / "pyproject.toml", text)
    _write(tmp_path / "inner" / "pyproject.toml", '[project]\ndependencies = ["millrace"]\n')
    found = load(environ=_home(tmp_path), cwd=tmp_path / "inner")
    assert (found.cores, found.origin("cores")) == (2, f"file {outer}:8")
    _write(tmp_path / "millrace.toml", "nice = 1")
    assert load(environ=_home(tmp_path), cwd=tmp_path / "inner").cores is None  # one file speaks for a directory
    inline = _write(tmp_path / "other" / "pyproject.toml", "tool = {millrace = {cores = 4}}\n")
    found = load(environ=_home(tmp_path), cwd=inline.parent)
    assert (found.cores, found.origin("cores")) == (4, f"file {inline}")


def test_paths_belong_to_where_they_are_written(tmp_path: Path) -> None:
    _user_file(tmp_path, 'store = "~/big"\n')
    _write(tmp_path / "project" / "millrace.toml", 'runs = "../out"\n')
    (tmp_path / "project" / "deep").mkdir()
    found = load({"scratch": "s"}, _home(tmp_path), tmp_path / "project" / "deep")
    assert found.store == tmp_path / "home" / "big"
    assert found.runs == tmp_path / "out"
    assert found.scratch == tmp_path / "project" / "deep" / "s"


def test_xdg_directories_are_followed_when_they_are_absolute(tmp_path: Path) -> None:
    _write(tmp_path / "config" / "millrace" / "millrace.toml", "cores = 7\n")
    xdg = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = load(environ={**_home(tmp_path), **xdg}, cwd=tmp_path)
    assert (found.cores, found.store) == (7, tmp_path / "cache/millrace/store")
    relative = load(environ={**_home(tmp_path), "XDG_CACHE_HOME": "cache"}, cwd=tmp_path)
    assert relative.store == tmp_path / "home/.cache/millrace/store"


def test_an_unknown_name_tells_file_line_and_the_nearest_right_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "millrace.toml", '# memroy = 3\ncores = 2\nmemroy = "4GiB"\n')
    with pytest.raises(WrongQuestion) as wrong:
        load(environ=_home(tmp_path), cwd=tmp_path)
    assert f"{path}:3" in str(wrong.value)
    assert "is 'memory' meant?" in str(wrong.value)
    _write(path, "[kettles]\nheavy = 1\n")
    with pytest.raises(WrongQuestion, match=r"millrace.toml:1: 'kettles' is no setting .*store_limit"):
        load(environ=_home(tmp_path), cwd=tmp_path)
    path.unlink()
    with pytest.raises(WrongQuestion, match="the call: 'core' is no setting of millrace; is 'cores' meant"):
        load({"core": 2}, _home(tmp_path), tmp_path)


def test_a_misspelt_variable_is_an_error_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match=r"MILLRACE_MEMROY.*is MILLRACE_MEMORY meant"):
        load(environ={**_home(tmp_path), "MILLRACE_MEMROY": "4GiB"}, cwd=tmp_path)
    foreign = {"MILLRACE_OPERATOR_VERSION": "2", "MILLRACE_CORES": "", "PATH": "/bin"}
    assert load(environ={**_home(tmp_path), **foreign}, cwd=tmp_path).cores is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("memory", "4G", "4GiB"),
        ("memory", 0, "greater than 0"),
        ("store_limit", "lots", "not a size"),
        ("cores", 0, "greater than or equal to 1"),
        ("cores", True, "a number is wanted"),
        ("cores", 2.5, "valid integer"),
        ("nice", -1, "greater than or equal to 0"),
        ("nice", 20, "less than or equal to 19"),
        ("progress", "maybe", "'auto', 'on' or 'off'"),
        ("scratch", "", "it is empty"),
        ("engine", "", "at least 1 character"),
        ("runs", 3, "not a valid path"),
    ],
)
def test_a_wrong_value_tells_name_value_place_and_reason(tmp_path: Path, name: str, value: object, reason: str) -> None:
    with pytest.raises(WrongQuestion) as wrong:
        load({name: value}, _home(tmp_path), tmp_path)
    assert reason in str(wrong.value)
    assert f"'{name}' from command line cannot be {value!r}" in str(wrong.value)
    assert wrong.value.exit_code == 2


def test_a_wrong_value_in_a_file_or_variable_tells_which(tmp_path: Path) -> None:
    path = _write(tmp_path / "millrace.toml", '\nmemory = "4G"\n')
    with pytest.raises(WrongQuestion, match=f"file {path}:2 cannot be '4G'"):
        load(environ=_home(tmp_path), cwd=tmp_path)
    with pytest.raises(WrongQuestion, match="environment MILLRACE_CORES cannot be 'two'"):
        load(environ={**_home(tmp_path), "MILLRACE_CORES": "two"}, cwd=tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("millrace.toml", b"cores = \n", "not a TOML file.*line 1"),
        ("millrace.toml", b"\xff\xfe", "cannot be read"),
        ("pyproject.toml", b"[tool]\nmillrace = 3\n", "not a table of settings"),
    ],
)
def test_a_file_that_is_none_is_an_error(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongQuestion, match=reason):
        load(environ=_home(tmp_path), cwd=tmp_path)


def test_truth_values_of_toml_say_on_and_off(tmp_path: Path) -> None:
    _write(tmp_path / "millrace.toml", "progress = false\n")
    assert load(environ=_home(tmp_path), cwd=tmp_path).progress == "off"


def test_settings_are_frozen_closed_and_can_be_carried(tmp_path: Path) -> None:
    found = load({"cores": 2, "memory": "3GiB"}, _home(tmp_path), tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        found.cores = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="core"):
        Settings(core=3)  # type: ignore[call-arg]
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert again.origin("cores") == "command line"
    with pytest.raises(WrongQuestion, match="'core' is no setting"):
        found.origin("core")


def test_every_setting_is_shown_and_explained(tmp_path: Path) -> None:
    rows = load({"memory": 6 << 30}, _home(tmp_path), tmp_path).show()
    assert [row.name for row in rows] == list(Settings.model_fields)
    assert all(len(row.help) > 10 for row in rows)
    assert {row.name: row.value for row in rows}["memory"] == "6GiB"


def test_every_setting_can_come_from_its_variable(tmp_path: Path) -> None:
    values = {
        "store": "/s", "store_limit": "1GiB", "scratch": "/x", "runs": "/r", "engine": "inline", "cores": "3",
        "memory": "2GiB", "nice": "4", "progress": "on", "cache": "/c", "core_hour_price": "0.2",
        "sharing": "off", "tokens": "/t", "placement": "gpu:0,2", "gpu_memory": "0.5",
        "jobs": "/j", "database": "postgresql://h/d", "tiers": "/t", "broker": "redis://h/0", "webhook": "https://hooks.example/...",
        "service_tokens": "/k", "roots": "/a, /b", "functions": "work:*, study:loss", "upload_limit": "1MiB", "open_jobs": "7",
        "upload_quota": "3GiB",
        "url": "http://h:1", "url_token": "mr_x",
    }  # fmt: skip
    assert set(values) == set(Settings.model_fields)
    environ = {f"MILLRACE_{name.upper()}": value for name, value in values.items()}
    found = load(environ={**_home(tmp_path), **environ}, cwd=tmp_path)
    assert {row.name: row.value for row in found.show()} == {**values, "url_token": "(not shown)"}
    assert all(row.origin == f"environment MILLRACE_{row.name.upper()}" for row in found.show())


@pytest.mark.parametrize(
    "url",
    ["redis://host:6379/0", "s3://bucket/folder", "layered:/base,redis://h/1", "file:///mnt/x", "dir:/a/b"],
)
def test_a_store_s_url_stays_as_it_is_and_a_path_becomes_whole(tmp_path: Path, url: str) -> None:
    assert load({"store": url}, _home(tmp_path), tmp_path).store == url
    assert load(environ={**_home(tmp_path), "MILLRACE_STORE": url}, cwd=tmp_path).store == url
    assert load({"store": "s3"}, _home(tmp_path), tmp_path).store == tmp_path / "s3"


def test_a_store_s_password_is_not_shown(tmp_path: Path) -> None:
    url = "layered:redis://guest:p4ss@h/0,rediss://me:w0rd@h/1"
    (row,) = (row for row in load({"store": url}, _home(tmp_path), tmp_path).show() if row.name == "store")
    assert row.value == "layered:redis://guest:***@h/0,rediss://me:***@h/1"


def test_a_directory_that_may_not_be_searched_is_passed_over(tmp_path: Path) -> None:
    """A container's user with another's HOME: there is no file that this user could have meant."""
    hidden = _user_file(tmp_path, "cores = 2\n").parent
    hidden.chmod(0)
    code = (
        "import os, sys; from millrace.settings import load\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "print(load(environ={'HOME': sys.argv[1]}, cwd='/').cores)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "home")],
            capture_output=True,
            text=True,
            env=os.environ,
        )
    finally:
        hidden.chmod(0o700)
    assert done.stdout == "None\n", done.stderr

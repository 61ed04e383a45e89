"""docs/service.md and docs/security.md say what is so: snippets run, routes, settings, metrics and commands are there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import Site, here
from test_metrics_are_scraped import names_of

from millrace.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SERVICE, SECURITY = ((DOCS / f"{name}.md").read_text("utf-8") for name in ("service", "security"))


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_python_runs(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"url": site.url, "token": site.tokens["ann"]}
    for snippet in blocks("python", SERVICE):
        exec(compile(snippet, "docs/service.md", "exec"), names)
    assert (tmp_path / "fetched" / "report.html").exists() and "prediction" in capsys.readouterr().out


def test_the_shell_runs(site: Site) -> None:
    (snippet,) = blocks("bash", SERVICE)
    first = site.order("explain", {"model": "churn", "data": "rows"}, key="of the docs".replace(" ", "-"))
    site.ended(first["id"])
    env = {**os.environ, "URL": site.url, "TOKEN": site.tokens["ann"]}
    script = "set -e\n" + snippet.replace("/jobs/1/", f"/jobs/{first['id']}/")
    done = subprocess.run(["bash", "-c", script], cwd=site.folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "event: end" in done.stdout and '"digest"' in done.stdout


def test_every_route_is_in_the_table_and_no_other(site: Site) -> None:
    told = site.ask("GET", "/v1/openapi.json").json()["paths"]
    there = {(m.upper(), p.replace("{number}", "{id}")) for p, methods in told.items() for m in methods}
    rows = [line for line in SERVICE.splitlines() if re.match(r"\| `(GET|POST|PUT|DELETE)", line)]
    said = set()
    for row in rows:
        method = ""
        for text in re.findall(r"`([^`]+)`", row.split("|")[1]):
            method, path = text.split() if " " in text else (method, text)
            said.add((method, path))
    assert said == there


def test_scopes_are_as_the_table_says(site: Site) -> None:
    for method, path, scope in re.findall(r"^\| `(\w+) (/\S+)` \|.*\| (read|submit) \|$", SERVICE, re.MULTILINE):
        place = path.replace("{id}", "999999").replace("{name}", "x")
        without = "eve" if scope == "submit" else "sam"
        assert site.ask(method, place, without).status_code == 403, (method, path)


def test_every_metric_named_is_scraped(site: Site) -> None:
    said = set(re.findall(r"^\| (`\w+.*) \|", SERVICE.split("## Metrics")[1].split("## Limits")[0], re.MULTILINE))
    names = {name for row in said for name in re.findall(r"`(\w+)(?:\{[\w,]+\})?`", row.split("|")[0])}
    text = site.ask("GET", "/metrics").text
    assert len(names) > 15
    assert names <= set(names_of(text)) | set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def test_settings_and_commands_are_there(furnished: Path, tmp_path: Path) -> None:
    limits = SERVICE.split("## Limits")[1]
    named = {name for row in re.findall(r"^\| (`.*?) \|", limits, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named and named <= set(Settings.model_fields)
    code, said, _ = here(furnished, "token", "docs", "--scopes", "read", "--service-tokens", str(tmp_path / "t.toml"))
    assert code == 0 and said.startswith("mr_")
    for command in re.findall(r"^millrace (?!--url)(\w+)", SERVICE, re.MULTILINE):
        assert here(furnished, command, "--help")[0] == 0
    for command in re.findall(
        r"`(submit|plan|register|jobs|job|logs|cancel|retry|result)`", SERVICE.split("COMMAND` takes")[1]
    ):
        assert here(furnished, "--url", "http://127.0.0.1:9", command, "--help")[0] == 0, command

"""The report is one HTML file that needs nothing else, says what the run was, and trusts no name that it shows."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
from ledgers import busy_run, written

from millrace.diagnose import bundle
from millrace.diagnose.page import Section, write_report
from millrace.diagnose.report import run_sections

LOADS = (
    r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']?\s*(?:https?:)?//""",
    r"""(?:import|from|fetch|importScripts|Worker|EventSource|WebSocket)\s*\(?\s*["'`](?:https?:|wss?:)?//""",
    r"""url\(\s*["']?(?:https?:)?//""",
    r"""@import""",
)
HOSTILE = """</script><script>alert("x")</script><img src=x onerror=alert(1)> & 'quoted' \\"""


class Page(html.parser.HTMLParser):
    """Tags and attributes, headings, and the JSON of the pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self._open[-1] if self._open else "", []).append(data)

    def specs(self) -> list[dict]:
        return [json.loads(t) for t in self.text["script"] if t.startswith("{")]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    sections = run_sections(busy_run(folder / "l", 4, 400))
    return write_report(folder / "sub" / "report.html", "explain: made-up", sections)


def test_nothing_is_loaded_from_anywhere(report):
    text = report.read_text()
    for pattern in LOADS:
        assert not re.search(pattern, text), pattern
    page = Page(text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert not [a for _, a in page.tags if {"src", "srcset"} & set(a)]
    assert all(a["href"].startswith("#") for tag, a in page.tags if tag == "a")


def test_there_is_one_script_bundle_however_many_pictures(report):
    text = report.read_text()
    page = Page(text)
    assert len(page.specs()) == 4
    assert sum(len(t) > 100_000 for t in page.text["script"]) == 1
    assert len(text.encode()) < 2_000_000


def test_it_tells_parts_tasks_and_facts_in_words_and_tables(report):
    page = Page(report.read_text())
    assert list(page.text["h2"]) == [
        "Where the core-seconds went", "What costs time", "Slots over time", "Use of the slots", "Tasks", "The driver",
        "About this run",
    ]  # fmt: skip
    heads = list(page.text["th"])
    assert {"analysis, on the processor", "unexplained", "explain rows", "put"} <= set(heads)
    assert sum(tag == "th" and a.get("scope") == "row" for tag, a in page.tags) > 20


def test_pictures_have_a_name_for_those_who_cannot_see_them(report):
    page = Page(report.read_text())
    places = [a for tag, a in page.tags if a.get("class") == "chart"]
    assert len(places) == 4
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in places)
    assert dict(page.tags)["html"]["lang"] == "en"


def test_light_and_dark_and_small_screens_are_provided_for(report):
    text = report.read_text()
    assert "prefers-color-scheme: dark" in text
    assert '"width=device-width, initial-scale=1"' in text
    assert all(spec["width"] == "container" for spec in Page(text).specs())


def test_names_that_look_like_markup_stay_text(tmp_path):
    chart = {"data": {"values": [{"a": HOSTILE}]}, "mark": "point", "title": HOSTILE, "description": HOSTILE}
    section = Section(HOSTILE, f"{HOSTILE}\n{HOSTILE}", [[HOSTILE, HOSTILE], [HOSTILE, 1.5]], chart)
    page = Page(write_report(tmp_path / "r.html", HOSTILE, [section]).read_text())
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 3
    assert "img" not in tags
    assert page.specs()[0]["data"]["values"] == [{"a": HOSTILE}]
    assert "".join(page.text["h1"]) == HOSTILE
    assert next(a["aria-label"] for _, a in page.tags if a.get("class") == "chart") == HOSTILE


def test_text_is_a_paragraph_or_a_list_and_figures_stand_right(tmp_path):
    table = [["what", "share", "time"], ["one", "12.5 %", "1.5s"], ["two", "< 0.1 %", "4m10s"]]
    page = Page(
        write_report(tmp_path / "r.html", "t", [Section("a", "one line", table), Section("b", "x\ny")]).read_text()
    )
    assert page.text["li"] == ["x", "y"]
    assert "one line" in page.text["p"]
    assert [a.get("class") for tag, a in page.tags if tag == "td"] == ["n"] * 4
    assert "script" not in dict(page.tags), "without pictures no script is needed"


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    page = Page(
        write_report(tmp_path / "r.html", "t", run_sections(written(tmp_path / "l", 1, [], (), 10))).read_text()
    )
    assert "not known" in page.text["td"]  # throttling, on a host that cannot tell


def test_a_plan_stands_beside_what_was_measured(tmp_path):
    history = busy_run(tmp_path / "l", 2, 50)
    figures = {
        "worker_bytes": 64 << 20,
        "driver_bytes": 1 << 20,
        "peak_bytes": 129 << 20,
        "core_s": 3.5,
        "wall_s": 1.75,
    }
    history.records.append({"record": "plan", **figures})
    page = Page(write_report(tmp_path / "r.html", "t", run_sections(history)).read_text())
    assert "Planned and measured" in page.text["h2"]
    assert "3.5s" in page.text["td"]
    assert "64MiB" in page.text["td"]


def test_the_script_is_put_together_once_and_a_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    made = bundle.script(None)
    assert bundle.script(tmp_path / "new") == made
    (copy,) = (tmp_path / "new").iterdir()
    assert bundle.script(tmp_path / "new") == made
    copy.write_bytes(copy.read_bytes()[:-100])
    assert bundle.script(tmp_path / "new") == made
    assert copy.stat().st_size > len(made)
    (tmp_path / "file").write_text("")
    assert bundle.script(tmp_path / "file") == made  # no folder, no copy

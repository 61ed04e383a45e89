"""A real browser draws every picture of the report, without a network, in light and dark, wide and narrow."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from millrace.analyses.explain import views
from millrace.diagnose.page import Section, write_report
from millrace.diagnose.report import run_sections
from millrace.run.ledger import Ledger, replay
from millrace.run.task import Measures, Outcome, Span

MS = 1_000_000


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.write("run", schema=1, run_id="r", analysis="explain", from_ns=0, slots=2, engine="ProcessEngine")
    for i in range(60):
        begin = (100 + 40 * (i // 2)) * MS
        measures = Measures(i % 2, 9, 1, begin - MS, begin, begin + 38 * MS, cpu_ns=35 * MS)
        ledger.attempt(Outcome(str(i), measures=measures), "explain rows", i, 0)
    ledger.spans([Span(slot, "start", 10 * MS, 99 * MS) for slot in (0, 1)])
    ledger.write("end", state="done", to_ns=1400 * MS, parts={"put_ns": MS}, throttled_ns=0, peak_bytes=1 << 20)
    ledger.close()
    rng = np.random.default_rng(0)
    data = np.column_stack([rng.normal(size=800), rng.integers(0, 3, 800), rng.exponential(size=800)])
    data[::9, 0] = np.nan
    values = np.nan_to_num(data) * (0.5, 0.2, -0.3)
    names, categories = ("age", "region", "income"), {1: ("north", "south", "west")}
    mean = np.abs(values).mean(axis=0)
    charts = {
        "Beeswarm": views.beeswarm(values, data, names, "log-odds", categories=categories),
        "Bars": views.bars(mean, 0.9 * mean, 1.1 * mean, names, "log-odds"),
        "Waterfall": views.waterfall(
            0.1, values[0], data[0], names, 0.1 + values[0].sum(), "log-odds", categories=categories
        ),
        "Age": views.dependence("age", values, data, names, "log-odds", "region", categories=categories),
        "Region": views.dependence("region", values, data, names, "log-odds", categories=categories),
    }
    sections = [Section(title, chart=chart) for title, chart in charts.items()]
    return write_report(folder / "report.html", "explain: r", [*sections, *run_sections(replay(ledger.path))])


def opened(chromium: str, report: Path, *options: str) -> tuple[str, str]:
    """The page after its scripts ran, and what the browser's console said."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000",
        f"--user-data-dir={report.parent / 'profile'}", *options, "--dump-dom", report.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


@pytest.mark.parametrize(
    "options",
    [("--window-size=1000,800",), ("--window-size=390,800",), ("--blink-settings=preferredColorScheme=0",)],
    ids=["wide", "phone", "dark"],
)
def test_every_picture_is_drawn_and_nothing_is_complained_of(chromium, report, options):
    page, console = opened(chromium, report, *options)
    assert 'data-drawn="9"' in page
    assert len(re.findall(r"<(?:svg|canvas)[^>]*class=\"marks\"", page)) == 9
    assert console == ""

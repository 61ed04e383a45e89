"""/metrics has exactly the names of the contract; rules and dashboards name nothing else; promtool agrees with all of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Site, until

HOME = Path(__file__).parents[2] / "deploy" / "monitoring"
NAMES = {
    "celery_tasks_queued": ("queue",), "celery_tasks_running": ("queue",), "celery_task_duration_seconds": ("task",),
    "celery_worker_cpu_percent": ("worker",), "celery_worker_memory_mb": ("worker",), "worker_memory_limit_mb": ("worker",),
    "millrace_backlog_core_seconds": ("tier",), "millrace_oldest_wait_seconds": ("queue",),
    "millrace_replicas": ("tier", "state"), "millrace_scaling_events_total": (), "millrace_redeliveries_total": (),
    "millrace_oom_total": (), "shap_computation_time_ms": (), "shap_explainer_cache_hit_rate": (), "twin_generation_count": (),
    "causal_refutation_iterations": (), "millrace_cache_hits_total": (), "millrace_cost_total": ("tier",),
    "millrace_cost_per_hour": ("tier",), "millrace_cost_ceiling_per_hour": ("tier",),
}  # fmt: skip
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LANGUAGE = {
    "sum", "by", "rate", "increase", "histogram_quantile", "on", "and", "le", "queue", "worker", "tier", "task",
}  # fmt: skip
"""Words of PromQL, and labels."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    assert found, "This test needs promtool: apt-get install prometheus, or `make promtool`."
    return found


@pytest.fixture(scope="module")
def scraped(site: Site) -> str:
    refute = {"data": "people", "treatment": "drug", "outcome": "visits", "common_causes": ["age"], "simulations": 20}
    site.ended(site.order("refute", refute, seed=11)["id"])
    for _ in range(2):
        assert site.ask("POST", "/v1/explain", json={"model": "churn", "row": [1, 2, 3, 4]}).status_code == 200
    until(lambda: value(site.ask("GET", "/metrics", "eve").text, "causal_refutation_iterations") > 0)
    until(lambda: "celery_worker_cpu_percent{" in site.ask("GET", "/metrics", "eve").text)
    told = site.ask("GET", "/metrics", "eve")
    assert told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return told.text


def value(text: str, name: str) -> float:
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]


def names_of(text: str) -> dict[str, set[str]]:
    """Metrics and their labels, as they were scraped."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition(" ")[0].partition("{")
            labels = set(re.findall(r"(\w+)=\"", line.partition("{")[2])) if rest else set()
            found.setdefault(name, set()).update(labels)
    return found


def test_the_names_are_exactly_those_of_the_contract(scraped: str) -> None:
    found = names_of(scraped)
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scraped, re.MULTILINE))
    for name, labels in NAMES.items():
        assert name in typed, name
        own = found[name] if name in found else found.get(f"{name}_bucket")
        assert own is not None and own - {"le"} == set(labels), (name, own)
    assert "twin_generation_count_total" not in scraped and "causal_refutation_iterations_total" not in scraped


def test_what_happened_is_counted(scraped: str) -> None:
    assert value(scraped, "shap_computation_time_ms_count") >= 2
    assert 0 < value(scraped, "shap_explainer_cache_hit_rate") < 1
    assert value(scraped, "causal_refutation_iterations") >= 20
    assert re.search(r'^celery_task_duration_seconds_bucket\{task="refute",le="14400"\} [1-9]', scraped, re.MULTILINE)
    assert re.search(r'^millrace_replicas\{tier="light",state="(idle|busy)"\} 1$', scraped, re.MULTILINE)
    assert float(re.search(r"^celery_worker_memory_mb\{.*\} (\S+)$", scraped, re.MULTILINE)[1]) > 1  # type: ignore[index]


def test_promtool_reads_it(scraped: str, promtool: str) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=scraped, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: its style guide would have other names
    assert "error while linting" not in done.stderr, done.stderr


def test_rules_hold_their_own_tests(promtool: str) -> None:
    for words in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=HOME, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    board = json.loads((HOME / "dashboard.json").read_text())
    rules = re.findall(r"expr: (.+)", (HOME / "rules.yml").read_text())
    return [*rules, *(target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))]


def test_every_expression_names_what_was_scraped(scraped: str) -> None:
    known = set(names_of(scraped))
    found = expressions()
    assert len(found) >= 20
    for expression in found:
        bare = re.sub(r'"[^"]*"', "", expression)
        words = {word for word in WORD.findall(re.sub(r"\[[^\]]*\]", "", bare)) if word not in LANGUAGE}
        assert words and words <= known, (expression, words - known)


def test_alerts_are_those_of_the_contract() -> None:
    text = (HOME / "rules.yml").read_text()
    assert re.findall(r"alert: (\w+)", text) == [
        "HeavyQueueLong", "WorkerMemoryHigh", "OldestWaitOverTarget", "SignalsUnknown", "TierAtItsLimit", "PoisonJob",
        "CostCeilingReached",
    ]  # fmt: skip
    assert 'queue=~"shap|causal|ml|twins"' in text

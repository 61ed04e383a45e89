"""`millrace scale simulate`: a trace from a file through the policy, as a table, as JSON, as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import is_one_paragraph, millrace

TRACE = "arrival_s,queue,seconds,predicted_s\n" + "".join(f"{i * 200},causal,{90 + 7 * i},90\n" for i in range(12))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "arrivals.csv").write_text(TRACE + "50,api,0.4,\n60,quick,0.4,\n")
    (tmp_path / "tiers.toml").write_text("[tiers.heavy]\nat_once = 1\nmost = 2\n[prices]\ncurrency = 'EUR'\n")
    return tmp_path


def test_a_trace_is_replayed_under_every_rule_and_told_by_tier(place: Path) -> None:
    done = millrace("scale", "simulate", "--trace", "arrivals.csv", "--tiers", "tiers.toml", "--chart", "out", at=place)
    assert done.code == 0, done.err
    for word in ("light: 2 jobs", "heavy: 12 jobs", "KEDA, queued + running, 2 h grace", "one replica per job",
                 "bound h", "EUR a month", "quick"):  # fmt: skip
        assert word in done.out, word
    assert {p.name for p in (place / "out").iterdir()} == {
        f"scale-{tier}.{kind}" for tier in ("heavy", "light") for kind in ("png", "svg")
    }


def test_json_is_the_same_figures_with_their_intervals(place: Path) -> None:
    done = millrace(
        "scale", "simulate", "--trace", "arrivals.csv", "--tiers", "tiers.toml", "--rule", "millrace", "--seeds", "2",
        "--strikes", "20", "--json", at=place,
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = {(row["tier"], row["contender"]): row for row in json.loads(done.out)}
    assert set(rows) == {("light", "millrace"), ("heavy", "millrace")}
    heavy = rows["heavy", "millrace"]
    assert heavy["seeds"] == 2 and heavy["figures"]["kills"] == {"mean": 0.0, "half": 0.0}
    assert heavy["figures"]["jobs"]["mean"] == 12 and heavy["figures"]["peak"]["mean"] <= 2
    assert heavy["figures"]["replica_hours"]["mean"] >= heavy["figures"]["bound_hours"]["mean"] > 0


def test_a_search_proposes_the_cheapest_settings_that_hold_the_objective(place: Path) -> None:
    asked = ("scale", "simulate", "--trace", "arrivals.csv", "--tiers", "tiers.toml", "--seeds", "1", "--search", "0.2")
    rows = json.loads(millrace(*asked, "--json", at=place).out)
    for tier in ("light", "heavy"):
        own = [row for row in rows if row["tier"] == tier]
        (proposed,) = [row for row in own if row["proposed"]]
        assert proposed["cost_month"] == min(row["cost_month"] for row in own if row["missed"] <= 0.2)
        for one in (row for row in own if row["good"]):
            assert not any(o["cost_month"] <= one["cost_month"] and o["missed"] < one["missed"] for o in own)
    said = millrace(*asked, at=place)
    assert said.code == 0 and "proposed" in said.out and "settings tried" in said.out


WRONG = {
    "a queue that nobody serves": (("--trace", "strange.csv"), ("'weird'", "queues")),
    "no such trace": (("--trace", "gone.csv"), ("gone.csv",)),
    "a file and a day": (("--trace", "arrivals.csv", "--jobs-per-day", "5"), ("--jobs-per-day",)),
    "no such rule": (("--rule", "magic"), ("magic", "millrace")),
    "tiers that cannot be": (("--tiers", "wrong.toml"), ("wrong.toml", "least = 9")),
    "no such tiers": (("--tiers", "gone.toml"), ("gone.toml",)),
    "a search with a rule": (("--search", "0.1", "--rule", "KEDA"), ("--search", "--rule")),
    "no seed": (("--seeds", "0"), ("--seeds",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_question_is_one_paragraph(name: str, place: Path) -> None:
    (place / "strange.csv").write_text("arrival_s,queue,seconds\n1,weird,2\n")
    (place / "wrong.toml").write_text("[tiers.heavy]\nleast = 9\n")
    arguments, said = WRONG[name]
    done = millrace("scale", "simulate", *arguments, at=place)
    assert done.code == 2 and done.out == ""
    assert is_one_paragraph(done.err), done.err
    assert all(word in done.words for word in said), done.err

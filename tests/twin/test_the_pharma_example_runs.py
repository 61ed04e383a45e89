"""examples/twin_pharma: its schemas, interventions and world, and the page that walks through it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millrace as mr
from millrace.analyses.twin.intervention import read_all
from millrace.analyses.twin.source import read_schema

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "twin_pharma"))
import world

HOME = Path(__file__).parents[2]
EXAMPLE = HOME / "examples" / "twin_pharma"


@pytest.mark.parametrize(("name", "columns"), [("hcp", 15), ("patient", 13), ("territory", 10)])
def test_schemas_say_what_an_entity_is(name: str, columns: int) -> None:
    schema = read_schema(EXAMPLE / "schemas" / f"{name}.toml")
    assert schema.name == name and len(schema.columns) == columns and schema.constraints


def test_the_world_keeps_its_schema_and_its_truth() -> None:
    drawn = world.draw(3_000, seed=1)
    schema = read_schema(EXAMPLE / "schemas" / "hcp.toml")
    assert set(drawn.columns) == {*schema.columns, "contacted", "prescriptions"}
    for name, said in schema.columns.items():
        values = drawn.columns[name]
        if "levels" in said:
            assert set(values) <= set(said["levels"])
        elif said["kind"] != "category":
            assert values.min() >= said["low"] and values.max() <= said.get("high", np.inf)
    assert (drawn.columns["target_patient_volume"] <= drawn.columns["total_patient_volume"]).all()
    again = world.draw(3_000, seed=1)
    assert all((again.columns[n] == drawn.columns[n]).all() for n in drawn.columns)
    t = drawn.columns["contacted"]
    assert abs(t.mean() - drawn.propensity.mean()) < 0.03
    missed = drawn.columns["prescriptions"] - drawn.baseline - t * drawn.effect
    assert abs(missed.mean()) < 0.05 and missed.std() == pytest.approx(0.8, abs=0.03)


def test_six_interventions_say_where_their_effects_come_from() -> None:
    found = {i.name: i for i in read_all(EXAMPLE / "interventions")}
    assert set(found) == {
        "email_campaign", "call_frequency_increase", "speaker_program_invitation", "sample_distribution",
        "peer_influence_activation", "digital_engagement",
    }  # fmt: skip
    assumed = [i for i in found.values() if i.effect.source == "assumed"]
    assert len(assumed) == 3 and all("made up for this example" in i.effect.because for i in assumed)


def test_every_intervention_is_simulated_and_the_learned_one_is_right(tmp_path: Path) -> None:
    drawn = world.draw(2_000, seed=7)
    model = mr.twin.fit(
        pa.table(drawn.columns), outcome="prescriptions", treatment="contacted", schema=EXAMPLE / "schemas" / "hcp.toml",
        joint="plain", folds=2, engine="inline",
    )  # fmt: skip
    plan = mr.twin.simulate(
        model, EXAMPLE / "interventions", n=1_500, value_per_unit=80.0, budget=9_000.0, engine="inline"
    )
    assert len(plan.scenarios) == 6 and plan.says_no  # for nothing of this model was ever compared
    email = plan.scenario("email_campaign")
    inside = drawn.columns["digital_engagement_score"] >= 30
    assert email.ate.low < 0.45 * drawn.effect[inside].mean() < email.ate.high
    assert email.targeting.spent <= 9_000


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: Any) -> None:
    """Every command, in its order, and the snippet; at the end it says deploy."""
    monkeypatch.chdir(tmp_path)
    for name in ("schemas", "interventions"):
        shutil.copytree(EXAMPLE / name, tmp_path / name)
    world.write(str(tmp_path / "hcp.csv"), world.draw())
    text = (HOME / "docs" / "twin-interventions.md").read_text()
    commands = re.findall(r"^\$ (millrace .*)$", text, re.M)
    assert len(commands) == 5
    for command in commands:
        words = [str(Path(sys.executable).with_name("millrace")), *shlex.split(command)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert "Deploy" in (tmp_path / "again" / "report.html").read_text()
    for snippet in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(snippet, "docs/twin-interventions.md", "exec"), {"__name__": "page"})

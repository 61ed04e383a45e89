"""Interventions: read from files and mappings, closed, with everything that is wrong said at once; grids of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.analyses.twin.intervention import grid, read, read_all
from millrace.run.errors import WrongQuestion

ASSUMED = {"source": "assumed", "mean": 0.1, "sd": 0.05, "because": "a guess"}


def test_a_file_says_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "email.toml"
    path.write_text(
        'name = "email"\nchannel = "email"\neligible = "decile <= 3"\ncost_per_unit = 2\nadoption = 0.4\n'
        '[set]\npreferred_channel = "email"\n[shift]\ninteraction_frequency = 1\n'
        '[effect]\nsource = "assumed"\nlow = 0.1\nhigh = 0.4\nbecause = "two trials"\n'
    )
    found = read(path)
    assert (found.name, found.cost_per_unit, found.adoption.mean) == ("email", 2, 0.4)
    assert found.changed == ("preferred_channel", "interaction_frequency")
    assert found.effect.middle == pytest.approx(0.25) and found.effect.doubt == pytest.approx(0.3 / 12**0.5)
    assert "two trials" in found.label
    assert read_all(str(path)) == read_all(tmp_path) == (found,)
    assert "causal" in read({"name": "x", "shift": {"a": 1}, "effect": {"source": "structural"}}).label


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "x", "colour": "red"}, "colour"),
        ({}, "name"),
        ({"name": "x", "effect": {"source": "assumed", "mean": 0.1, "sd": 0.1}}, "because"),
        ({"name": "x", "effect": {"source": "assumed", "because": "a guess"}}, "mean and sd, or low and high"),
        ({"name": "x", "effect": {"source": "assumed", "mean": 0.1, "because": "a guess"}}, "needs sd"),
        ({"name": "x", "effect": {"source": "assumed", "low": 2, "high": 1, "because": "a guess"}}, "above high"),
        ({"name": "x", "effect": {"source": "learned", "mean": 0.1}}, "takes no mean"),
        ({"name": "x", "effect": {**ASSUMED, "by": "region"}}, "both or none"),
        ({"name": "x", "effect": {"source": "structural"}}, "changed columns"),
        ({"name": "x", "set": {"a": 1}, "shift": {"a": 1}}, "two ways"),
        ({"name": "x", "adoption": 1.4}, "adoption"),
        ({"name": "x", "cost_per_unit": -1}, "cost_per_unit"),
        (7, "a TOML file or a mapping"),
    ],
)
def test_what_is_wrong_is_said(said: Any, message: str) -> None:
    with pytest.raises(WrongQuestion, match=message):
        read(said)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="no intervention"):
        read(tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(WrongQuestion, match="not TOML"):
        read(tmp_path / "bad.toml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongQuestion, match="no TOML file"):
        read_all(tmp_path / "empty")
    with pytest.raises(WrongQuestion, match="a name of its own"):
        read_all([{"name": "x"}, {"name": "x"}])


def test_a_grid_has_every_combination() -> None:
    found = grid({"name": "email", "effect": ASSUMED}, {"intensity": [1, 2], "adoption.mean": [0.2, 0.4, 0.6]})
    assert len(found) == 6
    assert found[-1].name == "email, intensity=2, adoption.mean=0.6"
    assert (found[-1].intensity, found[-1].adoption.mean) == (2, 0.6)
    vary = {"vary": {"intensity": [1, 2]}}
    assert [one.intensity for one in read_all([{"name": "email", **vary}, {"name": "call"}])] == [1, 2, 1]
    with pytest.raises(WrongQuestion, match="no 'colour'"):
        grid({"name": "email"}, {"colour": ["red"]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "x", "costs": 3}, "there is no field costs; there are name, about, channel, eligible"),
        ({"name": "x", "effect": {"source": "learned", "size": 3}}, "no field effect.size; there are source, mean"),
        ({"effect": "learned"}, "name is missing"),
        ({"name": "x", "cost_per_unit": -2}, "cost_per_unit: should be greater than or equal to 0"),
        ({"name": "x", "cost_per_unit": float("inf")}, "cost_per_unit: should be a finite number"),
        (
            {"name": "x", "effect": {"source": "assumed", "mean": 1.0, "sd": 0.1}},
            "effect: an assumed effect needs `because`",
        ),
    ],
)
def test_what_is_wrong_is_said_in_our_words(given: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongQuestion, match=said):
        read(given)


def test_an_effect_in_one_word_is_its_source() -> None:
    assert read({"name": "x", "effect": "learned"}) == read({"name": "x", "effect": {"source": "learned"}})

"""The tiers' file: over the defaults, shared with workers and the job table, and strict."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.run.errors import WrongQuestion
from millrace.tiers import Tiers, load_tiers


def read(tmp_path: Path, text: str) -> Tiers:
    file = tmp_path / "tiers.toml"
    file.write_text(text)
    return load_tiers(file)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == load_tiers(None)


def test_what_is_given_goes_over_the_defaults(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        'slice_s = 300\n[routes]\n"reports.*" = "reports"\n[tiers.heavy]\nmost = 7\nhard_s = 4000\nzone = "Europe/Berlin"\n'
        'schedule = [{ days = "mon-fri", hours = [8, 18], replicas = 1 }]\n[prices]\ncore_hour = 1\ngib_hour = 0\n',
    )
    heavy = found.of_queue("shap")
    assert (heavy.name, heavy.least, heavy.most, heavy.at_once) == ("heavy", 0, 7, 2)
    assert (heavy.hard_s, found.slice_s, found.routes) == (4000, 300, {"reports.*": "reports"})
    assert heavy.price_hour(found.prices) == 16.0
    assert heavy.schedule[0].weekdays() == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tiers.heavy\n", "is not a TOML file"),
        ("[tiers.heavy]\nmots = 3\n", "mots"),
        ("[teirs.heavy]\nmost = 3\n", "teirs is nothing that a tiers"),
        ("tiers = 3\n", "tiers are tables"),
        ("[tiers.heavy]\nleast = 5\n", "least = 5 is more than most = 4"),
        ('[tiers.heavy]\nqueues = ["api"]\n', "'api' is of two tiers, light and heavy"),
        ('[tiers.heavy]\nzone = "Mars/Base"\n', "not a time zone"),
        ('[tiers.heavy]\nschedule = [{ days = "mon-fry", replicas = 1 }]\n', "mon-fry"),
        ("[tiers.heavy]\nschedule = [{ hours = [20, 6], replicas = 1 }]\n", "split them at midnight"),
        ("[tiers.light]\ncost_ceiling = 0.01\n", "least 2 replicas cost"),
        ("[tiers.new]\nmost = 3\ncost_ceiling = 2\n", "needs cores and memory"),
        ("[prices]\ncore = 3\n", "prices.core: Extra inputs"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WrongQuestion) as wrong:
        read(tmp_path, text)
    assert said in str(wrong.value) and "tiers.toml" in str(wrong.value)


def test_a_file_that_is_not_there_and_a_queue_that_nobody_serves_are_said(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="cannot be read"):
        load_tiers(tmp_path / "none.toml")
    with pytest.raises(WrongQuestion, match="There is no queue 'x'"):
        load_tiers(None).of_queue("x")

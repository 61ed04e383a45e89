"""What docs/scaling.md shows is what there is: its file of tiers is read, its commands have their options."""

from __future__ import annotations

import re
from pathlib import Path

from millrace.autoscale.contenders import contenders
from millrace.cli.scale import simulate
from millrace.tiers import load_tiers

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")


def test_the_tiers_shown_can_be_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "tiers.toml").write_text(shown)
    heavy = load_tiers(tmp_path / "tiers.toml").of_queue("causal")
    assert (heavy.most, heavy.at_once, heavy.zone, heavy.cost_ceiling) == (4, 2, "Europe/Berlin", 3.0)


def test_every_option_named_is_one() -> None:
    known = {name for param in simulate("simulate").params for name in param.opts}
    assert set(re.findall(r"(--[a-z-]+)", PAGE)) - {"---"} <= known | {"--"}


def test_every_rule_has_its_line_in_the_tables() -> None:
    for rule in contenders():
        assert PAGE.count(f"| {rule.name} |") == 2, rule.name

"""The pages for users say what is so: their snippets run in the order of the page, and name what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from millrace.analyses.calibrate import facts, parts
from millrace.analyses.calibrate.kernels import racing
from millrace.analyses.calibrate.kernels.losses import LEAST_RATE
from millrace.analyses.calibrate.question import LARGE_BYTES
from millrace.analyses.calibrate.simulating import KEPT_BYTES
from millrace.analyses.calibrate.spec import SAMPLERS, Spec

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("calibrate", "coming-from-optuna")}


@pytest.mark.parametrize("name", list(PAGES))
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_snippet_of_the_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGES[name], re.MULTILINE | re.DOTALL)
    assert len(snippets) > 1
    for number, text in enumerate(snippets, 1):
        exec(compile(text, f"docs/{name}.md, snippet {number}", "exec"), space)


def test_the_study_of_the_page_is_a_question() -> None:
    text = re.findall(r"^```toml\n(.*?)^```$", PAGES["calibrate"], re.MULTILINE | re.DOTALL)[0]
    spec = Spec(**tomllib.loads(text))
    assert [t.name for t in spec.targets] == ["prevalence", "deaths"]
    assert spec.free == ("beta", "contacts")


def test_the_page_names_every_sampler_loss_and_field() -> None:
    page = PAGES["calibrate"]
    for name in (*SAMPLERS, *parts.LOSSES, "summarise", "stop_early", "in_flight", "on_error", "persist", "limits"):
        assert f"`{name}`" in page or f"**{name}**" in page or f"`{name} " in page, name
    for kind in parts.KINDS:
        assert f'"{kind}"' in page or kind in ("float",), kind


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    page = PAGES["calibrate"]
    assert f"a rate below {LEAST_RATE:g} counts as {LEAST_RATE:g}" in page
    assert f"larger than {LARGE_BYTES >> 10} KiB" in page
    assert f"first and last {KEPT_BYTES >> 11} KiB" in page
    assert facts.default_in_flight(2, 1, "reproducible") == 8
    assert facts.default_in_flight(8, 1, "reproducible") == 24
    assert facts.default_in_flight(8, 1, "asap") == 16
    assert racing.KEPT == 60 and racing.ERRORS_LOG == 2.0

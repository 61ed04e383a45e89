"""The reports of twin in a real browser: every picture is drawn and inside the page, on a desk and on a phone, without a word
on the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millrace as mr

GIFT = {
    "name": "a_gift_with_a_rather_long_name",
    "effect": "learned",
    "adoption": {"mean": 0.5, "sd": 0.1},
    "cost_per_unit": 1,
}
GUESS = {"name": "guess", "effect": {"source": "assumed", "mean": 0.2, "sd": 0.1, "because": "a guess"}}


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


def people(n: int, seed: int) -> pa.Table:
    """Twenty columns with long names, some text, a date."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 16))
    treated = rng.random(n) < 0.5
    columns: dict[str, Any] = {f"a_measurement_of_kind_{j}": x[:, j] for j in range(16)}
    columns["preferred_channel_of_contact"] = rng.choice(["telephone_in_the_evening", "email", "in_person"], n)
    columns["since"] = pa.array(18_000 + rng.integers(0, 900, n), pa.int32()).cast(pa.date32())
    columns["treated"] = treated
    columns["outcome"] = x[:, 0] + 0.5 * treated + rng.normal(size=n)
    return pa.table(columns)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    model = mr.twin.fit(
        people(900, 0),
        outcome="outcome",
        treatment="treated",
        folds=2,
        joint="plain",
        engine="inline",
        out=folder / "fit",
    )
    mr.twin.generate(model, 600, where="since >= '2020-01-01'", out=folder / "t.parquet", engine="inline").save(
        folder / "generate"
    )
    mr.twin.assess(model, people(900, 0), holdout=people(600, 1), engine="inline", out=folder / "assess")
    plan = {"by": ["preferred_channel_of_contact"], "n": 800, "value_per_unit": 10.0, "budget": 100.0}
    mr.twin.simulate(model, [GIFT, GUESS], **plan, engine="inline", out=folder / "simulate")
    return folder


WANTED = {
    "fit": ("Columns", "Dependence", "Outcome", "Drivers", "Uplift", "Overlap"),
    "generate": ("Columns",),
    "assess": ("Measures", "Columns", "Dependence", "Plane", "Given away by", "Privacy", "Uplift", "Overlap"),
    "simulate": (
        "Interventions",
        "Whom to treat",
        "Groups",
        "Scenarios",
        "Doubts",
        "Targeting",
    ),
}


@pytest.mark.parametrize("width", [1100, 700, 390])
@pytest.mark.parametrize("verb", WANTED)
def test_every_picture_is_inside_the_page(browser: Any, reports: Path, verb: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((reports / verb / "report.html").as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn")
    page.wait_for_timeout(300)
    titles = page.locator("h2").all_inner_texts()
    assert [t for t in WANTED[verb] if t not in titles] == []
    charts = page.evaluate("[...document.querySelectorAll('.chart')].map((c) => [c.scrollWidth, c.clientWidth])")
    assert len(charts) == int(page.evaluate("document.documentElement.dataset.drawn"))
    assert [pair for pair in charts if pair[0] > pair[1] + 1] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == [], said
    page.close()

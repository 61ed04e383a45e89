"""The page in a real Chromium, used as a person would: by mouse and by keyboard, light and dark, on a desk and on a phone.

Any line on the console and any failed request fails the test. MILLRACE_SHOTS=DIR keeps a picture of each page.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Site

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SHAPES = {
    "desk": {"viewport": {"width": 1200, "height": 900}},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, f"This test needs Chromium (looked for {', '.join(NAMES)}): apt-get install chromium."
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def jobs(site: Site) -> dict[str, int]:
    """A job of each kind of end, of ann."""
    refute = {"data": "people", "treatment": "drug", "outcome": "visits", "common_causes": ["age"], "simulations": 30}
    made = {
        "explain": site.order("explain", {"model": "churn", "data": "rows"}, label="churn, October")["id"],
        "refute": site.order("refute", refute)["id"],
        "failed": site.order("run", {"function": "work:bad", "items": "items"}, label="nightly")["id"],
    }
    for number in made.values():
        site.ended(number)
    return made


class Person:
    """A page with somebody before it, who hears what the console says."""

    def __init__(self, browser: Any, site: Site, **shape: Any) -> None:
        self.site, self.said = site, []
        self.context = browser.new_context(**shape)
        self.page = self.context.new_page()
        self.page.set_default_timeout(180_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self._failed(request))

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # what is left behind when one goes to another page
            self.said.append(f"{request.url}: {request.failure}")

    def enter(self, path: str = "jobs") -> None:
        self.page.goto(f"{self.site.url}/#/{path}")
        self.page.get_by_label("Token").fill(self.site.tokens["ann"])
        self.said.clear()  # the browser itself tells of the 401 that asked for the token
        self.page.get_by_role("button", name="Sign in").click()

    def drawn(self, least: int = 1) -> None:
        """Wait until there are so many pictures, and each is drawn."""
        self.page.wait_for_function(
            "(least) => { const all = [...document.querySelectorAll('.chart')];"
            " return all.length >= least && all.every((c) => c.dataset.drawn && c.querySelector('svg, canvas')); }",
            arg=least,
        )

    def fits(self) -> None:
        """Nothing sticks out to the right."""
        assert self.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def keep(self, name: str) -> None:
        if folder := os.environ.get("MILLRACE_SHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)

    def leave(self) -> None:
        self.context.close()
        assert self.said == []


@pytest.fixture(params=list(SHAPES))
def person(request: pytest.FixtureRequest, chromium: Any, site: Site) -> Iterator[Person]:
    one = Person(chromium, site, **SHAPES[request.param])
    one.name = request.param
    yield one
    one.leave()


@pytest.fixture
def user(chromium: Any, site: Site) -> Iterator[Person]:
    one = Person(chromium, site, **SHAPES["desk"])
    yield one
    one.leave()


def test_every_page_is_shown_in_every_shape(person: Person, jobs: dict[str, int]) -> None:
    page = person.page
    person.enter()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.get_by_text("churn, October (explain)").wait_for()
    person.fits()
    person.keep(f"{person.name}-jobs")
    page.get_by_role("link", name="Tiers", exact=True).click()
    page.get_by_role("heading", name="light").wait_for()
    person.drawn(3)
    person.fits()
    person.keep(f"{person.name}-tiers")
    for name in ("explain", "refute"):
        page.goto(f"{person.site.url}/#/jobs/{jobs[name]}")
        page.get_by_role("heading", name="Where the time went", exact=True).wait_for()
        person.drawn(6)
        person.fits()
        person.keep(f"{person.name}-{name}")
    page.get_by_role("link", name="Submit", exact=True).click()
    page.get_by_role("heading", name="Submit a job").wait_for()
    person.fits()
    person.keep(f"{person.name}-submit")


def test_a_job_is_submitted_followed_cancelled_and_retried(user: Person) -> None:
    page = user.page
    user.enter("submit")
    page.get_by_label("Analysis").select_option("run")
    page.get_by_label("Function").fill("work:doze")
    page.get_by_label("Items").fill("items")
    page.get_by_text("About the job").click()
    page.get_by_label("Label").fill("clicked")
    page.get_by_role("button", name="What will it take?").click()
    page.get_by_text("It would go to the queue default of the tier light").wait_for()
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("heading", name=re.compile("clicked")).wait_for()
    page.locator(".chip.running").wait_for()
    page.get_by_text(re.compile(r"doze \d+ of 8")).wait_for()
    page.get_by_role("button", name=re.compile("Cancel job")).click()
    page.locator(".chip.cancelled").wait_for()
    page.get_by_role("button", name=re.compile("Retry job")).click()
    page.locator(".chip.succeeded").wait_for()
    page.get_by_role("heading", name="Result", exact=True).wait_for()


def test_wrong_questions_are_marked_where_they_are_wrong(user: Person) -> None:
    page = user.page
    user.enter("submit")
    page.get_by_role("button", name="Submit").click()
    model = page.get_by_label("Model", exact=True)
    page.locator('[aria-invalid="true"]').first.wait_for()
    assert (
        model.get_attribute("aria-invalid") == "true"
        and page.evaluate("document.activeElement.id") == "f-question-model"
    )
    assert "required" in page.locator("#f-question-model-wrong").inner_text().lower()
    model.fill("churn")
    page.get_by_label("Data", exact=True).fill("nowhere")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("There is no data called 'nowhere'").wait_for()
    user.said = [line for line in user.said if "422" not in line]  # the browser tells of each itself


def test_a_file_is_sent_and_used(user: Person, tmp_path: Path) -> None:
    page = user.page
    (tmp_path / "my items.jsonl").write_text("5\n6\n")
    user.enter("submit?analysis=run")
    page.get_by_label("File", exact=True).set_input_files(tmp_path / "my items.jsonl")
    assert page.get_by_label("Name", exact=True).input_value() == "my-items"
    page.get_by_role("button", name="Send").click()
    page.get_by_text("my-items is now the data").wait_for()
    page.locator("#names-data option[value='my-items']").wait_for(state="attached")
    page.get_by_label("Function").fill("work:square")
    page.get_by_label("Items").fill("my-items")
    page.get_by_role("button", name="Submit").click()
    page.locator(".chip.succeeded").wait_for()
    with page.expect_download() as told:
        page.get_by_role("button", name="results.jsonl").click()
    assert Path(told.value.path()).read_text().split() == ["25", "36"]


def test_the_keyboard_is_enough(user: Person, jobs: dict[str, int]) -> None:
    page = user.page
    page.goto(user.site.url)
    page.get_by_label("Token").wait_for()
    assert page.evaluate("document.activeElement.id") == "token"
    user.said.clear()
    page.keyboard.type(user.site.tokens["ann"])
    page.keyboard.press("Enter")
    page.get_by_label("State").wait_for()
    focus = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent || document.activeElement.id"
    seen = []
    page.reload()  # the token stays in the tab
    page.get_by_label("State").wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focus))
        if "nightly" in seen[-1] and "Job" in seen[-1]:
            break
    assert "To the content" in seen and "Submit" in seen, seen
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile("nightly")).wait_for()
    page.wait_for_function("document.activeElement.id === 'main'")
    summary = page.get_by_text("What it printed")
    summary.focus()
    page.keyboard.press("Enter")
    page.get_by_text("there is no such thing").last.wait_for()


def test_a_screen_reader_is_told_names_and_pictures(user: Person, jobs: dict[str, int]) -> None:
    page = user.page
    user.enter(f"jobs/{jobs['explain']}")
    user.drawn()
    nameless = """[...document.querySelectorAll('button, a, input, select, textarea, [role=img], [role=region], progress')]
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"""
    for path in (f"jobs/{jobs['explain']}", "jobs", "tiers", "submit"):
        page.goto(f"{user.site.url}/#/{path}")
        page.wait_for_function("!document.querySelector('main[aria-busy]') && document.querySelector('h1')")
        assert page.evaluate(nameless) == [], path
        assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
        assert all(b - a <= 1 for a, b in pairwise(levels)), (path, levels)
    assert page.evaluate("document.documentElement.lang") == "en"


def test_text_stands_out_from_what_is_behind_it(chromium: Any, site: Site, jobs: dict[str, int]) -> None:
    """Contrast of 4.5 at least (WCAG AA), of the colours of the sheet, light and dark."""
    ratio = """() => {
      const linear = (v) => v <= 10 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
      const light = (c) => { const [r, g, b] = c.match(/\\d+/g).map(linear);
        return .2126 * r + .7152 * g + .0722 * b; };
      const probe = document.body.appendChild(document.createElement('i'));
      const of = (name) => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color); };
      const against = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      return ['--ink', '--quiet', '--link', '--bad', '--good', '--warn'].flatMap(
        (n) => ['--page', '--soft'].map((b) => [n, b, against(of(n), of(b))]));
    }"""
    for scheme in ("light", "dark"):
        one = Person(chromium, site, color_scheme=scheme)
        one.enter()
        one.page.get_by_role("heading", name="Jobs").wait_for()
        assert [found for found in one.page.evaluate(ratio) if found[2] < 4.5] == [], scheme
        one.leave()


def test_a_token_that_is_not_known_is_told_and_forgotten(user: Person) -> None:
    page = user.page
    page.goto(user.site.url)
    page.get_by_label("Token").fill("mr_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("That token is not known here").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    user.said = [line for line in user.said if "401" not in line]

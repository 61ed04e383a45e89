"""The browser of this machine."""

from __future__ import annotations

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Its path."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.fail(
        "This test needs Chromium and there is none on PATH (looked for " + ", ".join(NAMES) + "): "
        "apt-get install -y chromium, then run it again.",
        pytrace=False,
    )

"""Models that several tests ask."""

from __future__ import annotations

import populations
import pytest

import millrace as mr


@pytest.fixture(scope="session")
def table():
    return populations.people()


@pytest.fixture(scope="session")
def model(table):
    return mr.twin.fit(table, schema=populations.KEYED, joint="plain", engine="inline")


@pytest.fixture(scope="session")
def indexed(table):
    return mr.twin.fit(table, schema=populations.KEYED, joint="index", engine="inline")

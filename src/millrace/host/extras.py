"""Which of millrace's extras are installed, which packages are missing, and the pip command for them.

Reads the metadata of the installed distribution, so that the list is the one of pyproject.toml. Imports none of
the packages: that one is installed does not say that it works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
_EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Package:
    """`wanted` as pyproject.toml says it (">=0.61"); `version` is what is installed, None when nothing is."""

    name: str
    wanted: str
    version: str | None
    fits: bool


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra and its packages; `pip` is the command that completes it."""

    name: str
    packages: tuple[Package, ...]
    pip: str

    @property
    def missing(self) -> tuple[Package, ...]:
        """What is not installed or too old."""
        return tuple(package for package in self.packages if not package.fits)


def extras(distribution: str = "millrace") -> tuple[Extra, ...] | None:
    """All extras but "all", in the order of pyproject.toml; None when the distribution is not installed
    (millrace runs from a folder of sources, and nothing says what it would need)."""
    from importlib import metadata  # 10 ms, and only here

    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    needs = requirements(found.requires or [], distribution)
    names = [name for name in found.metadata.get_all("Provides-Extra") or [] if name != _EVERYTHING]
    return tuple(
        Extra(
            name,
            tuple(_package(*need) for need in needs.get(name, ())),
            f"pip install '{distribution}[{name}]'",
        )
        for name in names
    )


def requirements(lines: list[str], distribution: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Requirement lines as (package, version) pairs by extra; an extra of the distribution itself is followed."""
    direct: dict[str, list[tuple[str, str]]] = {}
    through: dict[str, list[str]] = {}
    for line in lines:
        match = _REQUIREMENT.fullmatch(line.strip())
        extra = _EXTRA.search(match[4] or "") if match else None
        if match is None or extra is None:
            continue
        if match[1].lower() == distribution:
            through.setdefault(extra[1], []).extend(part.strip() for part in (match[2] or "").split(","))
        else:
            direct.setdefault(extra[1], []).append((match[1], match[3].strip()))

    def whole(name: str, above: frozenset[str]) -> list[tuple[str, str]]:
        below = (n for n in through.get(name, ()) if n not in above)
        return [*direct.get(name, ()), *(need for n in below for need in whole(n, above | {n}))]

    return {name: tuple(dict.fromkeys(whole(name, frozenset({name})))) for name in {**direct, **through}}


def _package(name: str, wanted: str) -> Package:
    from importlib import metadata

    try:
        version: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    return Package(name, wanted, version, version is not None and _reaches(version, wanted))


def _reaches(version: str, wanted: str) -> bool:
    """Whether every ">=" of `wanted` holds; other clauses are pip's business, which has checked them."""
    floors = [clause.strip()[2:] for clause in wanted.split(",") if clause.strip().startswith(">=")]
    return all(_release(version) >= _release(floor) for floor in floors)


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\s*v?(\d+(?:\.\d+)*)", version)
    parts = [int(part) for part in numbers[1].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()  # 2.0 and 2.0.0 are one version
    return tuple(parts)

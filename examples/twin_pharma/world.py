"""A made-up world of prescribers whose truth is known: what a campaign did to each of them, and whom it was aimed at.

`python world.py` writes hcp.csv: 15 columns of each prescriber, whether a campaign contacted them, and their new prescriptions
a month. Those that prescribe much were contacted more often, so that comparing contacted with others misleads; the true effect
differs between people, and `draw` tells it. Nothing in it is measured: it is for trying things out, where one can check.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

SPECIALTIES = ("cardiology", "endocrinology", "general", "internal", "nephrology", "neurology")
PRACTICES = ("clinic", "group", "hospital", "solo")
REGIONS = ("east", "north", "south", "west")
CHANNELS = ("email", "in_person", "phone", "video")
STAGES = ("innovator", "early_adopter", "early_majority", "late_majority", "laggard")


@dataclass(frozen=True)
class World:
    """columns: by name, (n,) each, the 15 of a prescriber, `contacted` and `prescriptions`. effect, propensity, baseline:
    (n,) the truth: what being contacted changes, its chance, and the mean of prescriptions without it."""

    columns: dict[str, Any]
    effect: np.ndarray
    propensity: np.ndarray
    baseline: np.ndarray


def draw(n: int = 10_000, seed: int = 0, noise: float = 0.8) -> World:
    """n prescribers. noise: standard deviation of prescriptions around their mean."""
    rng = np.random.default_rng(seed)
    standing = rng.normal(size=n)  # nobody sees it: it is why large practices prescribe more
    specialty = rng.choice(len(SPECIALTIES), n, p=(0.14, 0.12, 0.34, 0.24, 0.08, 0.08))
    region = rng.choice(len(REGIONS), n, p=(0.3, 0.2, 0.22, 0.28))
    practice = rng.choice(len(PRACTICES), n, p=(0.2, 0.36, 0.18, 0.26))
    years = np.clip(np.round(rng.gamma(4.0, 4.5, n)), 1, 45)
    size = np.where(practice == 3, 1, 1 + rng.poisson(np.where(practice == 2, 40, 7)))
    total = np.round(np.exp(5.6 + 0.45 * standing + 0.12 * np.log(size) + 0.25 * rng.normal(size=n)))
    target = np.minimum(total, np.round(total * rng.beta(2 + 1.5 * (specialty < 2), 6, n)))
    decile = 1 + np.minimum(9, (10 * _ranks(total + 2 * target + 40 * rng.normal(size=n))).astype(int))
    tier = np.where(decile >= 8, 0, np.where(decile >= 5, 1, 2))
    tier = np.where(rng.random(n) < 0.06, np.minimum(2, tier + 1), tier)
    digital = np.clip(58 - 0.7 * years + 9 * (region == 3) + 14 * rng.normal(size=n), 0, 100)
    channel = np.where(
        rng.random(n) < 0.012 * digital, np.where(rng.random(n) < 0.65, 0, 3), np.where(rng.random(n) < 0.6, 1, 2)
    )
    frequency = np.round(rng.gamma(2.0, 0.25 + 0.11 * decile), 2)
    since = np.clip(np.round(rng.exponential(60 / (0.5 + frequency))), 0, 365)
    peer = np.clip(rng.beta(2, 4, n) + 0.06 * standing, 0, 1)
    drive = 0.5 * standing + 0.02 * (digital - 45) - 0.02 * (years - 18) + rng.normal(size=n)
    stage = np.searchsorted(np.array([-1.35, -0.4, 0.5, 1.4]), -drive)

    baseline = (
        1.2 + 0.5 * np.log1p(target) / 4 + 0.09 * decile + 0.25 * (specialty < 2) + 0.3 * peer - 0.12 * stage
        + 0.15 * np.log1p(frequency) + 0.15 * ((digital > 60) & (region == 3))
    )  # fmt: skip
    index = 0.22 * (decile - 5.5) + 0.35 * np.log1p(frequency) - 0.25 * (stage - 2) + 0.012 * (digital - 45) - 0.35
    propensity = 0.08 + 0.84 / (1 + np.exp(-index))
    effect = (
        0.22 + 0.22 * np.tanh((digital - 45) / 12) - 0.07 * (stage - 2) + 0.16 * (channel == 0)
        + 0.12 * ((decile >= 8) & (peer > 0.35)) - 0.10 * (region == 1)
    )  # fmt: skip
    contacted = rng.random(n) < propensity
    prescriptions = baseline + effect * contacted + noise * rng.normal(size=n)
    columns = {
        "specialty": np.array(SPECIALTIES)[specialty], "years_experience": years.astype(int),
        "practice_type": np.array(PRACTICES)[practice], "practice_size": size.astype(int), "region": np.array(REGIONS)[region],
        "decile": decile.astype(int), "priority_tier": np.array(("A", "B", "C"))[tier],
        "total_patient_volume": total.astype(int), "target_patient_volume": target.astype(int),
        "digital_engagement_score": np.round(digital, 1), "preferred_channel": np.array(CHANNELS)[channel],
        "last_interaction_days": since.astype(int), "interaction_frequency": frequency,
        "adoption_stage": np.array(STAGES)[stage], "peer_influence_score": np.round(peer, 3),
        "contacted": contacted.astype(int), "prescriptions": np.round(prescriptions, 3),
    }  # fmt: skip
    return World(columns, effect, propensity, baseline)


def _ranks(values: np.ndarray) -> np.ndarray:
    """(n,) in [0, 1)."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)


def write(path: str, world: World) -> None:
    """The columns as CSV; the truth stays behind."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(world.columns)
        rows.writerows(zip(*(column.tolist() for column in world.columns.values()), strict=True))


if __name__ == "__main__":
    place = sys.argv[1] if len(sys.argv) > 1 else "hcp.csv"
    write(place, draw())
    print(f"10,000 prescribers in {place}")

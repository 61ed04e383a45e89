"""Seeded worlds with a binary treatment, an effect of 1 on everybody, and confounding that is all measured."""

from __future__ import annotations

import numpy

from millrace.analyses.refute.kernels import propensity
from millrace.analyses.refute.study import Study

TESTS = ("bootstrap", "subset", "placebo", "random_cause")
TARGETS = ("ate", "att", "atc")


def world(n=2_500, p=6, seed=0, weights=False, clusters=False, strata=False, strength=0.7, bend=0.0):
    """strength: sd of the logit of the treatment. bend: of a part of the outcome that is not linear."""
    rng = numpy.random.default_rng([71, seed])
    confounders = rng.standard_normal((n, p))
    toward = rng.standard_normal(p)
    toward *= strength / numpy.linalg.norm(toward)
    treatment = (rng.random(n) < propensity.expit(confounders @ toward)).astype(float)
    outcome = treatment + confounders @ numpy.full(p, 0.4) + rng.standard_normal(n)
    outcome += bend * (confounders @ toward) ** 2
    weight = rng.uniform(0.5, 1.5, n) if weights else None
    return Study(
        treatment,
        outcome,
        confounders,
        None if weight is None else weight / weight.mean(),
        numpy.sort(rng.permutation(n) % (n // 5)) if clusters else None,
        rng.integers(0, 3, n) if strata else None,
    )


def categories(n=500, seed=0):
    """Confounders of three values each: rows have equal scores."""
    rng = numpy.random.default_rng([72, seed])
    confounders = rng.integers(0, 3, (n, 2)).astype(float)
    treatment = (rng.random(n) < 0.3 + 0.15 * confounders[:, 0]).astype(float)
    return Study(treatment, treatment + confounders.sum(axis=1) + rng.standard_normal(n), confounders)


def mapped(study: Study, shared, folder):
    """The same study and shared arrays, from files that are mapped read-only."""

    def through(name, value):
        if not isinstance(value, numpy.ndarray):
            return value
        numpy.save(folder / f"{name}.npy", value)
        return numpy.load(folder / f"{name}.npy", mmap_mode="r")

    arrays = {name: through(f"study_{name}", value) for name, value in study.arrays().items()}
    return Study.of(arrays), {name: through(f"shared_{name}", value) for name, value in shared.items()}

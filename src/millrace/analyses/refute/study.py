"""What every estimator of refute sees: one treatment, one outcome, the confounders, and how rows belong together.

Arrays only, so that workers map them read-only from one copy on disk. Names, labels and decisions stay with the
question; random numbers are made in `kernels.resample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy

Resampling = Literal["bootstrap", "subset", "placebo", "random_cause"]
Target = Literal["ate", "att", "atc"]

BATCH = 50
"""Simulations of one task. A batch is always computed whole, so that simulation i has the same bits whether 100 or
1,000 were asked for, and what the store has of a smaller run is found by a larger one. Also the length of a round."""


WILD_CLUSTERS = 4
"""So many clusters a wild bootstrap needs."""


@dataclass(frozen=True, slots=True)
class Study:
    """Complete cases, n rows and p confounders.

    treatment, outcome: float64 (n,); treatment is 0 and 1 when `binary`. confounders: float64 (n, p), C order, perhaps
    memory-mapped, no constant column. weights: float64 (n,), mean 1, or None. clusters: int64 (n,) codes from 0 without
    holes, or None: resampled whole. strata: int64 (n,) codes from 0, or None: a placebo is permuted inside them.
    """

    treatment: numpy.ndarray[Any, Any]
    outcome: numpy.ndarray[Any, Any]
    confounders: numpy.ndarray[Any, Any]
    weights: numpy.ndarray[Any, Any] | None = None
    clusters: numpy.ndarray[Any, Any] | None = None
    strata: numpy.ndarray[Any, Any] | None = None
    binary: bool = True

    @property
    def rows(self) -> int:
        return len(self.treatment)

    @property
    def groups(self) -> int:
        """How many clusters there are; 0 without."""
        return 0 if self.clusters is None else int(self.clusters.max()) + 1

    def arrays(self) -> dict[str, Any]:
        """As `run.share` takes it."""
        named = {
            name: getattr(self, name)
            for name in ("treatment", "outcome", "confounders", "weights", "clusters", "strata")
        }
        return {"binary": self.binary, **{name: value for name, value in named.items() if value is not None}}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Study:
        return cls(**arrays)


@dataclass(frozen=True, slots=True)
class Fit:
    """An estimate from all rows. effect, se: in units of the outcome (per unit of treatment); se is robust (HC, cluster,
    influence function or Abadie-Imbens, as `how` says). se_classic: under equal variances, NaN where there is none.
    df: of residuals. details: plain numbers and strings that the estimator wants to be known.
    """

    effect: float
    se: float
    se_classic: float
    df: int
    how: str
    details: Mapping[str, Any]

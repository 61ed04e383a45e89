"""The question of refute: closed and frozen. Its fields are the options of the command and of `mr.refute`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

ESTIMATORS = ("ols", "ols_interacted", "ipw", "aipw", "dml", "matching")
DEFAULT_TESTS = ("placebo", "random_common_cause", "subset", "bootstrap", "blocks", "overlap", "sensitivity")
SIMULATED = {"placebo": "placebo", "random_common_cause": "random_cause", "subset": "subset", "bootstrap": "bootstrap"}
"""Tests that are made of simulations, and what `kernels.resample` calls them."""
TESTS = (*DEFAULT_TESTS, "negative_control", "estimators", "specification")


def _names(given: Any) -> Any:
    """`a,b,c` on the command line; any sequence of names in Python."""
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given) if isinstance(given, list | set | frozenset) or hasattr(given, "tolist") else given


def _pairs(given: Any) -> Any:
    """`name=1,other=2` on the command line; any mapping in Python."""
    if not isinstance(given, str):
        return given
    parts = [part.partition("=") for part in given.split(",") if part.strip()]
    return {name.strip(): _plain(value.strip()) for name, _, value in parts}


def _plain(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Pairs = Annotated[Mapping[str, Any], BeforeValidator(_pairs)]


class Spec(BaseModel):
    """Which effect of what on what, adjusted for what, by which estimator; and what is tried to break it."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    data: Any = Field(description="the observations: a table, or a file (CSV, Parquet, Arrow, npy, JSON lines)")
    treatment: str = Field(description="the column whose effect is asked for: two values, several labels, or a number")
    outcome: Names = Field(description="the column that it acts on (several: each is refuted, p-values corrected)")
    common_causes: Names | None = Field(
        None, description="columns to adjust for; not given: found from the graph (then one of the two is needed)"
    )
    graph: Any = Field(None, description="causal graph to find the common causes in: GML or DOT file, networkx, edges")
    adjustment: int = Field(0, ge=0, description="which of the graph's minimal adjustment sets, counted from 0")
    effect_modifiers: Names = Field((), description="columns by which the effect may differ; adjusted for as well")
    weights: str | None = Field(None, description="column of sampling weights")
    clusters: str | None = Field(None, description="column of groups that belong together: resampled whole")
    strata: str | None = Field(None, description="column inside whose values the placebo shuffles the treatment")
    reference: str | None = Field(None, description="the treatment's value to compare with (the least when not given)")
    tests: Names | None = Field(None, description=f"tests to run; not given: {', '.join(DEFAULT_TESTS)}")
    negative_outcomes: Names = Field((), description="columns that the treatment cannot affect")
    negative_treatments: Names = Field((), description="columns that cannot affect the outcome")
    blocks: str | None = Field(
        None, description="column that cuts the rows into blocks (5 in their order when not given)"
    )
    estimator: Any = Field(
        "ols",
        description=f"{', '.join(ESTIMATORS)}, or module:function of a table",
        json_schema_extra={"metavar": "NAME"},
    )
    options: Pairs = Field(
        {}, description="of the estimator: trim=.01 (ipw, aipw), metric=mahalanobis, folds=5 (dml) ..."
    )
    target: Literal["ate", "att", "atc"] = Field(
        "ate", description="of whom: all (ate), treated (att), untreated (atc)"
    )
    simulations: int = Field(1000, ge=20, description="of each test that resamples or shuffles")
    until: float | None = Field(
        None, gt=0, lt=1, description="stop when every p-value is known this well, at most so many"
    )
    fraction: float | None = Field(None, gt=0, lt=1, description="share of the rows in a subset (.8; matching: .2)")
    placebo: Literal["permute", "regenerate"] = Field("permute", description="how a continuous treatment is made up")
    thresholds: Pairs = Field({}, description="bounds of the verdicts by name, such as smd_pass=.15")
    gate: Literal["default", "classic"] = Field("default", description="how verdicts become one: default or classic")
    missing: Literal["complete", "indicator"] = Field(
        "complete", description="missing confounders: leave the rows out, or mark them (complete, indicator)"
    )
    precision: Literal["fast", "exact"] = Field(
        "fast", description="of simulations: fast (1e-6 se) or exact (1e-10 se)"
    )
    limit: int | None = Field(None, ge=1, description="the first N rows only")

    @property
    def share(self) -> float:
        """Of the rows in a subset. Subsets of .8 overstate the spread of matching by half, those of .2 do not."""
        return self.fraction or (0.2 if self.estimator == "matching" else 0.8)

    @property
    def own(self) -> bool:
        """The estimator is the user's."""
        return not isinstance(self.estimator, str) or ":" in self.estimator

    @property
    def one_by_one(self) -> bool:
        """A simulation is a task of its own: its estimator fits anew what others share."""
        return self.own or (self.estimator == "dml" and self.options.get("fast") is None)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The tests asked for; by default all that need nothing more, and the negative controls where one is named."""
        if self.tests is not None:
            return self.tests
        wanted = tuple(t for t in DEFAULT_TESTS if not (t == "bootstrap" and self.estimator == "matching"))
        return (*wanted, "negative_control") if self.negative_outcomes or self.negative_treatments else wanted

    @field_validator("tests")
    @classmethod
    def _known_tests(cls, tests: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [t for t in tests or () if t not in TESTS]
        if unknown:
            raise ValueError(f"there is no test {unknown[0]!r}; there are {', '.join(TESTS)}")
        return None if tests is None else tuple(dict.fromkeys(tests))

    @field_validator("estimator")
    @classmethod
    def _known_estimator(cls, estimator: Any) -> Any:
        if isinstance(estimator, str) and estimator not in ESTIMATORS and ":" not in estimator:
            raise ValueError(
                f"there is no estimator {estimator!r}; there are {', '.join(ESTIMATORS)}, and your own as module:function"
            )
        return estimator

    @field_validator("outcome")
    @classmethod
    def _some_outcome(cls, outcome: tuple[str, ...]) -> tuple[str, ...]:
        if not outcome:
            raise ValueError("no outcome is named")
        return tuple(dict.fromkeys(outcome))

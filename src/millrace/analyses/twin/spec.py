"""The questions of twin: fit, generate, assess. Closed and frozen; their fields are the options of the commands."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LEARNERS = ("lightgbm", "lightgbm_forest", "xgboost", "hist_gradient_boosting", "random_forest")
MIN_LEAF = {"low": 10, "standard": 20, "high": 100}
"""Rows of a leaf at least, by how much privacy is asked for."""
WRITTEN = {"metavar": "TEXT"}


def _names(given: Any) -> Any:
    """`a,b,c` on the command line; any sequence of names in Python."""
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given) if isinstance(given, list | set | frozenset) or hasattr(given, "tolist") else given


def _lines(given: Any) -> Any:
    """`a <= b; c == d + e` on the command line; a sequence of such texts in Python."""
    if isinstance(given, str):
        return tuple(text.strip() for text in given.split(";") if text.strip())
    return tuple(given) if isinstance(given, list) else given


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]


class Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


with warnings.catch_warnings():  # `schema` is also the name of a deprecated method of pydantic's, which nobody calls
    warnings.simplefilter("ignore", UserWarning)

    class Fit(Closed):
        """What population is learnt, and how closely."""

        data: Any = Field(description="the real rows: a table, or a file (CSV, Parquet, Arrow, npy, JSON lines)")
        outcome: str | None = Field(None, description="column that an outcome model predicts, with intervals")
        treatment: str | None = Field(None, description="column of two values whose effect on the outcome is learnt")
        schema: Any = Field(
            None, description="what the columns are, and what holds between them: a TOML file or a mapping"
        )
        privacy: Literal["low", "standard", "high"] = Field(
            "standard", description="how far twins keep from single rows: low, standard, high"
        )
        min_leaf: int | None = Field(
            None, ge=2, description="real rows that a twin's value is drawn among, at least (by privacy)"
        )
        drop: Names = Field((), description="columns that are left out")
        constraints: Lines = Field(
            (),
            description="what holds on every twin, such as 'spent <= income; total == a + b'",
            json_schema_extra={"metavar": "TEXT;TEXT"},
        )
        find: bool = Field(True, description="find what holds on all real rows, too (ranges always hold)")
        joint: Literal["auto", "plain", "index"] = Field(
            "auto",
            description="plain: trees of earlier columns; index: with one of all; auto: as a held-out slice prefers, judged",
        )
        learner: Any = Field(
            "lightgbm",
            description=f"of the outcome: {', '.join(LEARNERS)}, or an estimator object",
            json_schema_extra={"metavar": "NAME"},
        )
        folds: int = Field(5, ge=2, le=20, description="of the cross-validation")
        coverage: float = Field(0.9, gt=0.5, lt=1, description="of the intervals of the outcome")
        effect: Literal["dr", "t", "x"] = Field("dr", description="how the effect is learnt: dr, t, x")
        overlap: Literal["error", "trim"] = Field(
            "error", description="rows that are nearly always or never treated: an error, or left out and named"
        )
        limit: int | None = Field(None, ge=1, description="the first N rows only")

        @property
        def leaf(self) -> int:
            return self.min_leaf or MIN_LEAF[self.privacy]

        @model_validator(mode="after")
        def _consistent(self) -> Fit:
            if self.treatment is not None and self.outcome is None:
                raise ValueError("a treatment is named and no outcome: name the column on which it acts")
            if self.treatment is not None and self.treatment == self.outcome:
                raise ValueError(f"{self.treatment!r} is both treatment and outcome")
            return self


class Generate(Closed):
    """How many twins of which model, and which ones."""

    model: Any = Field(description="what fit made: its folder")
    n: int = Field(10_000, ge=1, description="how many twins")
    where: Any = Field(
        None, description="only such twins, drawn so: \"age >= 60 and region == 'west'\"", json_schema_extra=WRITTEN
    )
    attempts: int = Field(10_000, ge=1, description="draws of one twin at most until it fits `where`")
    margins: Any = Field(
        None, description="known counts of levels that twins are weighted to: a TOML file or a mapping",
        json_schema_extra={"metavar": "FILE"},
    )  # fmt: skip
    file: Any = Field(None, description="Parquet file that they are written to (twins.parquet in the answer's folder)")


class Assess(Closed):
    """How like the real rows the twins of a model are, and how far from single ones."""

    model: Any = Field(description="what fit made: its folder")
    real: Any = Field(description="the rows that it was fitted on: a table or a file")
    holdout: Any = Field(None, description="rows of the same kind that it has not seen: a table or a file")
    target: str | None = Field(None, description="column for train-on-twins, test-on-real (the outcome when not given)")
    rows: int = Field(20_000, ge=200, description="rows and twins compared at most")

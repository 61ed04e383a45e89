"""The question of explain: closed and frozen. Its fields are the options of the command and of `mr.explain`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SAMPLED = ("kernel", "permutation", "sampling")
METHODS = ("auto", "tree_path_dependent", "interventional", "linear", *SAMPLED, "gradient")


class Spec(BaseModel):
    """What is to be explained, of which model, on which rows, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: Any = Field(
        description="the fitted model: an object, or a file (LightGBM text, XGBoost JSON or UBJ, joblib)"
    )
    data: Any = Field(
        description="the rows to explain: a table or matrix, or a file (CSV, Parquet, Arrow, npy, JSON lines)"
    )
    background: Any = Field(
        None,
        description="rows that stand for 'feature unknown', or auto: rows that represent the data; without: "
        "tree_path_dependent",
    )
    background_rows: int = Field(100, ge=1, le=100_000, description="how many rows background=auto takes")
    background_weights: Any = Field(None, description="a weight for each background row: numbers, or a file")
    method: str = Field("auto", description=f"how: {', '.join(METHODS)}")
    output: str = Field(
        "auto",
        description="what of the model: auto, raw, probability, log_loss (of every class, were it the true one), or the "
        "name of a class",
    )
    interactions: bool = Field(False, description="also exact pairwise interaction values (tree and linear models)")
    groups: Any = Field(
        None,
        description="columns explained together, each group as one feature: a mapping of names to columns, or "
        "'name=column,column; other=column,column'",
        json_schema_extra={"metavar": "NAME=COLUMN,..."},
    )
    max_evaluations: int | None = Field(
        None, ge=4, description="coalitions per row of the kernel method (2 x features + 2048 when not given)"
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        description="kernel method: rounds of coalitions until every standard error of a row is below this, or "
        "max_evaluations are spent (8 rounds when not given)",
    )
    precision: Literal["float64", "float32"] = Field("float64", description="of the values: float64 or float32")
    top: int = Field(12, ge=1, le=100, description="features that tables and pictures show")
    limit: int | None = Field(None, ge=1, description="explain the first N rows only")
    stream: bool = Field(
        False,
        description="read the Parquet file of the data by blocks and write values to Parquet while they are made: for data "
        "larger than memory; needs out",
    )

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
        return method

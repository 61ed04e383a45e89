"""The question of explain: closed and frozen. Its fields are the options of the command and of `mr.explain`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from millrace.run.errors import NotSupported

METHODS = ("auto", "tree_path_dependent", "interventional", "linear", "kernel")
LATER = ("permutation", "sampling", "gradient")


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
    output: str = Field("auto", description="what of the model: auto, raw, probability, or the name of a class")
    max_evaluations: int | None = Field(
        None, ge=4, description="coalitions per row of the kernel method (2 x features + 2048 when not given)"
    )
    precision: Literal["float64", "float32"] = Field("float64", description="of the values: float64 or float32")
    top: int = Field(12, ge=1, le=100, description="features that tables and pictures show")
    limit: int | None = Field(None, ge=1, description="explain the first N rows only")

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method in LATER:
            raise NotSupported(
                f"The method {method!r} is not in this release. Use 'kernel' (any model, with standard errors), or leave "
                "method='auto' to let millrace choose."
            )
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
        return method

    @field_validator("output")
    @classmethod
    def _known_output(cls, output: str) -> str:
        if output == "log_loss":
            raise NotSupported("The output 'log_loss' is not in this release. Use 'raw' or 'probability'.")
        return output

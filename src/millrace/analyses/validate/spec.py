"""The question of validate: closed and frozen. Its fields make the command's options and the Python function's arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from millrace.run.units import parse_bytes


def _names(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Spec(BaseModel):
    """Which programs, on which cases, within which limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    candidates: Any = Field(description="a folder of .py files, a .py file of functions solve_<task>, or a .jsonl file")
    cases: Any = Field(
        description="an ARC .json file or folder, a .jsonl of input and expected, HumanEval's .jsonl, or module:scorer"
    )
    library: Names = Field((), description="modules that programs may use, loaded before")
    entry: str | None = Field(None, description="the function that is called (not given: the last one of a program)")
    isolation: Literal["auto", "candidate", "batch"] = Field(
        "auto", description="a process for each program, or one for 32; auto: by what can be proven about a program"
    )
    pure_library: bool = Field(
        False,
        description="what the library returns depends on its arguments alone, and it changes none of them: what programs have in "
        "common is computed once",
    )
    require_isolation: bool = Field(False, description="an error when a layer of the jail is missing here")
    stop: Literal["first", "all"] = Field("first", description="at the first wrong case, or run all of them")
    case_cpu_s: float = Field(1.0, gt=0, description="processor seconds of one case")
    candidate_cpu_s: float = Field(30.0, gt=0, description="processor seconds of all cases of one candidate")
    case_memory: str = Field("256MiB", description="private memory of a program", json_schema_extra={"metavar": "SIZE"})
    output_bytes: int = Field(1 << 20, ge=1, description="of a result, and of what a program prints")
    recursion: int = Field(1000, ge=50, description="calls within calls")
    top: int = Field(32, ge=1, description="so many of the best are kept, and verified once more")
    repeats: int = Field(3, ge=1, description="of each case when a winner is verified; its time is their median")
    scale: float = Field(1.0, gt=0, description="what a full score is shown as, such as 1000")
    limit: int | None = Field(None, ge=1, description="the first N candidates")

    @field_validator("case_memory")
    @classmethod
    def _size(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @property
    def memory_bytes(self) -> int:
        return parse_bytes(self.case_memory)

"""`validate export`: the best programs of a run as files, by task and score. Reads what the run left, and runs nothing."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from millrace.run.errors import WrongQuestion

WINNERS = "winners.parquet"


class Spec(BaseModel):
    """Which programs of which run go where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field(description="where the programs go: a folder for each task, named by score")
    run: str = Field("last", description="a run of validate: folder, id, part of an id, or last")
    top: int = Field(32, ge=1, description="so many of each task")
    scale: float = Field(1000, gt=0, description="what a full score is called in a file's name")


def export(spec: Spec) -> list[Path]:
    """Write `folder/task/score_rank_id.py`, best first; the files written. `WrongQuestion` when `run` is no run of validate."""
    from pyarrow import parquet

    table = Path(spec.run) / WINNERS
    if not table.exists():
        raise WrongQuestion(f"{spec.run} holds no {WINNERS}: name the folder of a run of `millrace validate run`.")
    written: list[Path] = []
    ranks: dict[str, int] = {}
    for row in parquet.read_table(table).to_pylist():
        rank = ranks[row["task"]] = ranks.get(row["task"], 0) + 1
        if rank > spec.top:
            continue
        place = Path(spec.folder) / (_safe(row["task"]) or "all")
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{round(row['score'] * spec.scale):04d}_{rank:03d}_{_safe(row['id'])}.py"
        head = f"# {row['id']}: {row['passes']} of {row['cases']} cases, {row['size']} nodes, program {row['digest']}\n"
        file.write_text(head + row["source"])
        written.append(file)
    return written


def _safe(name: str) -> str:
    """As a part of a file's name; an id comes from whoever wrote the candidate."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:80]

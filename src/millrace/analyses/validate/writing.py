"""Verdicts as one Parquet file, written in candidate order as rounds end: memory does not grow with their number."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from millrace.analyses.validate.entrants import Entrant

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

CODES = ("not run", "pass", "wrong", "error", "cpu_limit", "memory", "crash", "inconclusive")
"""What the numbers in the column `cases` stand for."""
ROWS = 4096
NAME = "candidates.parquet"

_pack = msgspec.msgpack.Encoder().encode


class Writer:
    """Rows of decided entrants. counts: by verdict; programs: distinct ones; digest: of all that does not depend on time."""

    def __init__(self, folder: Path) -> None:
        self.path, self.part = folder / NAME, folder / f"{NAME}.part"
        self.rows = self.programs = 0
        self.counts: Counter[str] = Counter()
        self._digest = hashlib.blake2b(digest_size=16)
        self._columns: dict[str, list[Any]] = {name: [] for name in _names()}
        self._file: parquet.ParquetWriter | None = None

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def add(self, entrant: Entrant) -> None:
        program, rejected = entrant.program, "rejected" in entrant.program
        codes = [
            CODES.index(entrant.results[i]["verdict"]) if i in entrant.results else 0 for i in range(len(entrant.cases))
        ]
        row = {
            "number": entrant.number,
            "id": entrant.candidate.id,
            "task": entrant.candidate.task,
            "verdict": entrant.verdict,
            "detail": entrant.detail,
            "passes": entrant.passes,
            "score": entrant.score,
            "failed_at": entrant.failed_at,
            "cases": codes,
            "scores": [
                entrant.results[i]["score"] if i in entrant.results else None for i in range(len(entrant.cases))
            ],
            "size": 0 if rejected else program["size"],
            "digest": "" if rejected else program["digest"],
            "lane": "" if rejected else program["lane"],
            "same_as": entrant.same_as,
            "cpu_s": entrant.cpu_s,
        }
        for name, value in row.items():
            self._columns[name].append(value)
        timeless = [value for name, value in row.items() if name not in ("cpu_s", "detail")]
        self._digest.update(_pack((*timeless, entrant.detail.partition(":")[0])))
        self.counts[entrant.verdict] += 1
        self.programs += entrant.same_as < 0 and not rejected
        self.rows += 1
        if self.rows % ROWS == 0:
            self._flush()

    def close(self) -> Path:
        """The finished file; there is none under its name before."""
        self._flush()
        assert self._file is not None
        self._file.close()
        os.replace(self.part, self.path)
        return self.path

    def _flush(self) -> None:
        import pyarrow
        from pyarrow import parquet

        schema = _schema()
        if self._file is None:
            self._file = parquet.ParquetWriter(self.part, schema, compression="zstd")
        if self._columns["number"]:
            self._file.write_table(pyarrow.table(self._columns, schema=schema))
        for column in self._columns.values():
            column.clear()


def _names() -> tuple[str, ...]:
    return (
        "number", "id", "task", "verdict", "detail", "passes", "score", "failed_at", "cases", "scores", "size", "digest", "lane",
        "same_as", "cpu_s",
    )  # fmt: skip


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    kinds = {
        "number": pa.int64(), "passes": pa.int32(), "score": pa.float64(), "failed_at": pa.int32(), "size": pa.int32(),
        "cases": pa.list_(pa.uint8()), "scores": pa.list_(pa.float64()), "same_as": pa.int64(), "cpu_s": pa.float64(),
    }  # fmt: skip
    return pa.schema([(name, kinds.get(name, pa.string())) for name in _names()])

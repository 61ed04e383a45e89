"""A table of ten million rows explained from Parquet to Parquet within a budget, on one core and on two. See `explain`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow
from pyarrow import parquet

from bench.harness import Bench

FEATURES, GROUP_ROWS, MEMORY = 10, 1_000_000, "1GiB"

EXPLAIN = """
import json, sys, time
import millrace as mr
folder, cores = sys.argv[1], int(sys.argv[2])
begun = time.perf_counter()
answer = mr.explain(f"{folder}/model.txt", f"{folder}/{sys.argv[3]}.parquet", stream=True, out=f"{folder}/out{cores}",
                    precision="float32", engine="processes", cores=cores, memory=sys.argv[4])
took = time.perf_counter() - begun
found = answer.report.accounting
print(json.dumps({"wall": took, "memory": found.memory_bytes, "rows": len(answer), "error": answer.additivity_error}))
"""


def make(folder: Path, name: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    names = [f"f{j}x" for j in range(FEATURES)]

    def block(count: int) -> Any:
        return pyarrow.table({name: rng.standard_normal(count, np.float32) for name in names})

    with parquet.ParquetWriter(folder / f"{name}.parquet", block(1).schema) as writer:
        for start in range(0, rows, GROUP_ROWS):
            writer.write_table(block(min(GROUP_ROWS, rows - start)), row_group_size=GROUP_ROWS)


def model(folder: Path) -> Any:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, FEATURES)).astype(np.float32)
    target = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3:] @ rng.standard_normal(FEATURES - 3)
    found = lightgbm.LGBMRegressor(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1)
    found.fit(pyarrow.table({f"f{j}x": x[:, j] for j in range(FEATURES)}).to_pandas(), target)
    found.booster_.save_model(folder / "model.txt")
    return found


def explained(folder: Path, name: str, cores: int) -> dict[str, Any]:
    call = [sys.executable, "-c", EXPLAIN, str(folder), str(cores), name, MEMORY]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(bench: Bench, rows: int) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        folder = Path(place)
        fitted = model(folder)
        make(folder, "rows", rows)
        found = explained(folder, "rows", 2)
        bench.figure(f"{rows:,} rows x {FEATURES}, LightGBM 100 x 31, Parquet to Parquet, 2 cores", found["wall"], "s")
        bench.figure("the same: peak private memory of all processes", found["memory"] / 2**20, "MiB", 1024)
        part = max(rows // 10, 300_000)
        make(folder, "part", part)
        one, two = explained(folder, "part", 1), explained(folder, "part", 2)
        bench.figure(
            f"{part:,} rows: time on one core over that on two", one["wall"] / two["wall"], "x", 1.85, at_most=False
        )
        bench.figure("streamed: share of reading and writing in the work of a part", share(folder, fitted), "", 0.5)


def share(folder: Path, fitted: Any) -> float:
    """Of the processor time of one part, what is not the values themselves."""
    from millrace.analyses.explain import blocks, parts
    from millrace.analyses.explain.kernels import structure, tree_models, trees
    from millrace.analyses.explain.parquet import Reader, open_source

    forest = tree_models.read_trees(fitted)
    assert forest is not None
    shape = structure.structure(forest)
    cut = trees.layout(forest, shape, 10_000_000, 0, "float32")
    laid = blocks.pack(forest, shape, cut, trees.base_values(forest, shape))
    source = open_source(folder / "part.parquet")
    form = parts.Form(source.columns, ("output",), {}, 0, "trees")
    place, took = (0, 0, 65_536), []
    for _ in range(3):
        with Reader() as reader:
            begun = time.process_time()
            parts.part_of_rows(
                reader, (0, place, ()), laid, -1, "float32", source=source, form=form, work=blocks.tree_rows
            )
            whole = time.process_time() - begun
            rows = reader.rows(source, place).values
        begun = time.process_time()
        blocks.tree_rows((0, len(rows)), rows, laid, -1, "float32")
        took.append(1 - (time.process_time() - begun) / whole)
    return float(np.median(took))

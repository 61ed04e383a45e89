"""A desk with what people have: a model file, tables, a module with functions, items; good ones and bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SIMULATE = '''
import os
import time


def square(item):
    return item * item


def flat(item):
    return {"item": item, "half": item / 2}


def words(text):
    return len(text.split())


def slow(item):
    """Tells each call, then takes its time."""
    with open("calls.log", "a") as file:
        file.write(f"{item}\\n")
    time.sleep(0.1)
    return item + 1


def long(item):
    """The first are quick, the others take longer than anybody waits."""
    with open("calls.log", "a") as file:
        file.write(f"{item}\\n")
    if item >= 5:
        time.sleep(600)
    return item + 1


def pause(item):
    time.sleep(0.1)
    return item


def bad(item):
    if item == 3:
        raise ValueError("three is not to be had")
    return item


def dies(item):
    os._exit(7)


def greedy(item):
    return len(bytearray(1 << 31))


THREE = 3
'''
ITEMS = 24


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by tests that leave nothing in it but runs of their own."""
    import lightgbm
    import numpy
    import pyarrow
    from pyarrow import csv, parquet

    at = tmp_path_factory.mktemp("desk")
    numbers = numpy.random.default_rng(0)
    names = ["age", "income", "rooms", "tenure"]
    x = numbers.normal(size=(600, 4))
    y = 2 * x[:, 0] + x[:, 1] * x[:, 2] + 0.1 * numbers.normal(size=600)
    options = {"num_leaves": 15, "num_threads": 1, "verbosity": -1, "seed": 0, "deterministic": True}
    model = lightgbm.train(options, lightgbm.Dataset(x, y, feature_name=names), 30)
    model.save_model(at / "model.txt")
    table = pyarrow.table({name: x[:, j] for j, name in enumerate(names)})
    parquet.write_table(table, at / "rows.parquet")
    csv.write_csv(table, at / "rows.csv")
    csv.write_csv(table.rename_columns(["age", "salary", "rooms", "tenure"]), at / "renamed.csv")
    (at / "broken.parquet").write_bytes(b"\x00\x01PAR1 this is no table \xff\xfe")
    (at / "broken.txt").write_bytes(b"tree\nversion=v4\nnum_class=one\n\xff\xfe")
    (at / "rows.doc").write_text("age,income\n1,2\n")
    (at / "simulate.py").write_text(SIMULATE)
    (at / "unimportable.py").write_text("import a_package_that_nobody_has\n")
    (at / "wrong.py").write_text("def f(:\n")
    (at / "items.jsonl").write_text("".join(f"{json.dumps(i)}\n" for i in range(ITEMS)))
    (at / "items.txt").write_text("one two\nthree\n")
    (at / "torn.jsonl").write_text("1\n{2\n3\n")
    (at / "none.jsonl").write_text("")
    return at

"""Seeded tables of all kinds of columns, with what holds between them."""

from __future__ import annotations

import numpy
import pyarrow


def people(rows: int = 3_000, seed: int = 0) -> pyarrow.Table:
    """Numbers, whole numbers, zero-inflated and heavy-tailed ones, categories, truth values, dates, missing ones, a constant
    and a key. spent <= income; total == spent + saved; city goes with its country."""
    rng = numpy.random.default_rng(seed)
    age = rng.integers(18, 91, rows)
    country = rng.choice(["north", "south", "west"], rows, p=[0.5, 0.3, 0.2])
    cities = {"north": ["aa", "ab"], "south": ["ba", "bb", "bc"], "west": ["ca"]}
    city = numpy.array([rng.choice(cities[c]) for c in country])
    income = numpy.exp(rng.normal(10 + 0.01 * age, 0.6)).round(2)
    spent = (income * rng.beta(2, 4, rows)).round(2)
    saved = numpy.where(rng.random(rows) < 0.6, 0.0, rng.exponential(900, rows)).round(2)
    score = rng.normal(size=rows) + 0.05 * age + (country == "west")
    absent = rng.random(rows) < 0.08 + 0.1 * (age > 60)
    return pyarrow.table({
        "id": pyarrow.array([f"p{i:06d}" for i in range(rows)]),
        "age": pyarrow.array(age.astype("int32")),
        "country": country,
        "city": city,
        "income": income,
        "spent": spent,
        "saved": saved,
        "total": spent + saved,
        "score": pyarrow.array(score, mask=absent),
        "member": score > 2.5,
        "joined": pyarrow.array(18_000 + rng.integers(0, 900, rows), pyarrow.int32()).cast(pyarrow.date32()),
        "unit": ["eur"] * rows,
    })  # fmt: skip


KEYED = {"columns": {"id": {"kind": "key"}}}

"""Twins are of the population: the same row by row wherever they are made, within all that holds, and conditioned exactly."""

from __future__ import annotations

import json

import numpy
import populations
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millrace as mr
from millrace.analyses.twin.generate import Sampler
from millrace.analyses.twin.joint import Joint
from millrace.analyses.twin.kernels import measures
from millrace.analyses.twin.model import load
from millrace.analyses.twin.where import clauses
from millrace.run.errors import WrongQuestion


def test_row_i_is_the_same_for_every_number_of_twins_and_part(model, indexed):
    for m in (model, indexed):
        sampler = Sampler(m)
        whole = sampler.draw(2_000, 5)
        assert sampler.draw(700, 5).equals(whole.slice(0, 700))
        assert sampler.draw(300, 5, first=900).equals(whole.slice(900, 300))
        assert not sampler.draw(2_000, 6).equals(whole)


def test_types_are_those_of_the_data(model, table):
    twins = Sampler(model).draw(500)
    assert twins.schema.names == table.schema.names
    for field in table.schema:
        assert twins.schema.field(field.name).type == field.type
    assert twins["score"].null_count > 0
    assert all(twins[n].null_count == 0 for n in twins.column_names if n != "score")
    assert set(twins["city"].to_pylist()) <= set(table["city"].to_pylist())
    income = twins["income"].to_numpy()
    numpy.testing.assert_allclose(income, income.round(2), atol=1e-9)


def test_all_that_holds_on_real_rows_is_found_and_holds_on_every_twin(model, table):
    said = {c["said"] for c in model.constraints}
    assert {"total == spent + saved", "spent <= income"} <= said
    twins = Sampler(model).draw(20_000, 3)
    v = {n: twins[n].to_numpy() for n in ("spent", "saved", "total", "income", "age")}
    assert (v["spent"] <= v["income"]).all()
    numpy.testing.assert_allclose(v["total"], v["spent"] + v["saved"])
    real = set(zip(table["country"].to_pylist(), table["city"].to_pylist(), strict=True))
    assert set(zip(twins["country"].to_pylist(), twins["city"].to_pylist(), strict=True)) <= real
    assert len(set(twins["id"].to_pylist())) == 20_000
    assert not set(twins["id"].to_pylist()) & set(table["id"].to_pylist())
    assert v["age"].min() >= 18
    assert v["age"].max() <= 90


def test_no_exact_value_of_a_number_is_copied_unless_it_is_common():
    rng = numpy.random.default_rng(0)
    x = rng.normal(size=4_000)
    y = numpy.where(rng.random(4_000) < 0.3, 0.0, x + rng.normal(size=4_000))
    m = mr.twin.fit(pyarrow.table({"x": x, "y": y}), engine="inline", joint="plain")
    twins = Sampler(m).draw(20_000)
    for name, real in (("x", x), ("y", y)):
        drawn = twins[name].to_numpy()
        copied = numpy.isin(drawn, real) & (drawn != 0.0)
        assert not copied.any()
    assert (twins["y"].to_numpy() == 0.0).mean() == pytest.approx(0.3, abs=0.03)


def test_twins_have_the_shape_and_trend_of_the_data(model, indexed, table):
    real = table.to_pandas()[["age", "income", "spent", "score"]].to_numpy(dtype=float)
    none = numpy.zeros(4, bool)
    for m in (model, indexed):
        twins = Sampler(m).draw(6_000, 1).to_pandas()[["age", "income", "spent", "score"]].to_numpy(dtype=float)
        assert measures.shapes(real, twins, none).min() > 0.965
        assert measures.trends(real, twins, none).min() > 0.95


# -- conditions --------------------------------------------------------------------------------------------------------
CONDITIONS = (
    "country == 'west'",
    "age >= 60 and country == 'south'",
    "member == True and age < 40",
    "income > 40000 and city in ['aa', 'bc']",
    "score is None and age >= 50",
    "country == 'north' or age < 30",
    "spent * 2 > income",
)


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_holds_on_every_twin_and_the_law_is_that_of_filtered_twins(model, text):
    """Conditional draws against the plain ones that happen to satisfy the condition: every column's distribution."""
    sampler = Sampler(model)
    free = sampler.draw(60_000, 11)
    parts = clauses(text, sampler.joint.columns)

    def held(twins):
        columns = {n: twins[n] for n in twins.column_names}

        def get(name):
            column = columns[name]
            if pyarrow.types.is_string(column.type):
                return numpy.array(column.to_pylist(), object)
            return numpy.array([numpy.nan if v is None else float(v) for v in column.to_pylist()])

        return numpy.logical_and.reduce([p.holds(get) for p in parts])

    filtered = free.filter(pyarrow.array(held(free)))
    drawn = sampler.draw(min(4_000, filtered.num_rows), 12, where=text)
    assert held(drawn).all()
    for name in ("age", "income", "spent", "saved"):
        a, b = filtered[name].to_numpy().astype(float), drawn[name].to_numpy().astype(float)
        far = 1 - measures.shapes(a[:, None], b[:, None], numpy.array([False]))[0]
        assert far < 2.2 * numpy.sqrt(1 / len(a) + 1 / len(b)), name
    for name in ("country", "city"):
        levels = sorted(set(filtered[name].to_pylist()))
        p, q = (numpy.array([t[name].to_pylist().count(v) / t.num_rows for v in levels]) for t in (filtered, drawn))
        assert numpy.abs(p - q).max() < 4.5 * numpy.sqrt(0.25 * (1 / filtered.num_rows + 1 / drawn.num_rows)), name


def test_conditional_draws_need_fewer_attempts_than_plain_rejection(model):
    joint = Joint(model.plain)
    rows = numpy.arange(3_000)
    plain = joint.get(joint.draw(rows, 4), 4)("member").mean()
    drawn = joint.draw(rows, 4, joint.condition(clauses("member == True", joint.columns)))
    share = len(rows) / (drawn.attempts.sum() + len(rows))
    assert share > 1.2 * plain


def test_a_condition_that_no_twin_can_satisfy_is_an_error_before_the_work(model):
    for text, said in (
        ("income > 1e9", "No twin can satisfy 'income > "),
        ("country == 'west' and city == 'aa'", "did not satisfy"),
        ("age >= 60 and age <= 50", "wrong way round"),
        ("country == 'east'", "has no level 'east'"),
        ("id == 'p1'", "follows from other things"),
    ):
        with pytest.raises(WrongQuestion, match=said):
            mr.twin.generate(model, 500, where=text, attempts=200, engine="inline")


# -- the laws ----------------------------------------------------------------------------------------------------------
def test_a_model_is_the_same_on_every_engine_and_loads_again(model, table, tmp_path):
    other = mr.twin.fit(table, schema=populations.KEYED, joint="plain", engine="processes", cores=2)
    assert other.digest == model.digest
    place = model.keep(tmp_path)
    assert place.name == f"twin-{model.digest[:16]}"
    again = load(tmp_path)
    assert again.digest == model.digest
    assert Sampler(again).draw(200).equals(Sampler(model).draw(200))
    assert not list(place.rglob("*.pkl"))
    assert sum(f.stat().st_size for f in place.rglob("*")) < 5e6


def test_twins_are_the_same_on_every_engine_and_a_second_run_computes_nothing(model, tmp_path):
    made = [
        mr.twin.generate(
            model, 70_000, out=tmp_path / f"{engine}.parquet", engine=engine, cores=2, store=tmp_path / "store"
        )
        for engine in ("inline", "processes")
    ]
    assert made[0].digest == made[1].digest
    assert made[0].table.equals(made[1].table)
    assert (
        made[1].report.accounting.as_dict()["cached"] == 2 if "cached" in made[1].report.accounting.as_dict() else True
    )
    assert mr.twin.sample(model, 50).equals(made[0].table.slice(0, 50))


def test_a_file_under_its_name_is_whole(model, tmp_path, monkeypatch):
    from millrace.analyses.twin import tabling

    def broken(*given):
        raise RuntimeError("torn")

    monkeypatch.setattr(tabling, "table_of", broken)
    with pytest.raises(Exception, match="torn"):
        mr.twin.generate(model, 100, out=tmp_path / "twins.parquet", engine="inline")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_cut_off_is_no_model(model, tmp_path):
    place = model.keep(tmp_path) / "model.json"
    place.write_text(place.read_text()[:200])
    with pytest.raises(WrongQuestion, match="not a whole model.*Fit it again"):
        mr.twin.generate(place.parent, 10, engine="inline")


def test_a_model_of_a_later_format_says_what_to_do(model, tmp_path):
    place = model.keep(tmp_path) / "model.json"
    said = json.loads(place.read_text())
    place.write_text(json.dumps(said | {"format": 99}))
    with pytest.raises(WrongQuestion, match="format 99.*Fit it again"):
        load(tmp_path)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(200, 600))
def test_constraints_hold_whatever_the_table(seed, rows):
    """low <= middle <= high and a whole number that is their count, with missing values."""
    rng = numpy.random.default_rng(seed)
    x = numpy.sort(rng.normal(size=(rows, 3)) * 10, axis=1)
    x[rng.random(rows) < 0.1, 1] = numpy.nan
    kind = rng.integers(0, 3, rows)
    table = pyarrow.table({
        "middle": pyarrow.array(x[:, 1], mask=numpy.isnan(x[:, 1])), "high": x[:, 2], "kind": kind, "low": x[:, 0],
    })  # fmt: skip
    m = mr.twin.fit(table, constraints="low <= middle; middle <= high; low <= high", engine="inline", joint="plain")
    twins = Sampler(m).draw(1_000, seed).to_pandas()
    assert not (twins.low > twins.middle).any()
    assert not (twins.middle > twins.high).any()
    assert not (twins.low > twins.high).any()
    assert set(twins.kind) <= set(kind.tolist())

"""Random numbers belong to (seed, test, simulation): never to a batch, and they have the law that they should."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from millrace.analyses.refute.kernels import resample
from millrace.run.errors import WrongQuestion

MASK = (1 << 64) - 1
GOLDEN, A, B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * A) & MASK
    z = ((z ^ (z >> 27)) * B) & MASK
    return z ^ (z >> 31)


def start(seed: int, kind: int, i: int, piece: int) -> int:
    state = mix((seed + GOLDEN) & MASK) + kind * GOLDEN
    state = mix(state & MASK) + i * A
    return mix((mix(state & MASK) + piece * B) & MASK)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 3000),
    test=st.sampled_from(["bootstrap", "subset"]),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 10_000),
    grouped=st.booleans(),
    kept=st.sampled_from([0, 1 << 30]),
)
def test_a_simulation_does_not_depend_on_its_batch(n, test, seed, first, grouped, kept):
    clusters = numpy.arange(n) // 3 if grouped else None
    batch = resample.Counts(n, test, seed, first, 4, 0.8, clusters, kept)
    whole = batch.rows()
    for b in range(4):
        alone = resample.counts(n, test, seed, first + b, clusters=clusters)
        assert alone.dtype == numpy.uint8
        assert numpy.array_equal(whole[b], alone)
    again = batch.chunk(batch.chunks - 1)
    assert numpy.array_equal(again, whole[:, (batch.chunks - 1) * resample.CHUNK :])


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 5000), fraction=st.floats(0.1, 0.95), seed=st.integers(0, 2**32))
def test_totals_are_exact(n, fraction, seed):
    assert resample.counts(n, "bootstrap", seed, 3).sum() == n
    subset = resample.counts(n, "subset", seed, 3, fraction=fraction)
    assert subset.sum() == round(fraction * n)
    assert subset.max(initial=0) <= 1


def test_a_whole_piece_uses_six_draws_of_each_number():
    totals = numpy.array([1000], numpy.int64)
    out = numpy.empty((1, 1024), numpy.uint8)
    resample._draw(*(numpy.uint64(x) for x in (5, 1, 7, 2)), totals, out)
    state, expected, done = start(5, 1, 7, 2), numpy.zeros(1024, int), 0
    while done + 6 <= 1000:
        state = (state + GOLDEN) & MASK
        z = mix(state)
        for place in range(6):
            expected[(z >> (10 * place)) & 1023] += 1
        done += 6
    while done < 1000:
        state = (state + GOLDEN) & MASK
        expected[((mix(state) >> 32) * 1024) >> 32] += 1
        done += 1
    assert numpy.array_equal(out[0], expected)


def test_bootstrap_counts_follow_the_multinomial():
    n, sims = 2500, 400
    rows = resample.Counts(n, "bootstrap", 11, 0, sims).rows().astype(int)
    pooled = numpy.bincount(rows.ravel(), minlength=8)[:8]
    expected = stats.binom.pmf(numpy.arange(8), n, 1 / n) * n * sims
    assert stats.chisquare(pooled[:7], expected[:7] * pooled[:7].sum() / expected[:7].sum()).pvalue > 1e-4
    per_row = rows.sum(0)
    assert ((per_row - sims) ** 2 / (sims * (1 - 1 / n))).sum() == pytest.approx(n, abs=5 * numpy.sqrt(2 * n))
    half = rows[:, : n // 2].sum(1)
    assert half.var() == pytest.approx(n / 4, rel=0.35)  # totals of halves vary as binomial numbers do


def test_subsets_take_every_row_and_pair_equally_often():
    n, sims = 1500, 600
    rows = resample.Counts(n, "subset", 3, 0, sims, 0.8).rows().astype(float)
    share = rows.mean(0)
    assert ((share - 0.8) ** 2 / (0.16 / sims)).sum() == pytest.approx(n, abs=6 * numpy.sqrt(2 * n))
    half = rows[:, :700].sum(1)
    law = stats.hypergeom(n, 1200, 700)
    assert half.mean() == pytest.approx(law.mean(), abs=5 * law.std() / numpy.sqrt(sims))
    assert half.std() == pytest.approx(law.std(), rel=0.2)


def test_clusters_come_whole():
    clusters = numpy.random.default_rng(0).permutation(numpy.repeat(numpy.arange(1300), 2))
    for test, total in (("bootstrap", 1300), ("subset", 1040)):
        rows = resample.counts(2600, test, 5, 9, clusters=clusters)
        first = numpy.array([rows[clusters == g][0] for g in range(1300)])
        assert numpy.array_equal(first[clusters], rows)
        assert first.sum() == total


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 300),
    groups=st.integers(1, 12),
    seed=st.integers(0, 2**63),
    i=st.integers(0, 999),
    stratified=st.booleans(),
)
def test_a_placebo_is_a_permutation_inside_strata(n, groups, seed, i, stratified):
    rng = numpy.random.default_rng(seed)
    treatment = rng.standard_normal(n)
    strata = numpy.unique(rng.integers(0, groups, n), return_inverse=True)[1] if stratified else None
    placebo = resample.permuted(treatment, seed, i, strata=strata)
    for g in range(1 if strata is None else strata.max() + 1):
        members = numpy.ones(n, bool) if strata is None else strata == g
        assert numpy.array_equal(numpy.sort(placebo[members]), numpy.sort(treatment[members]))
    codes = numpy.empty(n, numpy.float32)
    resample.Shuffler(treatment.astype(numpy.float32), strata).write(codes, seed, i)
    assert numpy.array_equal(codes, placebo.astype(numpy.float32))  # places do not depend on the dtype


def test_permutations_are_uniform():
    seen = [tuple(resample.permuted(numpy.arange(4.0), 1, i)) for i in range(4800)]
    _, frequency = numpy.unique(seen, axis=0, return_counts=True)
    assert len(frequency) == 24
    assert stats.chisquare(frequency).pvalue > 1e-4


def test_treatments_of_clusters_move_between_clusters():
    clusters = numpy.repeat(numpy.arange(40), 5)
    by_cluster = numpy.arange(40.0)
    placebo = resample.permuted(by_cluster[clusters], 1, 0, clusters=clusters)
    assert numpy.array_equal(placebo, placebo[::5][clusters])
    assert numpy.array_equal(numpy.sort(placebo[::5]), by_cluster)
    assert not numpy.array_equal(placebo[::5], by_cluster)
    strata = clusters // 20
    placebo = resample.permuted(by_cluster[clusters], 1, 0, clusters=clusters, strata=strata)
    assert set(placebo[:100]) == set(by_cluster[:20])
    with pytest.raises(WrongQuestion, match="more than one stratum"):
        resample.permuted(by_cluster[clusters], 1, 0, clusters=clusters, strata=numpy.arange(200) % 2)


def test_treatments_that_vary_inside_clusters_stay_together_and_go_elsewhere():
    rng = numpy.random.default_rng(2)
    clusters = rng.permutation(numpy.repeat(numpy.arange(15), 20))
    treatment = clusters + rng.uniform(0, 0.5, 300)  # its whole part tells where it came from
    seen = []
    for i in range(30):
        placebo = resample.permuted(treatment, 4, i, clusters=clusters)
        assert numpy.array_equal(numpy.sort(placebo), numpy.sort(treatment))
        for g in range(15):
            assert (
                len(numpy.unique(placebo[clusters == g].astype(int))) <= 2
            )  # the end of one cluster, the beginning of another
        seen.append(numpy.corrcoef(placebo, treatment)[0, 1])
    assert abs(numpy.mean(seen)) < 4 * numpy.std(seen) / numpy.sqrt(30)


def test_random_columns_are_normal_and_belong_to_their_simulation():
    columns = numpy.array([resample.column(20_000, 9, i) for i in range(20)])
    assert stats.kstest(columns.ravel(), "norm").pvalue > 1e-3
    assert abs(columns).max() > 3.6  # the tail beyond the last layer is drawn too
    assert abs(numpy.corrcoef(columns) - numpy.eye(20)).max() < 0.04
    assert abs(numpy.corrcoef(columns[0, ::2], columns[0, 1::2])[0, 1]) < 0.05
    batch = numpy.empty((5, 1024), numpy.float32)
    resample.normals("random_cause", 9, 3, 1, batch)
    assert numpy.array_equal(batch[2], columns[5, 1024:2048])


def test_the_tail_of_the_normal_has_its_weight():
    columns = numpy.concatenate([resample.column(500_000, 1, i) for i in range(6)])
    for limit in (0.3, 2.0, 3.442619855899, 4.0):
        expected = 2 * stats.norm.sf(limit) * columns.size
        assert (abs(columns) > limit).sum() == pytest.approx(expected, abs=5 * numpy.sqrt(expected))


def test_a_regenerated_treatment_has_its_mean_and_spread():
    treatment = numpy.random.default_rng(0).gamma(2.0, 3.0, 4000)
    made = resample.regenerated(treatment, 3, 8)
    assert made.mean() == pytest.approx(treatment.mean(), abs=5 * treatment.std() / 63)
    assert made.std() == pytest.approx(treatment.std(), rel=0.06)
    assert not numpy.array_equal(made, resample.regenerated(treatment, 3, 9))


def test_seeds_tests_and_simulations_have_different_numbers():
    made = {
        tuple(resample.counts(60, test, seed, i)) for test in ("bootstrap", "subset") for seed in (0, 1) for i in (0, 1)
    }
    assert len(made) == 8


def test_only_weighing_tests_have_counts():
    with pytest.raises(WrongQuestion, match="placebo"):
        resample.Counts(10, "placebo", 0, 0, 1)

"""Every rule says what its figures say, in the direction that it names; and alarms falsely as
rarely as it says."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from millrace.analyses.refute import blocks, overlap, records, rosenbaum, rules, sensitivity, verdicts, words
from millrace.analyses.refute.rules import Thresholds
from millrace.analyses.refute.study import Fit
from millrace.run.errors import WrongQuestion

sys.path.insert(0, os.fspath(Path(__file__).parent))
import worlds

FIT = Fit(0.5, 0.1, 0.1, 400, "HC3", {})


def normal(b: int, mean: float, sd: float, seed: int = 0) -> np.ndarray:
    """Exactly this mean and sd, so that a verdict does not hang on the draw."""
    x = np.random.default_rng(seed).normal(size=b)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


# -- thresholds ----------------------------------------------------------------------------------------------------
def test_thresholds_are_overridden_by_name_and_nothing_else():
    made = Thresholds.of({"smd_pass": 0.05, "subset_pass": [0.9, 1.1], "least_simulations": 10})
    assert (made.smd_pass, made.subset_pass, made.least_simulations) == (0.05, (0.9, 1.1), 10)
    assert replace(made, smd_pass=0.1, subset_pass=(0.8, 1.25), least_simulations=20) == Thresholds()


@pytest.mark.parametrize(
    ("given_thresholds", "says"),
    [
        ({"smd_pas": 0.1}, "did you mean 'smd_pass'"),
        ({"wrong": 1}, "there are placebo_errors"),
        ({"smd_pass": "x"}, "one number"),
        ({"smd_pass": float("nan")}, "one number"),
        ({"blocks_pass": -1}, "one number"),
        ({"subset_pass": 1.0}, "two numbers"),
        ({"subset_pass": (0.5, 1.2)}, "inside subset_warning"),
        ({"smd_pass": 0.3}, "easier than a warning"),
        ({"alpha": 0}, "above 0"),
        ({"propensity_limits": (0.9, 0.1)}, "range inside 0 to 1"),
    ],
)
def test_thresholds_that_make_no_sense_are_errors(given_thresholds, says):
    with pytest.raises(WrongQuestion, match=says):
        Thresholds.of(given_thresholds)


def test_holm_is_holms():
    assert rules.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert rules.holm([0.9, 0.8]) == [1.0, 1.0] and rules.holm([]) == []


# -- placebo -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mean", "status"),
    [(0.0, "passed"), (0.08, "passed"), (0.15, "warning"), (0.45, "warning"), (0.6, "failed"), (-0.6, "failed")],
)
def test_a_placebo_fails_only_when_it_is_off_by_more_than_chance_and_by_much(mean, status):
    found = rules.placebo(normal(1000, mean, 1.0), np.ones(1000), FIT)
    assert found.status == status and found.refuted_effect == pytest.approx(mean)
    assert found.statistic == pytest.approx(abs(mean) * np.sqrt(1000))


def test_the_studentised_p_counts_the_placebos_that_reach_the_estimate():
    effects = np.concatenate([np.full(38, 0.1), np.full(38, -0.1), np.full(4, 0.9), np.full(19, 0.0)])
    errors = np.concatenate([np.full(76, 0.1), np.full(4, 0.1), np.full(19, 0.1)])
    found = rules.placebo(effects, errors, FIT)
    assert found.p_value == pytest.approx((1 + 4) / 100)
    assert "a small p speaks for an effect" in found.sentence
    # The same raw effects with wider errors do not reach it: what counts is effect over error.
    assert rules.placebo(effects, errors * 10, FIT).p_value == pytest.approx(1 / 100)
    assert rules.placebo(effects, None, FIT).p_value is None
    assert rules.placebo(effects, np.where(np.arange(99) < 3, np.nan, errors), FIT).p_value is None


def test_p_is_no_part_of_the_placebos_verdict():
    weak = replace(FIT, effect=0.01)
    found = rules.placebo(normal(400, 0.0, 0.1), np.full(400, 0.1), weak)
    assert found.status == "passed" and found.p_value is not None and found.p_value > 0.5
    assert "does not stand out" in found.sentence


def test_an_estimator_that_ignores_the_treatment_fails():
    assert rules.placebo(np.full(100, 0.5), np.ones(100), FIT).status == "failed"
    assert rules.bootstrap(np.full(100, 0.5), FIT).status == "failed"


# -- the other simulations -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ratio", "status"), [(1.0, "passed"), (1.3, "warning"), (0.7, "warning"), (1.6, "failed"), (0.5, "failed")]
)
def test_spread_is_held_against_what_the_standard_error_promises(ratio, status):
    boot = rules.bootstrap(normal(500, 0.5, 0.1 * ratio), FIT)
    part = rules.subset(normal(500, 0.5, 0.1 * ratio * np.sqrt(0.3 / 0.7)), FIT, 0.7)
    assert boot.status == part.status == status
    assert boot.statistic == pytest.approx(ratio) == part.statistic
    assert "nothing about hidden confounding" in boot.sentence


def test_the_three_intervals_are_their_definitions():
    effects = np.random.default_rng(1).exponential(1, 4000)
    found = rules.bootstrap(effects, replace(FIT, effect=0.8, se=1.0)).details["intervals"]
    low, high = np.quantile(effects, [0.025, 0.975])
    assert found["percentile"] == pytest.approx((low, high)) and found["basic"] == pytest.approx(
        (1.6 - high, 1.6 - low)
    )
    middle = 1.6 - effects.mean()
    assert found["normal"] == pytest.approx(
        (middle - 1.959964 * effects.std(ddof=1), middle + 1.959964 * effects.std(ddof=1))
    )


def test_a_classical_error_that_is_wrong_is_said_and_no_more():
    found = rules.bootstrap(normal(300, 0.5, 0.1), replace(FIT, se_classic=0.05))
    assert found.status == "passed" and "use robust errors" in found.sentence


def test_noise_under_the_law_of_least_squares_checks_the_software():
    law = 0.1 / np.sqrt(400)
    product = np.prod(np.random.default_rng(0).normal(size=(2, 1000)), axis=0) * law
    right = rules.random_common_cause(0.5 + product, FIT, law_sd=law)
    assert right.status == "passed" and "no evidence" in right.sentence
    assert rules.random_common_cause(0.5 + 3 * product, FIT, law_sd=law).status == "failed"
    assert rules.random_common_cause(0.5 + 0.02 * product, FIT, law_sd=law).status == "failed"


@pytest.mark.parametrize(("change", "status"), [(0.02, "passed"), (0.04, "warning"), (0.08, "failed")])
def test_noise_that_moves_another_estimator_counts_against_it(change, status):
    assert rules.random_common_cause(normal(200, 0.5, change), FIT).status == status


@pytest.mark.parametrize("test", ["placebo", "subset", "bootstrap", "random_common_cause"])
def test_more_than_one_in_twenty_failures_fails_the_test_and_few_simulations_skip_it(test):
    def run(effects: np.ndarray) -> rules.TestResult:
        if test == "placebo":
            return rules.placebo(effects, None, FIT)
        return getattr(rules, test)(effects, FIT)

    good = normal(100, 0.5 if test != "placebo" else 0.0, 0.05 if test != "bootstrap" else 0.1)
    if test == "random_common_cause":
        good = normal(100, 0.5, 0.01)
    assert run(good).status == "passed"
    five, six = good.copy(), good.copy()
    five[:5], six[:6] = np.nan, np.nan
    assert run(five).status == "passed" and run(five).failed_simulations == 5 and run(five).simulations == 100
    assert run(six).status == "failed" and "6 of 100" in run(six).sentence
    assert run(good[:19]).status == "skipped"


# -- data and fits -------------------------------------------------------------------------------------------------
def found_blocks(effects: list[float], errors: list[float]) -> blocks.Blocks:
    k = len(effects)
    return blocks.Blocks(
        tuple(f"b{i}" for i in range(k)), (100,) * k, np.array(effects), np.array(errors), "rows in their order"
    )


@pytest.mark.parametrize(("apart", "status"), [(0.1, "passed"), (0.33, "warning"), (0.5, "failed")])
def test_blocks_that_disagree_count_against_the_estimate(apart, status):
    found = rules.blocks(found_blocks([0.5, 0.5 + apart, 0.5, 0.5 - apart / 2, 0.5], [0.1] * 5), FIT)
    assert found.status == status and f"p {words.probability(found.p_value)}" in found.sentence


def test_a_block_without_an_estimate_is_never_a_smaller_sample():
    found = rules.blocks(found_blocks([0.5, np.nan, 0.5, 0.5, 0.5], [0.1] * 5), FIT)
    assert found.status == "failed" and "`b1`" in found.sentence and found.p_value is None


def test_a_negative_control_must_show_nothing():
    nothing, something = replace(FIT, effect=0.1, se=0.1), replace(FIT, effect=0.21, se=0.1)
    assert rules.negative_control({"a": nothing}, FIT).status == "passed"
    found = rules.negative_control({"a": something}, FIT)
    assert found.status == "failed" and "`a`" in found.reason and not found.details["low"] <= 0 <= found.details["high"]
    assert rules.negative_control({"a": something, "b": nothing}, FIT).status == "passed"  # 2 x .036
    assert rules.negative_control({}, FIT).status == "skipped"


def balance(largest: float, outside: float, ess: float) -> overlap.Overlap:
    after = np.array([0.01, -largest])
    return overlap.Overlap(
        "smd", ("age", "size"), np.array([0.5, 0.1]), after, (0.05, 0.95), outside, (50, 50), (50, 50), ess, None, None
    )


@pytest.mark.parametrize(
    ("largest", "outside", "ess", "status", "decisive"),
    [
        (0.05, 0.01, 0.9, "passed", None), (0.15, 0.01, 0.9, "warning", "`size`"), (0.25, 0.07, 0.9, "failed", "`size`"),
        (0.05, 0.07, 0.9, "warning", "7 %"), (0.05, 0.2, 0.3, "failed", "20 %"), (0.05, 0.01, 0.1, "failed", "10 %"),
    ],
)  # fmt: skip
def test_overlap_is_as_good_as_its_worst_part(largest, outside, ess, status, decisive):
    found = rules.overlap(balance(largest, outside, ess), FIT)
    assert found.status == status and (decisive is None or decisive in found.reason)


@pytest.mark.parametrize(
    ("share", "status"),
    [((0.05, 0.05), "passed"), ((0.12, 0.12), "warning"), ((0.2, 0.2), "failed"), ((0.009, 0.109), "passed")],
)
def test_sensitivity_is_measured_by_the_strongest_observed_confounder(share, status):
    measured = sensitivity.measure(0.09731582, 0.02325654, 783, {"weak": (0.001, 0.001), "female": share})
    found = rules.sensitivity(measured, FIT, e=sensitivity.e_value(3.0, 2.0, 4.0))
    assert found.status == status and "`female`" in found.sentence and found.details["e_value_status"] == "passed"
    assert found.threshold == pytest.approx(measured.strongest_strength)


def test_without_an_observed_confounder_there_is_a_warning_at_best():
    assert rules.sensitivity(sensitivity.measure(1.0, 0.1, 100, {}), FIT).status == "warning"
    tiny = rules.sensitivity(sensitivity.measure(0.1, 0.1, 100, {"a": (0.5, 0.5)}), FIT)
    assert tiny.status == "failed"


def test_matched_pairs_say_how_much_hidden_bias_undoes_them():
    pairs = rosenbaum.bounds(np.random.default_rng(0).normal(0.8, 1, 100))
    said = rules.sensitivity(sensitivity.measure(1.0, 0.1, 100, {}), FIT, matched=pairs)
    assert words.figure(pairs.gamma) in said.sentence and said.details["gamma"] == pairs.gamma


@pytest.mark.parametrize(
    ("ratio", "low", "status"),
    [
        (3.0, 1.5, "passed"),
        (1.25, 1.1, "warning"),
        (1.05, 1.01, "failed"),
        (3.0, 0.9, "warning"),
        (1 / 3, 0.2, "passed"),
    ],
)
def test_an_e_value_is_no_better_than_its_interval(ratio, low, status):
    high = 9.0 if ratio > 1 else 0.8
    assert rules.e_value(sensitivity.e_value(ratio, low, high), FIT).status == status


def test_other_estimators_agree_within_two_errors_of_the_difference():
    own = normal(400, 0.5, 0.1)
    joint = np.column_stack([own, own + normal(400, 0.0, 0.02, 1)])
    near, far = replace(FIT, effect=0.53), replace(FIT, effect=0.56)
    assert rules.estimators(FIT, {"aipw": near}, {"aipw": joint}).status == "passed"
    found = rules.estimators(FIT, {"aipw": far}, {"aipw": joint})
    assert found.status == "failed" and found.statistic == pytest.approx(3, rel=0.02)
    assert rules.estimators(FIT, {"same": FIT}, {"same": np.column_stack([own, own])}).status == "passed"
    assert rules.estimators(FIT, {}, {}).status == "skipped"


def test_specifications_are_shown_without_a_verdict():
    found = rules.specification(["all", "none", "log"], np.array([0.5, -0.1, 0.4]), np.array([0.1, 0.1, np.nan]), FIT)
    assert found.status == "shown" and "no verdict" in found.sentence and found.statistic == pytest.approx(2 / 3)


def test_several_outcomes_are_corrected_and_judged_anew():
    results = [rules.blocks(found_blocks([0.5, 0.5 + a, 0.5], [0.1] * 3), FIT) for a in (0.3, 0.05, 0.31)]
    assert results[0].status == "warning"
    found = rules.corrected(results, Thresholds())
    assert [r.p_value for r in found] == pytest.approx(rules.holm([r.p_value for r in results]))
    assert found[0].status == "passed" and "Holm-corrected over 3" in found[0].sentence
    assert found[0].details["p_uncorrected"] == results[0].p_value
    with pytest.raises(WrongQuestion):
        rules.corrected([results[0], rules.specification(["a"], np.ones(1), np.ones(1), FIT)], Thresholds())


# -- words and records ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def one_world() -> list[rules.TestResult]:
    return worlds.all_results(worlds.world(4), 4)


def test_every_result_has_a_sentence_a_reason_and_a_direction(one_world):
    for r in one_world:
        assert r.sentence.endswith(".") and r.direction and r.reason and not r.reason.endswith(".")
        assert "nan" not in r.sentence.lower() and "  " not in r.sentence
        if r.p_value is not None:
            assert "small" in r.sentence  # which way round p reads
        if r.name in verdicts.FALSE_ALARM_SHARES:
            assert r.false_alarm is not None and "worlds" in r.false_alarm


def test_a_record_has_the_eight_fields_and_plain_values(one_world):
    import json

    for row, r in zip(records.records(one_world, 0.5, {"placebo": 0.25}), one_world, strict=True):
        assert tuple(row) == records.FIELDS and (row["test_name"], row["status"]) == (r.name, r.status)
        assert row["details"]["sentence"] == r.sentence and row["execution_time_ms"] == (
            250 if r.name == "placebo" else None
        )
        json.dumps(row, allow_nan=False)
    assert records.record(rules.skipped("overlap", "no propensity"), 0.5)["p_value"] is None


def test_figures_read_as_people_write_them():
    assert [words.figure(v) for v in (0.04213, 52_310.4, 0, 1.2e-7, float("nan"))] == [
        "0.0421",
        "52,310",
        "0",
        "1.20e-07",
        "unknown",
    ]
    assert words.measured(-0.00112, 0.00213) == "-0.0011 ± 0.0021" and words.measured(-1e-9, 0.01) == "0.000 ± 0.010"
    assert words.times(0.5) == "half as strong as" and words.times(2.3) == "2.3 times as strong as"
    assert words.probability(0.0002) == "< 0.001" and words.listed("abc") == "`a`, `b` and `c`"


# -- false alarms and power ----------------------------------------------------------------------------------------
def not_passed(seeds: range, **options: float) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        its = worlds.world(seed, **options)  # type: ignore[arg-type]
        found.update(r.name for r in worlds.all_results(its, seed, noise=False) if r.status != "passed")
    return found


def test_false_alarms_are_as_rare_as_they_are_said_to_be():
    worlds_tried = 150
    found = not_passed(range(worlds_tried))
    for name, share in verdicts.FALSE_ALARM_SHARES.items():
        error = np.sqrt(max(share, 1 / worlds_tried) * (1 - share) / worlds_tried)
        assert abs(found[name] / worlds_tried - share) < 4 * error, name


def test_the_negative_control_finds_hidden_confounding_and_the_resampling_tests_do_not():
    found = not_passed(range(40), hidden=0.4)
    assert found["negative_control"] > 27
    assert found["placebo"] + found["subset"] + found["bootstrap"] < 5
    assert not_passed(range(40), drift=1.5)["blocks"] > 20


def test_a_broken_estimator_fails_the_placebo():
    its = worlds.world(0)
    y, t = its.outcome + 3, its.treatment + 2
    found = rules.placebo(*worlds.permuted(0, t, y, its.confounders, 200, constant=False), FIT)
    assert found.status == "failed"


def test_thresholds_have_no_units():
    assert all(isinstance(f.default, float | int | tuple) for f in fields(Thresholds))


# -- what is said ----------------------------------------------------------------------------------------------------
def test_noise_may_move_a_matched_estimate_by_half_its_error():
    matched = replace(FIT, how="Abadie-Imbens, score taken as known")
    moved = normal(200, 0.5, 0.06)  # .6 standard errors, as in worlds whose estimate is right
    assert rules.random_common_cause(moved, matched).status == "passed"
    assert rules.random_common_cause(moved, FIT).status == "failed"
    assert rules.random_common_cause(normal(200, 0.5, 0.2), matched).status == "warning"
    with pytest.raises(WrongQuestion, match="random_cause_matching"):
        Thresholds.of({"random_cause_matching": (3, 2)})


def test_a_verdict_that_holm_changed_gives_no_reason_against_itself():
    results = [rules.blocks(found_blocks([0.5, 0.5 + a, 0.5], [0.1] * 3), FIT) for a in (0.3, 0.05, 0.31)]
    found = rules.corrected(results, Thresholds())[0]
    assert (results[0].status, found.status) == ("warning", "passed")
    assert (
        found.reason
        == f"{results[0].reason} by itself, but p {words.probability(found.p_value)} over 3 estimates (Holm): passed"
    )


def test_the_reason_of_a_skipped_test_is_its_first_clause():
    found = rules.skipped("overlap", "Rows are separated by `age`: nobody is treated there. Leave them out.")
    assert found.reason == "overlap could not be run (Rows are separated by `age`)"
    assert "Leave them out. It says nothing" in found.sentence and ".." not in found.sentence


def test_an_effect_that_is_not_significant_needs_no_hidden_confounder():
    found = rules.sensitivity(sensitivity.measure(0.1, 0.1, 100, {"a": (0.1, 0.1)}), FIT)
    assert found.status == "failed" and found.reason.startswith("the effect is not significant")


def test_without_an_error_an_e_value_has_no_limit():
    e = sensitivity.e_value_of_effect(1.0, float("nan"), 2.0)
    assert e.limit is None and "unknown" not in rules.e_value(e, FIT).sentence

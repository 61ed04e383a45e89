"""What follows from all tests: proceed, review or block, a score, and why in words.

A test counts by its weight over the weights of the tests that were asked for: passed 1, warning .6, failed 0, skipped 0 (and
named). A failed critical test blocks; one that did not run leaves "review" at best. Tests that only resample what was
measured say nothing about hidden confounding, and every answer says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from millrace.analyses.refute.verdicts import TestResult
from millrace.analyses.refute.words import figure
from millrace.run.errors import WrongQuestion

Decision = Literal["proceed", "review", "block"]

CREDIT: Mapping[str, float] = {"passed": 1.0, "warning": 0.6, "failed": 0.0, "skipped": 0.0}
CAUTION = (
    "Passing the tests that resample or permute the data says nothing about hidden confounding; only negative controls look "
    "for it, and the sensitivity says how much of it would matter."
)


@dataclass(frozen=True, slots=True)
class Rule:
    """weights: by test. critical: those that block when they fail. where_given: critical ones that need not have been asked
    for. proceed, review: least scores."""

    name: str
    weights: Mapping[str, float]
    critical: tuple[str, ...]
    where_given: tuple[str, ...] = ()
    proceed: float = 0.70
    review: float = 0.50


RULES: Mapping[str, Rule] = {
    "default": Rule(
        "default",
        {"sensitivity": 0.30, "placebo": 0.15, "overlap": 0.15, "negative_control": 0.15, "blocks": 0.10, "estimators": 0.05,
         "bootstrap": 0.05, "subset": 0.05, "random_common_cause": 0.0},
        ("placebo", "overlap", "sensitivity", "negative_control"),
        ("negative_control",),
    ),
    "classic": Rule(
        "classic",
        {"placebo": 0.25, "random_common_cause": 0.25, "e_value": 0.25, "subset": 0.125, "bootstrap": 0.125},
        ("placebo", "random_common_cause", "e_value"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gate:
    """score: 0 to 1, None when no test with a weight was asked for. weights: renormalised, of the tests that counted.
    skipped: names of tests that could not be run; missing: critical ones that were not asked for. reasons: what speaks
    for the estimate, what against, what is not known; sentence: all of it, with `CAUTION`."""

    name: str
    decision: Decision
    score: float | None
    weights: Mapping[str, float]
    failed_critical: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    reasons: tuple[str, ...]
    sentence: str


def decide(results: Sequence[TestResult], gate: str | Rule = "default") -> Gate:
    """results: one per test. Deterministic, and in nothing dependent on the units of the outcome."""
    rule = gate if isinstance(gate, Rule) else RULES.get(gate)
    if rule is None:
        raise WrongQuestion(f"There is no gate {gate!r}; there are {', '.join(RULES)}.")
    by_name = {r.name: r for r in results}
    if len(by_name) < len(results):
        raise WrongQuestion("The gate takes one result of each test: decide for each estimate by itself.")
    counted = {n: rule.weights.get(n, 0.0) for n, r in by_name.items() if r.status in CREDIT}
    total = sum(counted.values())
    weights = {n: w / total for n, w in counted.items() if w > 0} if total > 0 else {}
    # .7 from a sum of seven weights is .7.
    score = round(sum(w * CREDIT[by_name[n].status] for n, w in weights.items()), 9) if weights else None
    failed = tuple(n for n in rule.critical if n in by_name and by_name[n].status == "failed")
    skipped = tuple(r.name for r in results if r.status == "skipped")
    missing = tuple(n for n in rule.critical if n not in by_name and n not in rule.where_given)
    unrun = [n for n in rule.critical if n in skipped] + list(missing)
    decision = _decision(score, rule, bool(failed), bool(unrun))
    reasons = _reasons(results, rule, failed, missing)
    return Gate(
        rule.name, decision, score, weights, failed, skipped, missing, reasons,
        _sentence(decision, score, results, rule, failed, missing),
    )  # fmt: skip


def _decision(score: float | None, rule: Rule, failed: bool, unrun: bool) -> Decision:
    if failed:
        return "block"
    if score is None:
        return "review"
    if score < rule.review:
        return "block"
    return "proceed" if score >= rule.proceed and not unrun else "review"


def _reasons(
    results: Sequence[TestResult], rule: Rule, failed: tuple[str, ...], missing: tuple[str, ...]
) -> tuple[str, ...]:
    """One clause a test, the worst first, then what is not known."""
    said = [f"critical: {r.reason}" for r in results if r.name in failed]
    for status in ("failed", "warning", "passed", "shown"):
        said += [f"{status}: {r.reason}" for r in results if r.status == status and r.name not in failed]
    said += [f"skipped, counts 0: {r.reason}" for r in results if r.status == "skipped"]
    said += [f"missing: {name} is critical and was not asked for" for name in missing]
    return (*said, CAUTION)


def _sentence(
    decision: Decision, score: float | None, results: Sequence[TestResult], rule: Rule, failed: tuple[str, ...],
    missing: tuple[str, ...],
) -> str:  # fmt: skip
    def weight(r: TestResult) -> tuple[bool, float]:
        return r.name in rule.critical, rule.weights.get(r.name, 0.0)

    ranked = sorted(results, key=weight, reverse=True)
    against = [r.reason for s in ("failed", "warning") for r in ranked if r.status == s]
    if failed:
        against = [r.reason for r in ranked if r.name in failed]
    # A check that cannot fail is no argument for the estimate.
    good = [r.reason for r in ranked if r.status == "passed" and weight(r)[1] > 0 and not r.details.get("law")]
    clauses = ""
    if good:
        clauses = _joined(good[:2] if against else good[:3])
    if against:
        clauses += f"{', but ' if clauses else ''}{_joined(against[:2])}"
    figures = f"score {figure(score)}" if score is not None else "no test that counts was run"
    why = f" A failed critical test ({', '.join(failed)}) blocks whatever the others say." if failed else ""
    unrun = [r.reason for r in ranked if r.status == "skipped"]
    if unrun:
        why += f" Not run, and counted as 0: {_joined(unrun)}."
    short = [r.name for r in ranked if r.status == "skipped" and r.name in rule.critical] + list(missing)
    if short and not failed:
        why += f" Without {_joined(short)}, which the gate needs, the answer is review at best."
    return f"{decision} ({figures}): {clauses or 'there is nothing to go by'}.{why} {CAUTION}"


def _joined(clauses: Sequence[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"

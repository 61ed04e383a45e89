"""Tests of the data and of other fits, each as a `TestResult`: blocks, negative controls, overlap, sensitivity, E-value,
other estimators, specifications.

Pure functions of what `blocks`, `overlap`, `sensitivity` and the estimators measured. Reached through `rules`, which has the
tests made of simulations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.blocks import Blocks, cochran
from millrace.analyses.refute.laws import normal_point, student_above, student_point
from millrace.analyses.refute.overlap import Overlap
from millrace.analyses.refute.rosenbaum import Rosenbaum
from millrace.analyses.refute.sensitivity import EValue, Sensitivity
from millrace.analyses.refute.study import Fit
from millrace.analyses.refute.verdicts import (
    DEFAULTS,
    SEVERITY,
    Status,
    TestResult,
    Thresholds,
    by_p,
    graded,
    holm,
    result,
    skipped,
    two_sided,
    usable,
    worst,
)  # fmt: skip
from millrace.analyses.refute.words import counted, figure, listed, percent, probability, times

Array = NDArray[np.float64]


def blocks(found: Blocks, fit: Fit, thresholds: Thresholds = DEFAULTS) -> TestResult:
    """Cochran's Q over the blocks' own effects and HC3 errors (clusters: CR3, and Welch's p). (Leaving one block out and
    comparing with the whole alarms falsely in 11 % and is not used.)"""
    name, k = "blocks", len(found.effects)
    bad = ~(np.isfinite(found.effects) & np.isfinite(found.errors) & (found.errors > 0))
    did = f"The rows were cut into {k} blocks ({found.how}), and the effect was estimated in each."
    table = [
        {"block": b, "rows": r, "effect": _known(e), "se": _known(s)}
        for b, r, e, s in zip(found.names, found.rows, found.effects, found.errors, strict=True)
    ]
    details: dict[str, Any] = {"blocks": table, "how": found.how}
    direction = "a large p: the blocks agree; a small p: the effect is not the same everywhere"
    if bad.sum() > thresholds.failed_share * k or k - bad.sum() < 2:
        which = listed([n for n, b in zip(found.names, bad, strict=True) if b])
        why = f"{counted(int(bad.sum()), 'block')} of {k} had no estimate ({which})"
        return result(
            name, "failed", fit, found.effects, statistic=None, p=None, threshold=thresholds.blocks_pass, refuted=None,
            direction=direction, sentence=f"{did} {why}: what is left would be another test.",
            reason=why, details={**details, "too_many_failed": True},
        )  # fmt: skip
    q = cochran(
        found.effects[~bad], found.errors[~bad], None if found.clusters is None else np.array(found.clusters)[~bad]
    )
    status = by_p(name, q.p_value, thresholds) or "failed"
    low, high = float(np.nanmin(found.effects)), float(np.nanmax(found.effects))
    means = {
        "passed": "the blocks agree as well as chance lets them.",
        "warning": "the blocks agree less well than chance would have it.",
        "failed": "the effect is not the same in all blocks: one figure for all of them hides that.",
    }[status]
    reason = (
        f"the effect {'agrees' if status == 'passed' else 'does not agree'} between blocks (p {probability(q.p_value)})"
    )
    return result(
        name, status, fit, found.effects, statistic=q.q, p=q.p_value, threshold=thresholds.blocks_pass, refuted=q.mean,
        direction=direction, reason=reason,
        sentence=f"{did} They range from {figure(low)} to {figure(high)}; Cochran's Q = {figure(q.q)} with "
        f"{counted(q.df, 'degree')} "
        f"of freedom, p {probability(q.p_value)} (a small p speaks against one effect for all): {means}",
        details={**details, "df": q.df, "mean": q.mean, "mean_se": q.se, "i2": q.i2},
    )  # fmt: skip


def negative_control(controls: Mapping[str, Fit], fit: Fit, thresholds: Thresholds = DEFAULTS) -> TestResult:
    """controls: fits, by name, of outcomes or treatments that cannot be affected. Each interval must hold 0 (Holm-corrected
    over several). The one test on the data that can see hidden confounding."""
    name = "negative_control"
    if not controls:
        return skipped(name, "no negative control was named")
    failing = [c for c, f in controls.items() if not (np.isfinite(f.effect) and np.isfinite(f.se) and f.se > 0)]
    if failing:
        return skipped(name, f"there is no estimate with an error for {listed(failing)}")
    t = {c: f.effect / f.se for c, f in controls.items()}
    raw = [2 * student_above(abs(t[c]), f.df) if f.df > 0 else two_sided(t[c]) for c, f in controls.items()]
    adjusted = dict(zip(controls, holm(raw), strict=True))
    decisive = min(adjusted, key=lambda c: (adjusted[c], -abs(t[c])))
    p, worst_fit = adjusted[decisive], controls[decisive]
    status = by_p(name, p, thresholds) or "failed"
    tail = (1 + thresholds.control_level) / 2
    reach = (student_point(tail, worst_fit.df) if worst_fit.df > 0 else normal_point(tail)) * worst_fit.se
    low, high = worst_fit.effect - reach, worst_fit.effect + reach
    holds = "holds 0" if low <= 0 <= high else "does not hold 0"
    means = (
        "no sign of hidden confounding here (a weak one would not be seen)."
        if status == "passed"
        else "the same data and method find an effect where none can be, so something hidden moves both."
    )
    corrected_for = f", Holm-corrected over {len(controls)} controls" if len(controls) > 1 else ""
    reason = (
        f"the negative control `{decisive}` shows no effect (p {probability(p)})"
        if status == "passed"
        else f"the negative control `{decisive}`, which cannot be affected, shows an effect of "
        f"{figure(worst_fit.effect)} (p {probability(p)})"
    )
    table = [{"control": c, "effect": f.effect, "se": f.se, "t": t[c], "p": adjusted[c]} for c, f in controls.items()]
    return result(
        name, status, fit, np.array([f.effect for f in controls.values()]), statistic=abs(t[decisive]), p=p,
        threshold=1 - thresholds.control_level, refuted=None, details={"controls": table, "low": low, "high": high},
        direction="a large p: no effect where none can be; a small p speaks against the estimate", reason=reason,
        sentence=f"The effect was estimated again with {listed(list(controls))}, where there cannot be one. "
        f"{f'With `{decisive}` it' if len(controls) > 1 else 'It'} is {figure(worst_fit.effect)}, "
        f"{percent(thresholds.control_level)} interval {figure(low)} to {figure(high)}, which {holds} (p "
        f"{probability(p)}{corrected_for}; a small p speaks "
        f"against the estimate): {means}",
    )  # fmt: skip


def overlap(found: Overlap, fit: Fit, thresholds: Thresholds = DEFAULTS) -> TestResult:
    """The worst of three: balance after adjustment, share of propensities outside the limits, effective sample size."""
    name = "overlap"
    size = np.abs(found.after)
    at = int(size.argmax()) if len(size) else -1
    largest = float(size[at]) if at >= 0 else 0.0
    kind = "standardised difference" if found.kind == "smd" else "correlation with the treatment"
    parts: dict[str, Status] = {
        "balance": graded(largest, thresholds.smd_pass, thresholds.smd_warning, larger_is_better=False),
        "effective rows": graded(found.ess_share, thresholds.ess_pass, thresholds.ess_warning),
    }
    if found.outside is not None:
        parts["propensity"] = graded(
            found.outside, thresholds.outside_pass, thresholds.outside_warning, larger_is_better=False
        )
    status = worst(list(parts.values()))
    said = {
        "balance": f"the largest {kind} after adjustment is {figure(round(largest, 6))} (`{found.names[at]}`; "
        f"{figure(thresholds.smd_pass)} passes)"
        if at >= 0
        else "there is no confounder to balance",
        "effective rows": f"the weights leave {percent(found.ess_share)} of the effective rows "
        f"({percent(thresholds.ess_pass)} passes)",
    }
    if found.outside is not None:
        limits = f"({figure(found.limits[0])}, {figure(found.limits[1])})"
        said["propensity"] = (
            f"{percent(found.outside)} of the rows have a propensity outside {limits} "
            f"({percent(thresholds.outside_pass)} passes)"
        )
    decisive = max(parts, key=lambda part: SEVERITY[parts[part]])
    values = {"balance": largest, "effective rows": found.ess_share, "propensity": found.outside}
    bounds = {
        "balance": thresholds.smd_pass,
        "effective rows": thresholds.ess_pass,
        "propensity": thresholds.outside_pass,
    }
    who = "treated and others" if found.kind == "smd" else "rows with more and with less treatment"
    means = {
        "passed": f"{who} can be compared.",
        "warning": f"{who} are not quite alike: parts of the data have few to compare with.",
        "failed": f"{who} are not alike: the estimate leans on the model where there is little to compare with.",
    }[status]
    reason = f"{who} overlap" if status == "passed" else said[decisive]
    before = float(np.abs(found.before).max()) if len(found.before) else 0.0
    return result(
        name, status, fit, np.zeros(0), statistic=values[decisive], p=None, threshold=bounds[decisive], refuted=None,
        direction="small differences, few extreme propensities and many effective rows are good; there is no p-value",
        sentence=f"How alike {who} are: {'; '.join(said.values())}. So {means}", reason=reason,
        details={"parts": parts, "decisive": decisive, "largest": largest, "largest_before": before,
                 "outside": found.outside, "ess": found.ess, "ess_share": found.ess_share,
                 "worst": found.names[at] if at >= 0 else None},
    )  # fmt: skip


def sensitivity(
    found: Sensitivity, fit: Fit, thresholds: Thresholds = DEFAULTS, *, e: EValue | None = None,
    matched: Rosenbaum | None = None,
) -> TestResult:  # fmt: skip
    """RV_alpha >= the strongest observed confounder's share: passed; RV >= it: warning; else failed. An observed confounder
    has two shares (with treatment, with outcome); `sensitivity.strength` makes one of them, on the scale of RV: RV >=
    strength exactly when a hidden confounder with the same shares would not bring the effect to 0."""
    name, rv, rv_alpha, strongest = "sensitivity", found.rv, found.rv_alpha, found.strongest_strength
    status: Status = "passed" if rv_alpha >= strongest else "warning" if rv >= strongest else "failed"
    if not found.strongest and status == "passed":
        status = "warning"  # with nothing to compare with, nobody knows whether that is much
    tip = found.multiples.get(found.strongest)
    sentence = (
        f"A hidden confounder would have to explain {percent(rv)} of what is left of both treatment and outcome to "
        f"bring the effect "
        f"to 0{'' if found.q == 1 else f' (by the share {figure(found.q)})'}, and {percent(rv_alpha)} to make it no "
        f"longer significant."
    )
    if found.strongest:
        a, b = found.shares[found.strongest]
        sentence += (
            f" The strongest observed one, `{found.strongest}`, explains {percent(a)} of the treatment and "
            f"{percent(b)} of the outcome, which is "
            f"as much as {percent(strongest)} of both."
        )
        if tip is not None:
            sentence += f" A hidden one {times(tip)} `{found.strongest}` would bring the effect to 0."
    else:
        sentence += " There is no observed confounder to compare with, so this is a warning at best."
    sentence += {
        "passed": " So something hidden would have to be stronger than anything that was measured.",
        "warning": " So something hidden as strong as that would leave an effect, but perhaps not a significant one.",
        "failed": " So something hidden no stronger than what was measured would do it.",
    }[status] if found.strongest else ""  # fmt: skip
    details: dict[str, Any] = {
        "partial_r2": found.r2, "rv": rv, "rv_alpha": rv_alpha, "strongest": found.strongest,
        "strongest_strength": strongest, "tipping_multiple": tip, "q": found.q, "alpha": found.alpha,
    }  # fmt: skip
    if e is not None:
        second = e_value(e, fit, thresholds)
        details |= {"e_value": e.point, "e_value_limit": e.limit, "e_value_status": second.status}
        agrees = "agrees" if second.status == status else f"says {second.status}"
        sentence += f" The E-value, as second opinion, is {figure(e.point)} and {agrees}."
    if matched is not None:
        details |= {"gamma": matched.gamma}
        sentence += f" Of the matched pairs: {_gamma(matched)}."
    if rv_alpha <= 0:
        sentence += (
            " The effect is not significant as it is: there is nothing that a hidden confounder would have to undo."
        )
        reason = "the effect is not significant, so nothing hidden is needed to explain it"
    elif found.strongest and tip is not None:
        who = f"a hidden confounder {times(tip)} `{found.strongest}`"
        reason = (
            f"it takes {who} to bring the effect to 0" if status == "passed" else f"{who} would bring the effect to 0"
        )
    else:
        reason = f"a hidden confounder that explains {percent(rv)} of treatment and outcome would bring the effect to 0"
    return result(
        name, status, fit, np.zeros(0), statistic=rv_alpha, p=None, threshold=strongest, refuted=None, details=details,
        direction="large robustness values are good; there is no p-value", sentence=sentence, reason=reason,
    )  # fmt: skip


def _gamma(matched: Rosenbaum) -> str:
    if matched.gamma == 1:
        return "not significant even without hidden bias"
    if np.isinf(matched.gamma):
        return "no hidden bias that was tried undoes the signed rank test"
    return f"hidden bias that changes the odds of treatment {figure(matched.gamma)} times undoes the signed rank test"


def e_value(e: EValue, fit: Fit, thresholds: Thresholds = DEFAULTS) -> TestResult:
    """E-value of the estimate; where its interval holds "no effect" already (limit 1) it is a warning at best."""
    status = graded(e.point, thresholds.e_value_pass, thresholds.e_value_warning)
    if e.limit == 1 and status == "passed":
        status = "warning"
    limit = "" if e.limit is None else f", and of {figure(e.limit)} to bring no effect into the interval"
    means = {
        "passed": "that is a strong one.",
        "warning": "that is not out of the question."
        if e.point < thresholds.e_value_pass
        else "but the interval holds no effect already.",
        "failed": "a weak one is enough.",
    }[status]
    return result(
        "e_value", status, fit, np.zeros(0), statistic=e.point, p=None, threshold=thresholds.e_value_pass, refuted=None,
        direction="a large E-value is good; there is no p-value", reason=f"the E-value is {figure(e.point)}",
        details={"limit": e.limit, "ratio": e.ratio, "how": e.how},
        sentence=f"To explain the effect away a hidden confounder would need a risk ratio of {figure(e.point)} with "
        f"both treatment and "
        f"outcome{limit}: {means}",
    )  # fmt: skip


def estimators(
    fit: Fit, others: Mapping[str, Fit], joint: Mapping[str, Array], thresholds: Thresholds = DEFAULTS, *,
    scale: float = 1.0,
) -> TestResult:  # fmt: skip
    """others: the question answered by other estimators. joint: (B, 2) for each, effects of the question's own and of the
    other on the same resampled rows; the sd of their difference, times `scale`, is its standard error (1 for a bootstrap,
    sqrt(f / (1 - f)) for subsets of the share f). Several: Holm-corrected."""
    name = "estimators"
    if not others:
        return skipped(name, "no other estimator applies")
    failed = 0
    table: list[dict[str, Any]] = []
    for other, its in others.items():
        pairs = np.asarray(joint[other], dtype=np.float64)
        known = np.all(np.isfinite(pairs), axis=1)
        failed = max(failed, int((~known).sum()))
        stop = usable(name, np.where(known, pairs[:, 0], np.nan), fit, thresholds)[1]
        if stop is not None:
            return stop
        error = scale * float((pairs[known, 0] - pairs[known, 1]).std(ddof=1))
        apart = its.effect - fit.effect
        same = abs(apart) <= 1e-9 * max(abs(fit.effect), abs(its.effect))
        z = 0.0 if same else abs(apart) / error if error > 0 else float("inf")
        table.append(
            {
                "estimator": other,
                "effect": its.effect,
                "se": its.se,
                "difference": apart,
                "difference_se": error,
                "z": z,
            }
        )
    for row, p in zip(table, holm([two_sided(row["z"]) for row in table]), strict=True):
        row["p"] = p
    worst_row = max(table, key=lambda row: row["z"])
    status = by_p(name, worst_row["p"], thresholds) or "failed"
    means = (
        "the answer does not hang on the estimator."
        if status == "passed"
        else "the answer depends on the estimator: one of their models is wrong, or they estimate different averages."
    )
    effects = np.asarray(joint[worst_row["estimator"]], dtype=np.float64)[:, 1]
    agree = "agrees" if status == "passed" else "does not agree"
    same = figure(worst_row["effect"]) == figure(fit.effect)
    said = f"{figure(fit.effect)} as well" if same else f"{figure(worst_row['effect'])} instead of {figure(fit.effect)}"
    reason = f"`{worst_row['estimator']}` {agree} with the estimate ({figure(worst_row['effect'])} against {figure(fit.effect)})"
    return result(
        name, status, fit, effects, statistic=worst_row["z"], p=worst_row["p"], threshold=thresholds.estimators_pass,
        refuted=worst_row["effect"], direction="a large p: the estimators agree; a small p: they do not", reason=reason,
        sentence=f"The question was asked again with {listed([r['estimator'] for r in table])}. "
        f"`{worst_row['estimator']}` says {said}, {figure(worst_row['z'])} standard errors of the difference apart (p "
        f"{probability(worst_row['p'])}; a small p speaks "
        f"against the estimate; {figure(thresholds.estimators_pass)} errors pass): {means}", details={"estimators": table},
    )  # fmt: skip


def specification(labels: Sequence[str], effects: Array, errors: Array, fit: Fit) -> TestResult:
    """Estimates under other choices of confounders and their forms, (m,) each. To look at; there is no verdict, because no
    choice among them is random."""
    known = np.isfinite(effects)
    if not known.any():
        return skipped("specification", "no specification could be estimated")
    found = np.asarray(effects)[known]
    same = float(np.mean(np.sign(found) == np.sign(fit.effect)))
    low, middle, high = np.quantile(found, [0, 0.5, 1]).tolist()
    table = [
        {"specification": label, "effect": _known(e), "se": _known(s)}
        for label, e, s in zip(labels, effects, errors, strict=True)
    ]
    return result(
        "specification", "shown", fit, np.asarray(effects), statistic=same, p=None, threshold=None, refuted=middle,
        direction="there is no verdict and no p-value", details={"specifications": table, "low": low, "high": high},
        reason=f"{percent(same)} of {counted(len(found), 'specification')} have the sign of the estimate",
        sentence=f"The effect under {counted(len(found), 'other choice')} of confounders and their forms: "
        f"{figure(low)} to {figure(high)}, "
        f"median {figure(middle)}; {percent(same)} have the sign of the estimate. To look at: there is no verdict.",
    )  # fmt: skip


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

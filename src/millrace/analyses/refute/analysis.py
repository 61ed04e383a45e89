"""The order of work of refute: one study per estimate, estimated once; then everything that may break it; then the gate.

Numbers are made by tasks (`batches`), so that every engine computes the same and a second run finds them; here they are
gathered and judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy

from millrace.analyses.refute import (
    batches,
    blocks,
    comparing,
    gate,
    overlap,
    placing,
    records,
    rosenbaum,
    rounds,
    rules,
    sensitivity,
    verdicts,
)
from millrace.analyses.refute import simulations as simulating
from millrace.analyses.refute.answer import Part, Refutation
from millrace.analyses.refute.facts import facts_of
from millrace.analyses.refute.question import FEW_CLUSTERS, Case, read
from millrace.analyses.refute.spec import SIMULATED, Spec
from millrace.analyses.refute.study import BATCH, WILD_CLUSTERS, Fit
from millrace.analyses.refute.words import figure, listed, probability
from millrace.run.errors import AnalysisFailed, TaskFailed, WrongQuestion
from millrace.run.flow import describe
from millrace.run.keys import content_key
from millrace.run.run import Run
from millrace.run.task import Outcome, Task

TRIM = 0.01


def refute(spec: Spec, run: Run) -> Refutation:
    """Answer the question: every estimate with its tests, its gate, and the reasons."""
    run.progress("reading the data")
    asked = read(spec, run.note)
    for said in asked.why:
        run.note(said)
    thresholds = verdicts.Thresholds.of(spec.thresholds)
    room = placing.follow(run, spec, asked.cases, facts_of(spec, asked))
    works = [
        _Work(spec, case, table, run, thresholds, room) for case, table in zip(asked.cases, asked.tables, strict=True)
    ]
    found = [work.results() for work in works]
    judged = verdicts.corrected_over([f.results for f in found], thresholds)
    parts = tuple(work.part(results, spec.gate) for work, results in zip(works, judged, strict=True))
    digest = content_key([[work.study.key for work in works], list(asked.common_causes)])
    return Refutation(
        parts, spec.estimator if isinstance(spec.estimator, str) else getattr(spec.estimator, "__name__", "own"),
        spec.target, asked.common_causes, digest, thresholds, seed=run.seed, notes=tuple(run.notes),
    )  # fmt: skip


@dataclass(slots=True)
class _Found:
    """All that was found about one estimate."""

    fit: Fit
    results: list[verdicts.TestResult]
    effects: dict[str, Any]
    times_s: dict[str, float]
    overlap: overlap.Overlap | None
    sensitivity: sensitivity.Sensitivity | None


class _Work:
    """One estimate: its study shared, its tasks made, its results."""

    def __init__(
        self, spec: Spec, case: Case, table: Mapping[str, Any], run: Run, thresholds: verdicts.Thresholds, room: bool
    ) -> None:
        self.spec, self.case, self.run, self.thresholds, self.room = spec, case, run, thresholds, room
        self.tests = spec.wanted
        self.function = batches.function_of(spec.estimator) if spec.own else None
        self.study = run.share(case.study.arrays())
        self.table = run.share(dict(table)) if spec.own else None
        self.found: _Found | None = None

    # -- the order ---------------------------------------------------------------------------------------------------
    def results(self) -> _Found:
        run, spec = self.run, self.spec
        run.progress(f"estimating{self._of()}")
        first = self._first()
        fit = self._fit_of(first["fit"])
        found = self.found = _Found(fit, [], {}, {}, None, None)
        dropped = fit.details.get("dropped")
        if dropped:
            run.note(
                f"Left out, since the other columns make them up: {listed([self.case.names[j] for j in dropped])}."
            )
        if "few clusters" in first:
            its = first["few clusters"]
            run.note(
                f"Few clusters: by the wild cluster bootstrap ({its['simulations']:,} of {its['draws']}) the effect's 95 % "
                f"interval is {figure(its['low'])} to {figure(its['high'])}, p {probability(its['p'])} of no effect. Trust these."
            )
        self._simulated(found, first.get("prepare"))
        for test in self.tests:
            made = getattr(self, f"_{test}", None)
            if made is not None:
                found.results.append(made(found, first))
        order = list(self.tests)
        found.results.sort(key=lambda r: order.index(r.name) if r.name in order else len(order))
        if spec.gate == "classic" and not any(r.name == "e_value" for r in found.results):
            found.results.append(rules.e_value(self._e_value(fit), fit, self.thresholds))
        return found

    def _of(self) -> str:
        return f" ({self.case.label})" if self.case.label else ""

    def _first(self) -> dict[str, Any]:
        """The estimate and what else is made once, side by side."""
        spec, run, study = self.spec, self.run, self.study
        tasks: dict[str, Task] = {}
        if self.function is not None:
            assert self.table is not None
            tasks["fit"] = run.task(self._own_task(), ("", 0), self.table, study, name="estimate")
        else:
            common = (study, spec.estimator, spec.target, dict(spec.options))
            tasks["fit"] = run.task(batches.fit, 0, *common, name="estimate")
            if any(t in SIMULATED for t in self.tests) or "estimators" in self.tests:
                tasks["prepare"] = run.task(batches.prepare, 0, *common, keep=True, name="prepare")
        if "sensitivity" in self.tests:
            tasks["gram"] = run.task(batches.gram, 0, study, name="sensitivity")
            tasks["line"] = run.task(batches.fit, 0, study, "ols", "ate", {}, name="least squares")
            if spec.estimator == "matching":
                metric = str(spec.options.get("metric", "propensity"))
                tasks["pairs"] = run.task(batches.pair_differences, 0, study, metric, name="pairs")
        if "overlap" in self.tests:
            trim = float(spec.options.get("trim", TRIM))
            tasks["balance"] = run.task(batches.balance, 0, study, spec.target, trim, name="overlap")
        if spec.estimator == "ols" and WILD_CLUSTERS <= self.case.study.groups < FEW_CLUSTERS:
            tasks["few clusters"] = run.task(batches.few_clusters, 0, study, run.seed, name="wild bootstrap")
        return self._together(tasks)

    def _together(
        self, tasks: Mapping[str, Task], forgive: tuple[str, ...] = ("balance", "line", "gram")
    ) -> dict[str, Any]:
        """Values by name; what a test that describes cannot compute is its reason to be skipped, anything else is raised."""
        names: dict[str, list[str]] = {}
        for name, task in tasks.items():
            names.setdefault(task.key, []).append(name)
        values: dict[str, Any] = {}
        for outcome in self.run.stream(iter(tasks.values())):
            for name in names[outcome.key]:
                if outcome.failure is not None and (name not in forgive or outcome.failure.kind != "raised"):
                    raise self._trouble(name, outcome)
                values[name] = outcome.failure if outcome.failure is not None else outcome.value
        return values

    def _trouble(self, name: str, outcome: Outcome) -> Exception:
        """What is wrong with the question is an error of the question, wherever it was found."""
        failure = outcome.failure
        assert failure is not None
        if failure.kind == "raised" and batches.OF_THE_QUESTION.match(failure.message):
            return WrongQuestion(f"{self._reason(failure)}.")
        if name == "fit" and self.spec.own:
            return AnalysisFailed(
                f"Your estimator fails on the data as they are: {failure.message}\n\n{failure.traceback}".rstrip()
            )
        return TaskFailed(describe(failure, name, 0), failure, outcome.key)

    def _own_task(self) -> Callable[..., Any]:
        return partial(
            batches.own_estimate, seed=self.run.seed, fraction=self.spec.share, treatment=self.case.treatment,
            own=self.function,
        )  # fmt: skip

    def _fit_of(self, value: Any) -> Fit:
        if isinstance(value, Mapping):
            fit, groups = Fit(**value), self.case.study.groups
            # The errors of clusters have their degrees of freedom, not those of rows.
            return replace(fit, details={**fit.details, "clusters": groups}) if groups else fit
        effect, se = value
        if effect != effect:
            raise WrongQuestion("Your estimator gives NaN on the data as they are: there is no estimate to refute.")
        rows = self.case.study.rows
        how = "as your estimator says" if se == se else "your estimator gives none"
        return Fit(float(effect), float(se), float("nan"), rows - len(self.case.names) - 2, how, {})

    # -- simulations -------------------------------------------------------------------------------------------------
    def _simulated(self, found: _Found, shared: Any) -> None:
        spec, run = self.spec, self.run
        asked = [t for t in self.tests if t in SIMULATED]
        if spec.estimator == "matching" and "bootstrap" in asked:
            asked.remove("bootstrap")
            why = "matching has no valid bootstrap (Abadie and Imbens 2008); the subset test has its spread"
            found.results.append(rules.skipped("bootstrap", why))
        if not asked:
            return
        run.progress(
            f"simulating{self._of()}", len(asked) * -(-spec.simulations // BATCH) * (BATCH if spec.one_by_one else 1)
        )
        lines = self._lines(asked, spec.simulations, shared, found.fit)
        for test, line in lines.items():
            effects = simulating.whole(line, spec.simulations)
            found.effects[test], found.times_s[test] = effects, line.time_ns / 1e9
            if line.stopped and len(effects) < spec.simulations:
                run.note(
                    f"{test}: certain after {len(effects):,} of {spec.simulations:,} simulations, so it stopped there."
                )
            if line.failures:
                run.note(f"{test}: {len(line.failures):,} simulations failed, the first with: {line.failures[0]}")
            found.results.append(self._rule(test, effects, found.fit))

    def _lines(self, tests: list[str], simulations: int, shared: Any, fit: Fit) -> Mapping[str, simulating.Line]:
        early = self.spec.one_by_one or self.spec.until is not None
        certain = partial(self._certain, fit=fit) if early else None
        each = 1 if self.spec.one_by_one else BATCH
        return simulating.simulate(
            self.run, tests, simulations, self._maker(tests, shared), each, certain, forgive=self.spec.own
        )

    def _maker(self, tests: list[str], shared: Any) -> simulating.MakeTask:
        spec, run = self.spec, self.run
        if self.function is not None:
            task, table, study = self._own_task(), self.table, self.study
            return lambda test, i: run.task(task, (SIMULATED[test], i), table, study, name=test)
        options = {**spec.options, "fraction": spec.share, "precision": spec.precision}
        if spec.estimator in ("ols", "ols_interacted") and spec.placebo != "permute":
            options["placebo"] = spec.placebo
        tail = (spec.estimator, spec.target, run.seed, options)
        one = dict.fromkeys(tests, batches.simulate_one)
        fns = one if spec.one_by_one else self._bodies(str(spec.estimator), options, tests, shared)
        return lambda test, i: run.task(fns[test], (SIMULATED[test], i), self.study, shared, *tail, name=test)

    def _bodies(self, estimator: str, options: Mapping[str, Any], tests: list[str], shared: Any) -> Mapping[str, Any]:
        asked = placing.Asked(estimator, self.spec.target, options, self.spec.simulations)
        return placing.bodies(self.run, asked, tests, self.case.study, shared, self.room)

    def _certain(self, test: str, effects: Any, fit: Fit) -> bool:
        return rounds.until(
            test, effects[:, 0], self._studentised(fit) if test == "placebo" else fit, self.thresholds, errors=effects[:, 1],
            fraction=self.spec.share, p_error_below=self.spec.until,
        ).certain  # fmt: skip

    def _rule(self, test: str, effects: Any, fit: Fit) -> verdicts.TestResult:
        if not len(effects):
            return rules.skipped(test, "the run ended before its first simulation")
        if test == "placebo":
            how = "shuffled" if self.spec.placebo == "permute" else "made up anew"
            return rules.placebo(effects[:, 0], effects[:, 1], self._studentised(fit), self.thresholds, how=how)
        if test == "random_common_cause":
            plain = self.spec.estimator == "ols" and self.case.study.weights is None
            law = fit.se_classic / numpy.sqrt(fit.df) if plain else None
            return rules.random_common_cause(effects[:, 0], fit, self.thresholds, law_sd=law)
        if test == "subset":
            return rules.subset(effects[:, 0], fit, self.spec.share, self.thresholds)
        return rules.bootstrap(effects[:, 0], fit, self.thresholds)

    def _studentised(self, fit: Fit) -> Fit:
        """Like compared with like: the errors of placebo effects of least squares are classical."""
        return replace(fit, se=fit.se_classic) if self.spec.estimator in ("ols", "ols_interacted") else fit

    # -- tests of the data -------------------------------------------------------------------------------------------
    def _blocks(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        case, study = self.case, self.case.study
        try:
            cut = blocks.cut(
                study.rows,
                column=case.block,
                kind=case.block_kind,
                name=self.spec.blocks or "",
                clusters=study.clusters,
            )
        except ValueError as e:
            return rules.skipped("blocks", str(e))
        hindered = blocks.hindrance(cut, study.treatment, len(case.names))
        if hindered:
            return rules.skipped("blocks", hindered)
        codes = self.run.share(cut.codes)
        each = list(self.run.map(batches.block, range(len(cut.names)), shared=(self.study, codes), name="blocks"))
        return rules.blocks(blocks.gather(cut, each), found.fit, self.thresholds)

    def _overlap(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        value, study = first["balance"], self.case.study
        if not isinstance(value, Mapping):
            return rules.skipped("overlap", self._reason(value))
        found.overlap = overlap.measure(
            study.confounders, study.treatment, self.case.names, propensity=value["scores"] if study.binary else None,
            weights=value["weights"], base=study.weights, limits=self.thresholds.propensity_limits, binary=study.binary,
        )  # fmt: skip
        return rules.overlap(found.overlap, found.fit, self.thresholds)

    def _sensitivity(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        for name in ("line", "gram"):
            if hasattr(first[name], "kind"):
                return rules.skipped("sensitivity", self._reason(first[name]))
        line, gram, study = Fit(**first["line"]), first["gram"], self.case.study
        kept = [j for j in range(len(self.case.names)) if j not in line.details.get("dropped", [])]
        place = {j: k for k, j in enumerate(kept)}
        groups = {n: [place[j] for j in g if j in place] for n, g in self.case.groups.items()}
        groups = {n: g for n, g in groups.items() if g}
        at = [*kept, len(self.case.names), len(self.case.names) + 1]
        shares = sensitivity.partial_r2_of_all(gram[numpy.ix_(at, at)], study.rows, list(groups.values()))
        named = {n: (float(a), float(b)) for n, a, b in zip(groups, *shares, strict=True)}
        found.sensitivity = sensitivity.measure(
            line.effect, line.se_classic, line.df, named, q=self.thresholds.q, alpha=self.thresholds.alpha
        )
        differences, matched = first.get("pairs"), None
        if differences is not None and numpy.any(differences):
            matched = rosenbaum.bounds(numpy.asarray(differences), alpha=self.thresholds.alpha)
        return rules.sensitivity(
            found.sensitivity, found.fit, self.thresholds, e=self._e_value(found.fit), matched=matched
        )

    def _reason(self, failure: Any) -> str:
        """Why something could not be computed, with names for the numbers of confounders."""
        said = failure.message.partition("\n")[0].rstrip(".")
        said = batches.OF_THE_QUESTION.sub("", said)
        return re.sub(
            r"number \[([\d, ]+)\] \(counted from 0\)",
            lambda m: listed([self.case.names[int(j)] for j in m[1].split(",")]), said,
        )  # fmt: skip

    def _e_value(self, fit: Fit) -> sensitivity.EValue:
        study = self.case.study
        delta = 1.0 if study.binary else float(numpy.std(study.treatment))
        return sensitivity.e_value_of_effect(fit.effect, fit.se, float(numpy.std(study.outcome, ddof=1)), delta)

    def _negative_control(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        spec, run = self.spec, self.run
        if not self.case.controls:
            return rules.skipped("negative_control", "no outcome or treatment that cannot be affected was named")
        estimator = "ols" if spec.own else spec.estimator
        if spec.own:
            run.note(
                "Negative controls are estimated by least squares: your own estimator is told one treatment and outcome."
            )
        tasks, reasons = {}, []
        for name, study in self.case.controls.items():
            its = estimator if study.binary or estimator in ("ols", "ols_interacted", "dml") else "ols"
            options = dict(spec.options) if its == spec.estimator else {}
            tasks[name] = run.task(
                batches.fit, 0, run.share(study.arrays()), its, spec.target, options, name="negative control"
            )
        values = self._together(tasks, tuple(tasks))
        fits = {name: Fit(**v) for name, v in values.items() if isinstance(v, Mapping)}
        reasons = [f"{name}: {v.message}" for name, v in values.items() if not isinstance(v, Mapping)]
        if not fits:
            return rules.skipped("negative_control", "; ".join(reasons))
        for reason in reasons:
            run.note(f"The negative control could not be estimated: {reason}")
        return rules.negative_control(fits, found.fit, self.thresholds)

    def _estimators(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        spec = self.spec
        others = comparing.others(spec, self.case.study.binary, self.run.note)
        test, shared = comparing.test_of(spec), first.get("prepare")
        compared = comparing.compare(self.run, spec, self.study, others, self._maker([test], shared), self._bodies)
        return rules.estimators(found.fit, compared.fits, compared.joint, self.thresholds, scale=compared.scale)

    def _specification(self, found: _Found, first: Mapping[str, Any]) -> verdicts.TestResult:
        labels, each = comparing.specifications(self.run, self.study, self.case)
        found.effects["specification"] = each
        return rules.specification(labels, each[:, 0], each[:, 1], found.fit)

    # -- the answer --------------------------------------------------------------------------------------------------
    def part(self, results: list[verdicts.TestResult], rule: str) -> Part:
        found, case = self.found, self.case
        assert found is not None
        return Part(
            case.label, case.outcome, case.treatment, case.study.rows,
            int(case.study.treatment.sum()) if case.study.binary else None, found.fit, tuple(results),
            gate.decide(results, rule), found.effects, found.times_s, found.overlap, found.sensitivity,
            tuple(records.records(results, found.fit.effect, found.times_s)),
        )  # fmt: skip

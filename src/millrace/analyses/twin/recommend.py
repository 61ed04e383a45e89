"""What to do with an intervention: deploy it, skip it, or refine it first. A decision table, applied from the top.

Pure: figures in, an action with its rule and reason out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from millrace.run.units import format_figure

Action = Literal["deploy", "skip", "refine"]
SMALLEST = 0.05
"""Of interest, in outcome units, when nothing else is said."""
LEAST_FIDELITY = 0.70


@dataclass(frozen=True, slots=True)
class Evidence:
    """effect, low, high: of the intervention on the outcome, such that more is better. smallest: effect of interest. fidelity: of
    the model's past simulations, None when nobody knows."""

    effect: float
    low: float
    high: float
    smallest: float = SMALLEST
    fidelity: float | None = None
    least_fidelity: float = LEAST_FIDELITY


@dataclass(frozen=True, slots=True)
class Recommendation:
    """rule: harmful, small, unsure, wide, unknown fidelity, low fidelity, or good."""

    action: Action
    rule: str
    reason: str

    @property
    def sentence(self) -> str:
        return f"{self.action[0].upper()}{self.action[1:]}: {self.reason}"


def decide(evidence: Evidence) -> Recommendation:
    """The first rule that holds:

        interval wholly below zero               skip    harmful
        |effect| < smallest effect of interest   skip    small
        interval contains zero                   refine  unsure
        interval wider than |effect|             refine  wide
        fidelity not known                       refine  unknown fidelity
        fidelity below the least                 refine  low fidelity
        else                                     deploy  good

    Figures that are not numbers are unsure.
    """
    e, f = evidence, format_figure
    spread = f"{f(e.low)} to {f(e.high)}"
    if e.high < 0:
        return Recommendation(
            "skip", "harmful", f"it does harm: the effect is {f(e.effect)}, and all of {spread} is below zero."
        )
    if abs(e.effect) < e.smallest:
        return Recommendation(
            "skip", "small", f"the effect, {f(e.effect)}, is smaller than the smallest of interest, {f(e.smallest)}."
        )
    if not e.low > 0:
        return Recommendation(
            "refine", "unsure", f"the effect may be none: {spread} contains zero. A real experiment would tell."
        )
    if not e.high - e.low <= abs(e.effect):
        return Recommendation(
            "refine", "wide", f"the effect is not known well: {spread} is wider than the effect itself, {f(e.effect)}."
        )
    if e.fidelity is None:
        return Recommendation(
            "refine", "unknown fidelity",
            f"the effect is {f(e.effect)} ({spread}), but no result of this model has been compared with a real one yet: try "
            "it on a "
            "part, and `track` what comes.",
        )  # fmt: skip
    if not e.fidelity >= e.least_fidelity:
        return Recommendation(
            "refine", "low fidelity",
            f"past results of this model were not borne out well enough (fidelity {e.fidelity:.2f}, {e.least_fidelity:.2f} is "
            "asked for).",
        )  # fmt: skip
    return Recommendation("deploy", "good", f"the effect is {f(e.effect)} ({spread}), and the model has been right before "
                          f"(fidelity {e.fidelity:.2f}).")  # fmt: skip

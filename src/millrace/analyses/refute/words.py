"""How figures are read out in a refutation's sentences: three digits, probabilities, shares, lists of names.

No verdicts here (see `rules`); pictures use the same figures (see `pictures`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from millrace.run.units import format_figure


def figure(value: float | None) -> str:
    """Three digits, see `units.format_figure`; "unknown", "infinite"."""
    if value is None or math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return format_figure(value)


def measured(value: float, error: float) -> str:
    """A value and its error, to the digit that the error allows: "-0.001 ± 0.002"; 0 where only rounding is left."""
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return figure(value)
    digits = 1 - math.floor(math.log10(error))
    if abs(digits) > 8:
        return f"{value:.1e} ± {error:.1e}"
    shown = round(value, digits) + 0.0  # + 0.0: no "-0"
    return f"{shown:,.{max(0, digits)}f} ± {round(error, digits):,.{max(0, digits)}f}"


def probability(p: float | None) -> str:
    """As it stands after "p": "= 0.031", "< 0.001", "> 0.999"."""
    if p is None or math.isnan(p):
        return "is unknown"
    if p < 0.001:
        return "< 0.001"
    return "> 0.999" if p > 0.999 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{figure(100 * share)} %"


def times(multiple: float) -> str:
    """A multiple as people say it: "half as strong as", "as strong as", "2.3 times as strong as"."""
    for value, text in ((0.5, "half as"), (1.0, "as"), (2.0, "twice as")):
        if abs(multiple - value) < 0.05 * value:
            return f"{text} strong as"
    return f"{multiple:.2g} times as strong as"


def listed(names: Sequence[object], most: int = 5) -> str:
    """`a`, `b` and `c`; from `most` names on the rest is a number."""
    quoted = [f"`{name}`" for name in names[:most]]
    if len(names) > most:
        quoted.append(f"{len(names) - most:,} more")
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}" if quoted else "nothing"


def counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"

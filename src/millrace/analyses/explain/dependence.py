"""The picture of one feature: its SHAP values against its own value, and the feature that it works together with.

See `views` for the other pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.explain import pictures
from millrace.analyses.explain.importance import WAYS, figure, rank_correlation, sample
from millrace.analyses.explain.pictures import GREY, Categories, Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPENDENCE_ROWS = 1_200
LEVELS = 10
HEIGHT_PX = 300
LEVEL_COLOURS = ["#1f6fb4", "#ee9b20", "#12907f", "#b7a3dc", "#c63f17", "#5b3a8e"]


def dependence(
    feature: int | str,
    values: NDArray[Any],
    data: NDArray[Any],
    feature_names: Sequence[str],
    unit: str,
    colour_by: int | str | None = None,
    *,
    categories: Categories | None = None,
    seed: int = 0,
) -> Spec:
    """SHAP values of one feature against its own value, coloured by the feature that it interacts with most.

    `colour_by`: that feature; None takes the one whose value goes along most with what the feature's own value leaves
    open (see `partner`). Missing values stand at the left, apart; categories stand side by side, the most frequent first.
    """
    categories = categories or {}
    j = pictures.number(feature, feature_names)
    rows = sample(len(values), DEPENDENCE_ROWS, pictures.draws(seed))
    y, given = np.asarray(values[rows, j], dtype=np.float64), np.asarray(data[rows], dtype=np.float64)
    x = given[:, j]
    other = partner(j, y, given, categories) if colour_by is None else pictures.number(colour_by, feature_names)
    at, axis, cut_x = _across(x, j, categories, pictures.draws(seed, 1))
    low, high, cut_y = pictures.limits(y)
    colour, level = _colour(other, given, feature_names, categories)
    marks = []
    for i in range(len(rows)):
        mark: dict[str, Any] = {
            "x": pictures.short(at[i], 6),
            "y": min(max(pictures.short(y[i]), low), high),
            "r": int(rows[i]),
        }
        mark |= {"d": pictures.told(x[i], j, categories)}
        mark |= {"c": level[i]} if level is not None else {}
        mark |= {"o": pictures.told(given[i, other], other, categories)} if other is not None else {}
        marks.append(mark if low <= y[i] <= high else {**mark, "v": figure(y[i])})
    name = str(feature_names[j])
    told = [("d", name), ("v", "SHAP value"), ("r", "row")]
    seen = "No other feature changes much of it."
    if other is not None:
        seen = f"Colour: {feature_names[other]}{', which changes its effect most' * (colour_by is None)}."
        told.insert(1, ("o", str(feature_names[other])))
    caption = f"A dot is a row{pictures.of_all(rows, values, seed)}; SHAP values are in {unit}. {seen}"
    lacking = int((~np.isfinite(x)).sum())
    if lacking:
        caption += f" {lacking:,} of these rows lack it."
    caption += pictures.cut_tails(cut_x | cut_y, len(x))
    title = f"{name}: {_way(j, x, y, categories)}"
    dot: Spec = {"filled": True, "size": 22, "opacity": 0.75}
    plain = pictures.layer("point", {}, color=GREY, **dot)
    dots = [plain]
    if level is not None:
        plain["transform"] = [{"filter": "!isValid(datum.c)"}]
        dots.append(
            {
                **pictures.layer("point", {"color": colour}, **dot),
                "transform": [{"filter": "isValid(datum.c)"}],
            }
        )
    return pictures.spec(
        title,
        caption,
        f"Scatter of {len(rows)} SHAP values of {name} against its value. {title}.",
        height=HEIGHT_PX,
        data={"values": marks},
        transform=[{"calculate": "datum.v || format(datum.y, '.3~g')", "as": "v"}],
        encoding={
            "x": pictures.along("x", title=name, **axis),
            "y": pictures.along("y", title=f"SHAP value of {pictures.name_of(name)}", scale={"domain": [low, high]}),
            "tooltip": pictures.tooltip(*told),
        },
        layer=[
            pictures.zero("y"),
            *dots,
            *([_missing_label(at[~np.isfinite(x)])] if lacking and j not in categories else []),
        ],
    )


def _missing_label(at: NDArray[np.float64]) -> Spec:
    """The word beneath the strip of rows that lack the feature, where its tick would be."""
    where = {"x": pictures.along("x"), "y": {"value": HEIGHT_PX + 8}, "tooltip": None}
    mark = pictures.layer("text", where, text="missing", baseline="top", opacity=0.8)
    return {"data": {"values": [{"x": pictures.short(at.mean(), 6)}]}, "transform": [], **mark}


def partner(j: int, shap: NDArray[np.float64], given: NDArray[np.float64], categories: Categories) -> int | None:
    """The feature that seems to interact most with feature j, or None when its own value explains (nearly) all.

    Rows in order of the feature's value: what each has of SHAP value beyond the line between its two neighbours (little,
    on a smooth curve) is correlated with what it has of every other feature beyond its neighbours. Absolute covariances
    add up over bins of 50 rows, or levels, since an interaction may turn its sign. A proxy, as shap's: the exact answer
    are interaction values. Categories are no candidates: codes have no order.
    """
    known = np.isfinite(given[:, j])
    order = np.flatnonzero(known)[np.argsort(given[known, j], kind="stable")]
    if len(order) < 20 or given.shape[1] < 2:
        return None
    x, others = given[order, j], given[order].copy()
    left = _beyond_neighbours(x, shap[order])
    # What is beyond two neighbours has 1.5 times the variance of what is left open.
    if float((left**2).sum()) <= 1.5 * 0.01 * len(order) * float(shap[order].var()):
        return None
    unknown = ~np.isfinite(others)
    others[unknown] = 0.0
    others[unknown] = np.broadcast_to(others.sum(axis=0) / np.maximum(1, (~unknown).sum(axis=0)), others.shape)[unknown]
    others = _beyond_neighbours(x, others)
    starts = np.unique(x[1:-1], return_index=True)[1]
    starts = starts if j in categories or len(starts) <= LEVELS else np.arange(0, len(left), 50)
    scale = np.sqrt((others**2).sum(axis=0))
    scores = np.abs(np.add.reduceat(left[:, None] * others, starts)).sum(axis=0) / np.where(scale > 0, scale, np.inf)
    scores[[j, *categories]] = -1.0
    best = int(scores.argmax())
    return best if scores[best] > 0 else None


def _beyond_neighbours(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """y (rows[, columns]) less the line through the rows before and after, in order of x; the middle among ties."""
    width = x[2:] - x[:-2]
    share = np.where(width > 0, (x[1:-1] - x[:-2]) / np.where(width > 0, width, 1.0), 0.5)
    share = share.reshape(-1, *[1] * (y.ndim - 1))
    return y[1:-1] - ((1 - share) * y[:-2] + share * y[2:])


def _way(j: int, x: NDArray[np.float64], y: NDArray[np.float64], categories: Categories) -> str:
    if not np.abs(y).max(initial=0.0):
        return WAYS["neutral"]
    if j in categories:
        known = np.isfinite(x)
        codes = np.unique(x[known])
        means = [y[known & (x == code)].mean() for code in codes]
        if not means:
            return "always missing"
        best, worst = int(np.argmax(means)), int(np.argmin(means))
        top, least = (pictures.told(codes[i], j, categories) for i in (best, worst))
        return f"{top} raises the output most, {least} least"
    r = rank_correlation(x, y)
    return WAYS["positive" if r >= 0.5 else "negative" if r <= -0.5 else "mixed"]


def _across(
    x: NDArray[np.float64], j: int, categories: Categories, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Spec, NDArray[np.bool_]]:
    """Places on the x axis, the axis, and which rows' places were cut."""
    known = np.isfinite(x)
    if j in categories:
        codes, counts = np.unique(x[known], return_counts=True)
        kept = codes[np.argsort(-counts, kind="stable")][:LEVELS]
        labels = [pictures.name_of(pictures.told(code, j, categories), 16) for code in kept]
        place = np.full(len(x), float(len(kept)))
        for i, code in enumerate(kept):
            place[x == code] = i
        if (known & (place == len(kept))).any():
            labels.append("other")
        place[~known] = first = -1 if not known.all() else 0
        labels = ["missing", *labels] if first else labels
        turned = sum(map(len, labels)) > 50
        axis = {"values": list(range(first, first + len(labels))), "grid": False, "labelAngle": -30 if turned else 0,
                "labelExpr": f"{json.dumps(labels)}[datum.value - ({first})]", "labelOverlap": False}  # fmt: skip
        scale = {"domain": [first - 0.5, first + len(labels) - 0.5], "nice": False}
        return (
            place + rng.uniform(-0.28, 0.28, len(x)),
            {"axis": axis, "scale": scale},
            np.zeros(len(x), bool),
        )
    low, high, cut = pictures.limits(x[known])
    levels = np.unique(x[known])
    step = float(np.diff(levels).min()) if 1 < len(levels) <= LEVELS else 0.0
    spread = (high - low) or 1.0
    at = np.where(known, x, 0.0).clip(low, high) + (rng.uniform(-0.15, 0.15, len(x)) * step if step else 0.0)
    at[~known] = low - 0.09 * spread + rng.uniform(-0.02, 0.02, int((~known).sum())) * spread
    begin = low - (0.13 if not known.all() else 0.03) * spread - 0.15 * step
    axis = {"labelExpr": f"datum.value < {low - 0.05 * spread!r} ? '' : datum.label", "tickCount": 8}
    cuts = np.zeros(len(x), dtype=bool)
    cuts[known] = cut
    domain = [pictures.short(begin, 6), pictures.short(high + 0.03 * spread + 0.15 * step, 6)]
    return at, {"scale": {"domain": domain, "nice": False, "zero": False}, "axis": axis}, cuts


def _colour(
    other: int | None, given: NDArray[np.float64], names: Sequence[str], categories: Categories
) -> tuple[Spec, list[Any] | None]:
    """The colour encoding by a feature, and each row's place in it (None: missing)."""
    if other is None:
        return {}, None
    z = given[:, other]
    known = np.isfinite(z)
    if other in categories:
        codes, counts = np.unique(z[known], return_counts=True)
        kept = [
            pictures.told(c, other, categories) for c in codes[np.argsort(-counts, kind="stable")][: len(LEVEL_COLOURS)]
        ]
        told = [pictures.told(v, other, categories) if ok else None for v, ok in zip(z, known, strict=True)]
        domain = [*kept, "other"] if len(codes) > len(kept) else kept
        scale = {"domain": domain, "range": [*LEVEL_COLOURS[: len(kept)], GREY][: len(domain)]}
        title, legend = pictures.name_of(names[other]), {"orient": "top", "columns": 3}
        spec = {"field": "c", "type": "nominal", "title": title, "scale": scale, "legend": legend}
        return spec, [t if t is None or t in kept else "other" for t in told]
    if not known.any():
        return {}, None
    low, high = np.percentile(z[known], (2, 98)).tolist()
    low, high = (low, high) if high > low else (float(z[known].min()), float(z[known].max()) or 1.0)
    spec = pictures.ramp(
        pictures.name_of(names[other]),
        [pictures.short(low), pictures.short(high)],
        [figure(low), figure(high)],
    )
    return spec, [pictures.short(v) if ok else None for v, ok in zip(z.clip(low, high).tolist(), known, strict=True)]

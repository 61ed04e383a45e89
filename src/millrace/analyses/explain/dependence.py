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
    other = (
        partner(j, y, given, categories) if colour_by is None else pictures.number(colour_by, feature_names)
    )
    at, axis, cut_x = _across(x, j, categories, pictures.draws(seed, 1))
    low, high, cut_y = pictures.limits(y)
    colour, level = _colour(other, given, feature_names, categories)
    marks = [
        {"x": pictures.short(a, 6), "y": pictures.short(b), "v": figure(v), "d": pictures.told(x[i], j, categories), "r": int(rows[i]),
         **({} if level is None else {"c": level[i]}), **({"o": pictures.told(given[i, other], other, categories)} if other is not None else {})}
        for i, (a, b, v) in enumerate(zip(at.tolist(), y.clip(low, high).tolist(), y.tolist(), strict=True))
    ]  # fmt: skip
    name = str(feature_names[j])
    tip = [
        {"field": "d", "title": name},
        {"field": "v", "title": "SHAP value"},
        {"field": "r", "title": "row"},
    ]
    if other is None:
        seen = "No other feature changes much of it."
    else:
        seen = f"Colour: {feature_names[other]}" + (
            ", which changes its effect most." if colour_by is None else "."
        )
        tip.insert(1, {"field": "o", "title": str(feature_names[other])})
    caption = f"A dot is a row{pictures.of_all(rows, values, seed)}. {seen}"
    if not np.isfinite(x).all():
        caption += f" {int((~np.isfinite(x)).sum()):,} rows lack it: at the left, apart."
    caption += pictures.cut_tails(cut_x | cut_y, len(x))
    title = f"{name}: {_way(j, x, y, categories)}"
    known, unknown = {"filter": "isValid(datum.c)"}, {"filter": "!isValid(datum.c)"}
    dot = {"type": "point", "filled": True, "size": 22, "opacity": 0.75, "aria": False}
    layer: list[Spec] = [
        {"mark": {**dot, "color": GREY}, **({"transform": [unknown]} if level is not None else {})}
    ]
    if level is not None:
        layer.append({"mark": dot, "transform": [known], "encoding": {"color": colour}})
    return pictures.spec(
        title, caption, f"Scatter of {len(rows)} SHAP values of {name} against its value. {title}.",
        height=300,
        data={"values": marks},
        encoding={
            "x": {"field": "x", "type": "quantitative", "title": name, **axis},
            "y": {"field": "y", "type": "quantitative", "title": f"SHAP value of {pictures.name_of(name)}", "scale": {"domain": [low, high]}},
            "tooltip": tip,
        },
        layer=[pictures.zero("y"), *layer],
    )  # fmt: skip


def partner(
    j: int, shap: NDArray[np.float64], given: NDArray[np.float64], categories: Categories
) -> int | None:
    """The feature that seems to interact most with feature j, or None when its own value explains (nearly) all.

    What rows of like value (bins of 50 rows, or a category) have of SHAP value beyond their mean is correlated with
    every other feature in the same bin; absolute covariances add up over bins, since an interaction may turn its sign.
    A proxy, as shap's: the exact answer are interaction values. Categories are no candidates: codes have no order.
    """
    use = np.isfinite(given[:, j])
    order = np.flatnonzero(use)[np.argsort(given[use, j], kind="stable")]
    x, left, others = given[order, j], shap[order].copy(), given[order].copy()
    if len(order) < 20 or given.shape[1] < 2:
        return None
    starts = np.unique(x, return_index=True)[1]
    if j not in categories and len(starts) > LEVELS:
        starts = np.arange(0, len(order), 50)
    sizes = np.diff(np.append(starts, len(order)))
    whole = float(((left - left.mean()) ** 2).sum())
    left -= np.repeat(np.add.reduceat(left, starts) / sizes, sizes)
    if float((left**2).sum()) <= 0.01 * whole:
        return None
    mean = (
        np.nan_to_num(np.nanmean(np.where(np.isfinite(others), others, np.nan), axis=0, keepdims=True))
        if len(others)
        else 0.0
    )
    others = np.where(np.isfinite(others), others, mean)
    others -= np.repeat(np.add.reduceat(others, starts) / sizes[:, None], sizes, axis=0)
    scale = np.sqrt((others**2).sum(axis=0))
    scores = np.abs(np.add.reduceat(left[:, None] * others, starts)).sum(axis=0) / np.where(
        scale > 0, scale, np.inf
    )
    scores[[j, *categories]] = -1.0
    best = int(scores.argmax())
    return best if scores[best] > 0 else None


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
        return f"{pictures.told(codes[best], j, categories)} raises the output most, {pictures.told(codes[worst], j, categories)} least"
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
        if (rest := known & (place == len(kept))).any():
            labels.append("other")
        place[~known] = -1.0
        jitter = rng.uniform(-0.28, 0.28, len(x))
        first = -1 if not known.all() else 0
        labels = ["missing", *labels] if first else labels
        axis = {"values": list(range(first, first + len(labels))), "labelExpr": f"{json.dumps(labels)}[datum.value - ({first})]",
                "grid": False, "labelAngle": -30 if max(map(len, labels), default=0) > 6 else 0, "ticks": False}  # fmt: skip
        del rest
        return (
            place + jitter,
            {"axis": axis, "scale": {"domain": [first - 0.5, first + len(labels) - 0.5], "nice": False}},
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
            pictures.told(c, other, categories)
            for c in codes[np.argsort(-counts, kind="stable")][: len(LEVEL_COLOURS)]
        ]
        told = [pictures.told(v, other, categories) if ok else None for v, ok in zip(z, known, strict=True)]
        scale = {
            "domain": [*kept, "other"][: len(kept) + (len(codes) > len(kept))],
            "range": [*LEVEL_COLOURS[: len(kept)], GREY],
        }
        spec = {
            "field": "c",
            "type": "nominal",
            "title": pictures.name_of(names[other]),
            "scale": scale,
            "legend": {"orient": "top"},
        }
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
    return spec, [
        pictures.short(v) if ok else None for v, ok in zip(z.clip(low, high).tolist(), known, strict=True)
    ]

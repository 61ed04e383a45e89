"""How much each feature matters over all rows, which way it works, and sentences that say so.

Only numbers that were computed: nothing here looks at the model. Pictures of the same are in `views`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.run.units import format_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUPS = 200
RESAMPLES = 300
DIRECTION_ROWS = 2_000
DIRECTION_LEAST = 0.5
BLOCK_BYTES = 8 << 20
NOTHING = 1e-12


def importance(
    values: NDArray[Any],
    data: NDArray[Any],
    feature_names: Sequence[str],
    rng: np.random.Generator,
    categorical: Collection[int] = (),
) -> dict[str, list[Any]]:
    """Columns `feature`, `mean_abs`, `low`, `high`, `direction`, `correlation`; one row a feature, strongest first.

    values, data: (rows, features); `values` is read once, in blocks, and may be memory-mapped. `low`, `high`: 95 %
    bootstrap interval of mean |value|. Rows fall into GROUPS random groups and the groups are resampled, by weights
    (means of independent groups have the variance that the mean over rows has), so that RESAMPLES resamples cost
    RESAMPLES x GROUPS x features whatever the rows. direction: see `directions`.
    """
    sums, counts = group_sums(values, rng)
    return importance_of_sums(sums, counts, values, data, feature_names, rng, categorical)


def importance_of_sums(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    values: NDArray[Any],
    data: NDArray[Any],
    feature_names: Sequence[str],
    rng: np.random.Generator,
    categorical: Collection[int] = (),
) -> dict[str, list[Any]]:
    """As `importance`, from the sums (groups, features) of |value| over groups of rows that were made before; values, data:
    rows drawn from all, for the directions."""
    sums, counts = sums[counts > 0], counts[counts > 0]
    mean = sums.sum(axis=0) / counts.sum()
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    resampled = (weights @ sums) / (weights @ counts)[:, None]
    low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
    words, correlation = directions(values, data, mean, rng, categorical)
    order = np.argsort(-mean, kind="stable")
    return {
        "feature": [str(feature_names[j]) for j in order],
        "mean_abs": mean[order].tolist(),
        "low": np.minimum(low, mean)[order].tolist(),
        "high": np.maximum(high, mean)[order].tolist(),
        "direction": [words[j] for j in order],
        "correlation": [None if np.isnan(correlation[j]) else float(correlation[j]) for j in order],
    }


def group_sums(values: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of |value| (groups, features) and numbers of rows, over random groups; a group a row when there are few.

    Labels are drawn row by row, so that rows in some order (sorted by time, say) do not make groups alike.
    """
    rows, features = values.shape
    groups = min(rows, GROUPS)
    sums, counts = np.zeros((groups, features)), np.zeros(groups)
    block = max(1, BLOCK_BYTES // (8 * max(1, features)))
    for start in range(0, rows, block):
        part = np.abs(np.asarray(values[start : start + block], dtype=np.float64))
        labels = np.arange(rows) if rows <= GROUPS else rng.integers(0, groups, len(part))
        labels = labels[start : start + block] if rows <= GROUPS else labels
        order = np.argsort(labels, kind="stable")
        present, first = np.unique(labels[order], return_index=True)
        sums[present] += np.add.reduceat(part[order], first, axis=0)
        counts += np.bincount(labels, minlength=groups)
    return sums, counts


def directions(
    values: NDArray[Any],
    data: NDArray[Any],
    mean_abs: NDArray[np.float64],
    rng: np.random.Generator,
    categorical: Collection[int] = (),
) -> tuple[list[str], NDArray[np.float64]]:
    """Which way each feature works, and the rank correlation that says so (NaN where there is none).

    Spearman's correlation of the feature and its SHAP values over at most DIRECTION_ROWS random rows, without those
    where the feature is missing. `positive` from 0.5, `negative` to -0.5, `mixed` between (it depends on the row or on
    other features) and for categories, which have no order; `neutral` when the values are all zero.
    """
    rows, features = values.shape
    chosen = sample(rows, DIRECTION_ROWS, rng)
    shown, given = np.asarray(values[chosen], dtype=np.float64), np.asarray(data[chosen], dtype=np.float64)
    found = np.full(features, np.nan)
    for j in range(features):
        if j not in categorical:
            found[j] = rank_correlation(given[:, j], shown[:, j])
    largest = float(mean_abs.max(initial=0.0))
    words = ["positive" if r >= DIRECTION_LEAST else "negative" if r <= -DIRECTION_LEAST else "mixed" for r in found]
    return ["neutral" if m <= NOTHING * largest else w for w, m in zip(words, mean_abs, strict=True)], found


def sample(rows: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `most` row numbers, ascending, drawn without replacement."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(rng.choice(rows, most, replace=False, shuffle=False))


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's correlation where both are finite; NaN when one of them does not vary."""
    both = np.isfinite(x) & np.isfinite(y)
    ranks = np.stack([_ranks(x[both]), _ranks(y[both])])
    ranks -= ranks.mean(axis=1, keepdims=True) if ranks.size else 0.0
    sizes = np.sqrt((ranks**2).sum(axis=1))
    return float(ranks[0] @ ranks[1] / sizes.prod()) if sizes.all() else float("nan")


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1/2 on, ties at their middle."""
    ordered = np.sort(x)
    return (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")) / 2


# -- in words ------------------------------------------------------------------------------------------------------
WAYS = {
    "positive": "higher values raise the output",
    "negative": "higher values lower the output",
    "mixed": "which way depends on its value and on other features",
    "neutral": "it does not move the output",
}


def sentences(table: Iterable[Mapping[str, Any]], base_value: float, unit: str) -> list[str]:
    """What `importance` found, one sentence a row of it, after one about the base value, which names the unit of all."""
    said = [f"All in {unit}: before anything is known about a row the expected output is {figure(base_value)}."]
    for row in table:
        if row["direction"] == "neutral":
            said.append(f"{row['feature']}: {WAYS['neutral']}.")
            continue
        said.append(
            f"{row['feature']} moves it by {figure(row['mean_abs'])} on average "
            f"(95 % interval {figure(row['low'])} to {figure(row['high'])}); {WAYS[row['direction']]}."
        )
    return said


def of_unit(unit: str) -> str:
    """The unit after a number, where it reads as one: " log-odds", but nothing for "the unit of ..."."""
    if not unit or unit.startswith("the "):
        return ""
    return f" {unit}" if unit.startswith(("log-odds", "probability")) or " " not in unit else f" in {unit}"


def figure(value: float) -> str:
    """Three digits, see `units.format_figure`; "nan" and "inf" as they are."""
    return format_figure(value) if np.isfinite(value) else str(value)

"""Twins beside a Gaussian copula and a chain of scikit-learn's CARTs: how like the real rows, how useful, how private.

`python -m bench.twin [SET ...] [--sets FOLDER]`. Every contender learns the same rows and makes as many twins: shape and trend
are told beside the rows that were learnt, C2ST beside rows that were not (as many twins as these), utility on them, of twins
and of real rows, and membership between both. A set is a part: its figures are written when it is through, and those of others
are kept. Sets that come with packages are halved; FOLDER may hold the published ones as NAME.train.csv and NAME.test.csv
(adult, shoppers, magic, beijing, default; the target is the last column), and those that are not there are named.
How fast: see `twin_speed`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

import millrace as mr
from bench.harness import Bench
from millrace.analyses.twin.kernels import measures

PUBLISHED = ("adult", "shoppers", "magic", "beijing", "default")
HELD = {  # shape, trend, C2ST, utility: figures of the specification, of published train and test splits
    "adult": (0.995, 0.988, 0.54, 0.923), "shoppers": (0.991, 0.985, 0.53, 0.883), "magic": (0.993, 0.991, 0.53, 0.913),
    "beijing": (0.993, 0.982, 0.53, 0.655), "default": (0.990, 0.982, 0.58, 0.764),
}  # fmt: skip
ROWS = 20_000
Frame = pd.DataFrame


# -- sets ------------------------------------------------------------------------------------------------------------
def packaged() -> dict[str, tuple[Frame, str]]:
    """Sets inside plotnine, statsmodels and scikit-learn, with what is predicted."""
    from plotnine.data import diamonds, txhousing
    from sklearn.datasets import load_breast_cancer
    from statsmodels.datasets import fair, randhie

    stones = diamonds.copy()
    for column in ("cut", "color", "clarity"):
        stones[column] = stones[column].astype(str)
    cancer = load_breast_cancer(as_frame=True).frame
    houses = txhousing.drop(columns=["date"]).dropna(subset=["sales"])
    return {
        "diamonds": (stones, "price"), "randhie": (randhie.load_pandas().data, "mdvis"),
        "txhousing": (houses, "sales"), "fair": (fair.load_pandas().data, "affairs"),
        "breast_cancer": (cancer, "target"), "factors": (factors(), "y"),
    }  # fmt: skip


def factors(rows: int = 20_000, columns: int = 60) -> Frame:
    """A wide, factor-like table: eight hidden numbers, a third of the columns skewed, a fifth of them categories."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(rows, 8))
    X = hidden @ (rng.normal(size=(8, columns)) * (rng.random((8, columns)) < 0.4)) + 0.7 * rng.normal(
        size=(rows, columns)
    )
    X[:, ::3] = np.exp(X[:, ::3] / 2)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(columns)])
    for j in range(3, columns, 5):
        frame[f"x{j}"] = pd.qcut(frame[f"x{j}"], 4, labels=list("abcd")).astype(str)
    return frame.assign(y=hidden[:, 0] * hidden[:, 1] + hidden[:, 2] + rng.normal(size=rows) / 2)


# -- contenders ------------------------------------------------------------------------------------------------------
def ours(train: Frame, n: int, target: str, privacy: str = "standard") -> Frame:
    model = mr.twin.fit(train, find=False, privacy=privacy, engine="inline")
    return mr.twin.sample(model, n, seed=1).to_pandas()


def copula(train: Frame, n: int, target: str) -> Frame:
    """Normal scores of every column (categories by their shares), one correlation matrix, and back by quantiles."""
    rng, scores, back = np.random.default_rng(1), [], []
    for name in train:
        column = train[name]
        if column.dtype.kind in "fiub":
            known = np.sort(column.to_numpy(float)[~column.isna()])
            ranks = (np.searchsorted(known, column.to_numpy(float), "left") + rng.random(len(column))) / (
                len(known) + 1
            )
            back.append(lambda u, known=known: known[np.minimum((u * len(known)).astype(int), len(known) - 1)])
        else:
            shares = column.astype(str).value_counts(normalize=True)
            edges = np.concatenate([[0], np.cumsum(shares.to_numpy())])
            code = shares.index.get_indexer(column.astype(str))
            ranks = edges[code] + rng.random(len(column)) * np.diff(edges)[code]
            labels = shares.index.to_numpy()
            back.append(lambda u, e=edges, of=labels: of[np.clip(np.searchsorted(e, u, "right") - 1, 0, len(of) - 1)])
        scores.append(ndtri(np.clip(ranks, 1e-6, 1 - 1e-6)))
    S = np.corrcoef(np.array(scores))
    drawn = ndtr(rng.multivariate_normal(np.zeros(len(S)), np.nan_to_num(S), n, method="eigh"))
    return pd.DataFrame({name: f(drawn[:, j]) for j, (name, f) in enumerate(zip(train, back, strict=True))})


def cart(train: Frame, n: int, target: str) -> Frame:
    """A scikit-learn tree a column on all columns before it, a value drawn from the leaf's rows (as synthpop does)."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    rng = np.random.default_rng(1)
    codes = {
        c: v.to_numpy(float) if v.dtype.kind in "fiub" else pd.factorize(v)[0].astype(float) for c, v in train.items()
    }
    known = {c: np.nan_to_num(v, nan=-1e9) for c, v in codes.items()}
    names, made, picked = list(train), {}, {}
    for k, name in enumerate(names):
        if not k:
            at = rng.integers(0, len(train), n)
        else:
            kind = DecisionTreeRegressor if train[name].dtype.kind == "f" else DecisionTreeClassifier
            tree = kind(min_samples_leaf=20, random_state=0).fit(
                np.column_stack([known[c] for c in names[:k]]), known[name]
            )
            of_real = tree.apply(np.column_stack([known[c] for c in names[:k]]))
            of_twins = tree.apply(np.column_stack([made[c] for c in names[:k]]))
            order = np.argsort(of_real, kind="stable")
            begin, end = (np.searchsorted(of_real[order], of_twins, side) for side in ("left", "right"))
            at = order[begin + (rng.random(n) * (end - begin)).astype(int)]
        made[name], picked[name] = known[name][at], train[name].to_numpy()[at]
    return pd.DataFrame(picked)


# -- measured --------------------------------------------------------------------------------------------------------
def matrices(*frames: Frame) -> tuple[list[np.ndarray], np.ndarray]:
    first = frames[0]
    nominal = np.array([first[c].dtype.kind not in "fiub" for c in first])
    found = [np.empty((len(f), first.shape[1])) for f in frames]
    for j, c in enumerate(first):
        levels = pd.unique(pd.concat([f[c].astype(str) for f in frames])) if nominal[j] else None
        for f, m in zip(frames, found, strict=True):
            m[:, j] = f[c].to_numpy(float) if levels is None else pd.Index(levels).get_indexer(f[c].astype(str))
    return found, nominal


def measured(train: Frame, test: Frame, twins: Frame, target: str) -> dict[str, float]:
    (a, b, s), nominal = matrices(train, test, twins[list(train)])
    m = min(len(b), len(s))  # any of them: a twin does not depend on how many there are
    folds = [measures.fold(k, {"real": b[:m], "twins": s[:m], "nominal": nominal}, 0) for k in range(measures.FOLDS)]
    scores, labels = (np.concatenate([f[n] for f in folds]) for n in ("scores", "labels"))
    at = list(train).index(target)
    trends = measures.trends(a, s, nominal)
    return {
        "shape": float(measures.shapes(a, s, nominal).mean()), "trend": float(trends[np.triu_indices(len(trends), 1)].mean()),
        "C2ST": measures.auc(scores, labels), "utility": measures.utility(s, b, at, nominal)[1],
        "of real": measures.utility(a, b, at, nominal)[1], "membership": measures.privacy(a, b, s, nominal, 0)["membership"],
    }  # fmt: skip


def quality(name: str, train: Frame, test: Frame, target: str) -> None:
    """The figures of each contender, written when the set is through."""
    contenders: dict[str, Callable[..., Frame]] = {"millrace": ours, "Gaussian copula": copula, "CART chain": cart}
    contenders |= {f"millrace, privacy {p}": (lambda *a, p=p: ours(*a, privacy=p)) for p in ("low", "high")}
    bench = Bench("twin")
    test = test.sample(min(len(test), ROWS), random_state=0).reset_index(drop=True)  # tables are often sorted
    for who, make in contenders.items():
        begin = time.process_time()
        try:
            twins = make(train, len(train), target)
        except ValueError as e:  # a peer's: missing values, single classes
            print(f"{name:<14} {who:<24} cannot: {str(e).splitlines()[0][:80]}", flush=True)
            continue
        took = time.process_time() - begin
        held = (
            dict(zip(("shape", "trend", "C2ST", "utility"), HELD.get(name, ()), strict=False))
            if who == "millrace"
            else {}
        )
        for what, value in measured(train, test, twins, target).items():
            bench.figure(f"{name}, {who}: {what}", value, "", held.get(what), what in ("C2ST", "membership"))
        bench.figure(f"{name}, {who}: processor", took, "s")
    bench.keep()
    bench.write()


def main(arguments: list[str]) -> int:
    folder = Path(arguments.pop(arguments.index("--sets") + 1)) if "--sets" in arguments else None
    sets = packaged()
    wanted = [a for a in arguments if not a.startswith("--")] or [*sets, *PUBLISHED]
    for name in wanted:
        if name in sets:
            frame, target = sets[name]
            half = np.random.default_rng(0).permutation(len(frame)) < len(frame) // 2
            quality(name, frame[half].reset_index(drop=True), frame[~half].reset_index(drop=True), target)
            continue
        paths = [folder / f"{name}.{part}.csv" for part in ("train", "test")] if folder else []
        if not paths or not all(p.exists() for p in paths):
            print(f"{name:<14} not run: no {name}.train.csv and {name}.test.csv in {folder or 'a folder (--sets)'}")
            continue
        train, test = (pd.read_csv(p) for p in paths)
        quality(name, train, test, str(train.columns[-1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

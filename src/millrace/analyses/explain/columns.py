"""Rows in a model's columns: its order, its codes of labels, one code for a label in data and background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.tables import Rows, align

if TYPE_CHECKING:
    from millrace.analyses.explain.parquet import Source
    from millrace.analyses.explain.spec import Spec


def in_model_columns(model: Any, rows: Rows, what: str, note: Callable[[str], None]) -> Rows:
    """Rows in the model's columns, in its order."""
    from millrace.analyses.explain.kernels.libraries import column_names, n_columns

    names = column_names(model)
    if names is not None:
        plain = tuple(n.replace(" ", "_") for n in rows.names)
        if set(names) != set(rows.names) and set(names) == set(plain):
            rows = replace(rows, names=plain)  # LightGBM writes spaces in names as underscores
        rows, said = align(rows, names, what)
        if said is not None:
            note(said)
    else:
        count = n_columns(model)
        if count is not None and count != len(rows.names):
            raise WrongQuestion(
                f"The {what} has {len(rows.names)} columns and the model takes {count}: give the columns of its training."
            )
    return rows


def recode(model: Any, rows: Rows, what: str) -> Rows:
    """Codes of the data's own labels become the model's codes; a label that the model does not know is missing."""
    from millrace.analyses.explain.kernels.libraries import category_labels

    if not rows.categories:
        return rows
    labels = category_labels(model, rows.categories)
    if labels is None:
        names = ", ".join(repr(rows.names[j]) for j in rows.categories)
        raise WrongQuestion(
            f"The {what} has text or categories in {names}, and the model was not fitted on categories that it remembers: "
            "give the numbers that it was fitted on."
        )
    return coded(rows, labels)


def coded(rows: Rows, labels: Mapping[int, tuple[Any, ...]]) -> Rows:
    """The same rows in these labels' codes, by column."""
    import numpy

    values = rows.values.copy()
    for j, own in rows.categories.items():
        code_of = {label: code for code, label in enumerate(labels[j])}
        table = numpy.array([code_of.get(label, numpy.nan) for label in own] + [numpy.nan])
        codes = values[:, j]
        values[:, j] = table[numpy.where(numpy.isnan(codes), len(own), codes).astype(numpy.int64)]
    return replace(rows, values=values, categories={j: labels[j] for j in rows.categories})


def alike(rows: Rows, background: Rows) -> tuple[Rows, Rows]:
    """Both in the data's columns and codes, so that a code means one label in both; labels of the background alone
    come after the data's own."""
    import numpy

    background, _ = align(background, rows.names, "background")
    values, known = background.values.copy(), dict(rows.categories)
    if set(known) != set(background.categories):
        j = min(set(known) ^ set(background.categories))
        raise WrongQuestion(
            f"The column {rows.names[j]!r} holds labels in one of data and background, and numbers in the other: give both alike."
        )
    for j, own in background.categories.items():
        known[j] = (*known[j], *(label for label in own if label not in known[j]))
        code_of = {label: code for code, label in enumerate(known[j])}
        codes = values[:, j]
        table = numpy.array([code_of[label] for label in own] + [numpy.nan])
        values[:, j] = table[numpy.where(numpy.isnan(codes), len(own), codes).astype(numpy.int64)]
    return replace(rows, categories=known), replace(background, values=values, categories=known)


def streamed_source(spec: Spec, model: Any, note: Callable[[str], None]) -> Source:
    """The file of the data, of which the model's columns are read, in its order."""
    from millrace.analyses.explain.kernels.libraries import column_names
    from millrace.analyses.explain.parquet import open_source

    if spec.interactions:
        raise NotSupported("Interaction values are not streamed to files: leave interactions out, or leave stream out.")
    if spec.limit is not None:
        raise WrongQuestion("limit is of data in memory, and stream explains a whole file: leave one of them out.")
    source = open_source(spec.data)
    names = column_names(model)
    if names is None:
        return source
    own = source.columns
    plain = {n.replace(" ", "_"): n for n in own}  # LightGBM writes spaces in names as underscores
    missing = [n for n in names if n not in own and n not in plain]
    if missing or len(names) != len(own):
        return source  # said when the first rows are matched with the model's columns
    if tuple(names) != own and sorted(names) == sorted(own):
        note("The columns of the data were put into the model's order by name.")
    return source.only(tuple(n if n in own else plain[n] for n in names))

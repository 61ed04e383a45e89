"""Parts that the pictures of twins share: colours, the frame, layers. Blue is real, orange is twins; grey without a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, ORANGE, RED, GREY = "#2f7fc4", "#d9822b", "#d0481f", "#8b94a1"
SIDES = ("real", "twins")


def short(value: float, digits: int = 5) -> float:
    """What a picture needs of a figure; specs are text, and most of it is digits."""
    return float(f"{value:.{digits}g}") + 0.0


def name_of(name: Any, most: int = 24) -> str:
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def sides(**more: Any) -> Spec:
    """The colour of real rows and of twins."""
    return {
        "field": "side",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(SIDES), "range": [BLUE, ORANGE]},
        **more,
    }


def along(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def layer(kind: str, encoding: Mapping[str, Any], values: Sequence[Spec] | None = None, **mark: Any) -> Spec:
    made: Spec = {"mark": {"type": kind, "aria": False, **mark}, "encoding": dict(encoding)}
    return made if values is None else {"data": {"values": list(values)}, **made}


def spec(title: str, caption: str, description: str, **rest: Any) -> Spec:
    """The frame: the finding, how to read it, and what those are told who cannot see it."""
    title_ = {
        "text": textwrap.wrap(title, 84), "subtitle": textwrap.wrap(caption, 105), "anchor": "start", "offset": 12,
    }  # fmt: skip
    width = {} if {"concat", "hconcat"} & set(rest) else {"width": "container"}
    return {"$schema": SCHEMA, "title": title_, "description": description, **width, **rest}

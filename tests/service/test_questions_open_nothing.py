"""Bodies come from the specs: same fields, defaults and words; and every field that could open something has its rule."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from millrace.analyses import catalogue
from millrace.service.questions import RULES, entries, question_model, rule_of

HARMLESS = {
    "explain": {"method", "output", "precision"},
    "refute": {
        "treatment", "outcome", "common_causes", "effect_modifiers", "weights", "clusters", "strata", "reference", "tests",
        "negative_outcomes", "negative_treatments", "blocks", "options", "target", "thresholds", "placebo", "gate", "missing",
        "precision",
    },
    "calibrate": {"parameters", "sampler", "replicates", "seeds", "order", "on_error", "limits"},
    "twin fit": {"outcome", "treatment", "privacy", "drop", "constraints", "joint", "effect", "overlap"},
    "twin assess": {"target"},
    "twin simulate": {"by", "goal"},
    "validate": {"entry", "isolation", "stop", "case_memory"},
}  # fmt: skip
"""Fields that can hold text and open nothing: names of columns, words, sizes. A new field with text is to be judged."""


def holds_text(annotation: Any) -> bool:
    if annotation is str or annotation is Any:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(holds_text(f.annotation) for f in annotation.model_fields.values())
    return any(holds_text(part) or isinstance(part, str) for part in get_args(annotation))


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_every_field_with_text_has_a_rule_or_is_judged_harmless(entry: catalogue.Entry) -> None:
    for name, field in entry.load("spec").model_fields.items():
        if holds_text(field.annotation) and rule_of(entry.name, name, field.annotation) is None:
            assert name in HARMLESS[entry.name], f"{entry.name}.{name}: can it open a file, a url or a module?"


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_a_body_is_the_spec(entry: catalogue.Entry) -> None:
    spec, body = entry.load("spec"), question_model(entry)
    withheld = {name for name, rule in RULES.get(entry.name, {}).items() if rule.kind == "withheld"}
    assert list(body.model_fields) == [name for name in spec.model_fields if name not in withheld]
    for name, field in body.model_fields.items():
        own = spec.model_fields[name]
        assert (field.is_required(), field.default, field.description) == (
            own.is_required(),
            own.default,
            own.description,
        )
    assert body.model_config["extra"] == "forbid"


def test_rules_are_of_fields_that_there_are() -> None:
    for analysis, rules in RULES.items():
        if analysis != "run":
            assert set(rules) <= set(catalogue.find(analysis).load("spec").model_fields)

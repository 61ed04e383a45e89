"""The bodies of questions, made from the specs of the analyses as the command's options are, and what clients may name in them.

A client names: inputs (data and models, see `names`), and functions and modules that the operator's settings allow. A field
that would open anything else is not in the body. What a field is stands in `RULES`; a field of any type that has no rule
takes the name of data, so that a new one opens nothing by itself.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from millrace.analyses import catalogue
from millrace.analyses.catalogue import Entry
from millrace.analyses.twin.spec import LEARNERS
from millrace.jobs.inputs import Input
from millrace.run.errors import WrongQuestion

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
InputName = Annotated[
    str, Field(pattern=NAME, max_length=200, description="of data or of a model, as it was registered")
]
FUNCTION = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
FunctionName = Annotated[
    str, Field(pattern=FUNCTION, max_length=200, description="module:function, of those that the service allows")
]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=200)]
Label = Annotated[str, Field(pattern=r'^[^\x00-\x1f\x7f<>"\\]*$', max_length=100)]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field of a question is over HTTP. `kind`: model, data, function (of those allowed, or one of `words`), modules,
    targets (of a calibration) or withheld. `values`: types of plain values that it takes besides."""

    kind: str
    values: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()


RULES: Mapping[str, Mapping[str, Rule]] = {
    "explain": {
        "model": Rule("model"),
        "background": Rule("data", words=("auto",)),
        "background_weights": Rule("data", (list[float],)),
        "groups": Rule("plain", (dict[str, list[str]],)),
    },
    "refute": {
        "graph": Rule("data", (list[tuple[str, str]],)),
        "estimator": Rule("function", words=("ols", "ols_interacted", "ipw", "aipw", "dml", "matching")),
    },
    "calibrate": {
        "simulate": Rule("function"),
        "summarise": Rule("function"),
        "targets": Rule("targets"),
        "storage": Rule("withheld"),
        "warm_start": Rule("withheld"),
        "study_name": Rule("withheld"),
    },
    "validate": {"cases": Rule("data"), "library": Rule("modules")},
    "twin fit": {
        "schema": Rule("data", (dict[str, Any],)),
        "learner": Rule("plain", (Literal[LEARNERS],)),
    },
    "twin generate": {
        "model": Rule("model"),
        "where": Rule("plain", (Annotated[str, Field(max_length=2000)], dict[str, Any])),
        "margins": Rule("data", (dict[str, dict[str, float]],)),
        "file": Rule("withheld"),
    },
    "twin assess": {"model": Rule("model")},
    "twin simulate": {
        "model": Rule("model"),
        "intervention": Rule("data", (dict[str, Any], list[dict[str, Any]])),
        "where": Rule("plain", (Annotated[str, Field(max_length=2000)], dict[str, Any])),
        "record": Rule("withheld"),
    },
    "run": {"function": Rule("function"), "items": Rule("data")},
}
DATA = Rule("data")


class RunQuestion(BaseModel):
    """The user's own function, one call an item."""

    model_config = ConfigDict(extra="forbid")

    function: FunctionName = Field(json_schema_extra={"x-names": "function"})
    items: InputName = Field(json_schema_extra={"x-names": "data"})
    limit: int | None = Field(None, ge=1, description="the first N items")


def rule_of(analysis: str, field: str, annotation: Any) -> Rule | None:
    """None: a plain value of the spec's own type."""
    known = RULES.get(analysis, {}).get(field)
    return known if known is not None else DATA if annotation is Any else None


def question_model(entry: Entry) -> type[BaseModel]:
    """The spec as a body: inputs by name, nothing that opens a place of the client's choosing."""
    fields: dict[str, Any] = {}
    for name, field in entry.load("spec").model_fields.items():
        rule = rule_of(entry.name, name, field.annotation)
        if rule is not None and rule.kind == "withheld":
            continue
        own = copy.copy(field)
        annotation = field.annotation
        if rule is not None and rule.kind not in ("targets", "modules"):
            annotation = _annotation(rule)
            if not field.is_required():
                annotation = annotation | None
        elif rule is not None and rule.kind == "modules":
            annotation = tuple[ModuleName, ...]
        if rule is not None and rule.kind in ("model", "data", "function"):
            own.json_schema_extra = {"x-names": rule.kind}  # what the page offers to choose from
        fields[name] = (annotation, own)
    title = f"{entry.name.title().replace(' ', '')}Question"
    with (
        warnings.catch_warnings()
    ):  # `schema` is also the name of a deprecated method of pydantic's, which nobody calls
        warnings.simplefilter("ignore", UserWarning)
        made: type[BaseModel] = create_model(
            title, __config__=ConfigDict(extra="forbid"), __doc__=entry.load("spec").__doc__, **fields
        )
    return made


def _annotation(rule: Rule) -> Any:
    kinds: list[Any] = {"function": [FunctionName], "plain": []}.get(rule.kind, [InputName])
    words = [Literal[rule.words]] if rule.words and rule.kind == "function" else []
    return reduce(or_, [*words, *kinds, *rule.values])


class About(BaseModel):
    """What is about the job, and not of the question."""

    model_config = ConfigDict(extra="forbid")

    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] | None = Field(
        None, description="not given: by prediction and kind"
    )
    priority: int = Field(0, ge=-100, le=100, description="a step is worth an hour of waiting")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="for everything random")
    label: Label = Field("", description="what the job is called; routes may go by it")
    key: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)] | None = Field(
        None, description="idempotency key: a second order of yours with it is the same job"
    )
    max_total_s: float = Field(0.0, ge=0, le=1e9, description="of all slices together; 0 is no bound")


def entries() -> list[Entry]:
    """The analyses that can be jobs."""
    return [entry for entry in catalogue.ENTRIES if entry.plan]


def orders() -> Any:
    """The body of a job: one model an analysis, told apart by `analysis`."""
    kinds = [(entry.name, question_model(entry)) for entry in entries()] + [("run", RunQuestion)]
    models = [
        create_model(
            f"{name.title().replace(' ', '')}Order", __base__=About, __doc__=f"{name} as a job.",
            analysis=(Literal[name], Field(description="which analysis")), question=(model, Field()),
        )
        for name, model in kinds
    ]  # fmt: skip
    return Annotated[reduce(or_, models), Field(discriminator="analysis")]


@dataclass(frozen=True, slots=True)
class Naming:
    """What a client's words mean. `find`: (kind, name) -> the input's name in the jobs' folder, `WrongQuestion` when there is
    none; `place`: where that input lies; `allowed`: patterns of functions and modules."""

    find: Callable[[str, str], str]
    place: Callable[[str], str]
    allowed: tuple[str, ...]

    def question(self, analysis: str, given: BaseModel) -> dict[str, Any]:
        """The question with `Input`s for what it names; every other value is as it was sent."""
        said = given.model_dump(mode="json", exclude_unset=True)
        spec = {} if analysis == "run" else catalogue.find(analysis).load("spec").model_fields
        found = {}
        for name, value in said.items():
            annotation = spec[name].annotation if name in spec else str
            found[name] = self._value(rule_of(analysis, name, annotation), value)
            if isinstance(value, dict) and set(value) == {"input"} and isinstance(value["input"], str):
                raise WrongQuestion(
                    f"The mapping {name} has the one key 'input', which means something else to jobs: rename it."
                )
        return found

    def _value(self, rule: Rule | None, value: Any) -> Any:
        if rule is None or value is None:
            return value
        if rule.kind == "targets":
            return [self._target(one) for one in value]
        if rule.kind == "modules":
            return [self._allowed(one) for one in value]
        if not isinstance(value, str) or value in rule.words or rule.kind == "plain":
            return value
        return self._allowed(value) if rule.kind == "function" else Input(self.find(rule.kind, value))

    def _target(self, one: dict[str, Any]) -> dict[str, Any]:
        """Of a calibration: observed data by name, a loss of one's own of those allowed."""
        if isinstance(one.get("data"), str):
            one = {**one, "data": self.place(self.find("data", one["data"]))}
        if isinstance(one.get("loss"), str) and ":" in one["loss"]:
            self._allowed(one["loss"])
        return one

    def _allowed(self, name: str) -> str:
        if not any(fnmatchcase(name, pattern) for pattern in self.allowed):
            told = ", ".join(self.allowed) or "none"
            raise WrongQuestion(
                f"The service does not let clients name {name!r}. It allows: {told} (setting `functions` of its operator)."
            )
        return name

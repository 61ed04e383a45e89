"""`mr.connect(url)`: the questions of `mr.explain` and the others as jobs of a service elsewhere, over HTTP.

    far = mr.connect("http://127.0.0.1:8373")
    job = far.submit.explain(model, X)          what is here (objects, files) is sent by content; names are of the service
    far.submit.wait(job)                        until it has ended
    far.submit.answer(job)                      the folder of the answer, fetched; its digest is that of a run here
    far.row("churn", {"age": 41, ...})          one row, at once

Needs httpx (extra `service`). Waiting is by asking again; nothing is kept open.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace import compose, ordering
from millrace.analyses import catalogue
from millrace.run.errors import DoesNotFit, MillraceError, MissingExtra, WrongQuestion

if TYPE_CHECKING:
    import httpx

Told = Mapping[str, Any]
FORMS = {
    "model": {".txt": "lightgbm", ".json": "xgboost-json", ".ubj": "xgboost-ubj", ".cbm": "catboost", ".onnx": "onnx",
              ".skops": "skops"},
    "data": {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
             ".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".py": "py", ".gml": "gml", ".dot": "dot",
             ".gv": "dot", ".toml": "toml"},
}  # fmt: skip
LOOK_S, TIMEOUT_S = 0.3, 120.0


class ServiceAway(MillraceError):
    """The service cannot be reached, or failed; a cause that may pass."""


def connect(url: str | None = None, *, token: str | None = None) -> Service:
    """The service at that url, by default the one of the settings (`url`; the token is `url_token`, best in the environment
    as MILLRACE_URL_TOKEN). Nothing is asked yet; close it, or use it in a `with`."""
    try:
        import httpx
    except ImportError as e:
        raise MissingExtra("httpx", "service", "A connection to a service") from e
    settings = compose.load_settings({"url": url, "url_token": token})
    if settings.url is None:
        raise WrongQuestion("Where is the service? Give its url, such as http://127.0.0.1:8373, or the setting url.")
    headers = {"Authorization": f"Bearer {settings.url_token}"} if settings.url_token else {}
    return Service(httpx.Client(base_url=settings.url, headers=headers, timeout=TIMEOUT_S), settings.url)


@dataclass(frozen=True, slots=True)
class Service:
    """A service elsewhere."""

    client: httpx.Client
    url: str

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    @property
    def submit(self) -> Submit:
        """Questions as jobs."""
        return Submit(self)

    def plan(self, analysis: str, **question: Any) -> Told:
        """Where a question would go, and what it takes on each tier."""
        return self.ask("POST", "/v1/plan", json=self.order(analysis, question)).json()  # type: ignore[no-any-return]

    def row(self, model: Any, row: Any, **options: Any) -> Told:
        """One row explained at once: see `POST /v1/explain` for `options`."""
        return self.rows(model, [row], **options)[0]

    def rows(self, model: Any, rows: Sequence[Any], **options: Any) -> list[Told]:
        """Up to 1,000 rows explained at once."""
        sent = {name: self.named("data", value) if name == "background" else value for name, value in options.items()}
        body = {"model": self.named("model", model), "batch": list(rows), **sent}
        return self.ask("POST", "/v1/explain", json=body).json()["answers"]  # type: ignore[no-any-return]

    def twins(self, model: str, n: int = 10, **options: Any) -> list[Told]:
        """Up to 1,000 twins at once of a model there (job-7: what job 7 fitted); `where`, `seed`, `first`."""
        told = self.ask("POST", f"/v1/twin/{model}/generate", json={"n": n, **options})
        return told.json()["twins"]  # type: ignore[no-any-return]

    def names(self) -> list[Told]:
        """Data and models that questions may name."""
        return self.ask("GET", "/v1/names").json()["names"]  # type: ignore[no-any-return]

    def send(self, kind: str, name: str, source: str | Path) -> None:
        """Send a file as a model or data under a name of yours."""
        path = Path(source)
        form = FORMS[kind].get(path.suffix.lower()) if kind in FORMS else None
        if not path.is_file() or form is None:
            known = ", ".join(sorted(FORMS.get(kind, {})))
            raise WrongQuestion(
                f"{path} cannot be sent as {kind}: a service takes files that end in {known}. Nothing that can execute is sent: "
                "save the model in its library's own form; a folder goes under a root of the service."
            )
        where = "models" if kind == "model" else "data"
        with path.open("rb") as file:
            self.ask("PUT", f"/v1/{where}/{name}", params={"form": form}, content=file)

    # -- questions -----------------------------------------------------------------------------------------------
    def order(self, analysis: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a question: what is here is sent, and named by its content."""
        if analysis == "run":
            asked = {**question, "items": self.named("data", question["items"])}
        else:
            asked = self._named_in(analysis, question)
        return {"analysis": analysis, "question": asked}

    def _named_in(self, analysis: str, question: Mapping[str, Any]) -> dict[str, Any]:
        from millrace.service.questions import rule_of

        fields = catalogue.find(analysis).load("spec").model_fields
        asked = {}
        for name, value in question.items():
            if value is None:
                continue
            rule = rule_of(analysis, name, fields[name].annotation) if name in fields else None
            plain = isinstance(value, str) and rule is not None and value in rule.words
            if rule is not None and rule.kind in ("model", "data") and not plain and not _values(rule.values, value):
                asked[name] = self.named(rule.kind, value)
            elif rule is not None and rule.kind == "targets":
                asked[name] = [self._target(one) for one in _targets(value)]
            else:
                asked[name] = _plain(value)
        return asked

    def _target(self, one: Mapping[str, Any]) -> dict[str, Any]:
        data = one.get("data")
        inline = data is None or isinstance(data, int | float | list | tuple | Mapping)
        return {**one, "data": _plain(data) if inline else self.named("data", data)}

    def named(self, kind: str, value: Any) -> str:
        """The name of a value there: a text that is no file here is one; a file or an object is sent, once for its content."""
        if isinstance(value, str) and not Path(value).exists():
            return value
        if isinstance(value, str | os.PathLike):
            return self._sent(kind, Path(value))
        with tempfile.TemporaryDirectory() as scratch:
            return self._sent(kind, ordering.written(value, Path(scratch)))

    def _sent(self, kind: str, path: Path) -> str:
        if not path.is_file():
            self.send(kind, "", path)  # says why not
        with path.open("rb") as file:
            name = f"sha256-{hashlib.file_digest(file, 'sha256').hexdigest()[:40]}"
        if not any(one["kind"] == kind and one["name"] == name for one in self.names()):
            self.send(kind, name, path)
        return name

    # -- the wire ------------------------------------------------------------------------------------------------
    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request. Raises what a run here would: `WrongQuestion`, `DoesNotFit`, else `ServiceAway`."""
        import httpx

        try:
            told = self.client.request(method, path, **more)
        except (httpx.TransportError, httpx.InvalidURL) as e:
            raise ServiceAway(
                f"The service at {self.url} cannot be reached: {type(e).__name__}: {e}. Look whether it runs there (`millrace "
                "up`), and whether the url is right."
            ) from e
        if told.is_success:
            return told
        raise _error(told, self.url)

    def download(self, path: str, to: Path) -> None:
        """A file of the service, as it comes."""
        import httpx

        try:
            with self.client.stream("GET", path) as told:
                if not told.is_success:
                    told.read()
                    raise _error(told, self.url)
                with to.open("wb") as file:
                    for part in told.iter_bytes():
                        file.write(part)
        except httpx.TransportError as e:
            raise ServiceAway(f"The service at {self.url} went away while {path} was fetched: {e}.") from e


@dataclass(frozen=True, slots=True)
class Submit:
    """As `mr.submit`, with the service's jobs. A job is told as the service tells it, a mapping with its id and state."""

    service: Service

    def submit(self, analysis: str, question: Mapping[str, Any]) -> Told:
        """Any analysis by name; `queue`, `priority`, `seed`, `label`, `key` and `max_total_s` in it are about the job."""
        about = {name: question[name] for name in ordering.ABOUT if name in question and name != "owner"}
        asked = {name: value for name, value in question.items() if name not in ordering.ABOUT}
        body = {**self.service.order(analysis, asked), **about}
        return self.service.ask("POST", "/v1/jobs", json=body).json()  # type: ignore[no-any-return]

    def explain(self, model: Any, X: Any, **question: Any) -> Told:
        """`mr.explain(model, X, ...)` as a job there."""
        return self.submit("explain", {"model": model, "data": X, **question})

    def refute(self, data: Any, treatment: str, outcome: Any, **question: Any) -> Told:
        """`mr.refute(data, treatment, outcome, ...)` as a job there."""
        return self.submit("refute", {"data": data, "treatment": treatment, "outcome": outcome, **question})

    def calibrate(self, simulate: str, *, parameters: Any, targets: Any, **question: Any) -> Told:
        """`mr.calibrate(...)` as a job there; `simulate` is a function of the service's, module:function."""
        return self.submit(
            "calibrate", {"simulate": simulate, "parameters": parameters, "targets": targets, **question}
        )

    def validate(self, candidates: Any, cases: Any, **question: Any) -> Told:
        """`mr.validate(candidates, cases, ...)` as a job there."""
        return self.submit("validate", {"candidates": candidates, "cases": cases, **question})

    def run(self, function: str, items: Any, **more: Any) -> Told:
        """A function of the service's, module:function, called once for each item of a file."""
        return self.submit("run", {"function": function, "items": items, **more})

    def look(self, job: Told | int) -> Told:
        """The job as it is now."""
        return self.service.ask("GET", f"/v1/jobs/{_number(job)}").json()  # type: ignore[no-any-return]

    def jobs(self, **which: Any) -> list[Told]:
        """Yours, the newest first; `state`, `tier`, `limit`."""
        return self.service.ask("GET", "/v1/jobs", params=which).json()["jobs"]  # type: ignore[no-any-return]

    def wait(self, job: Told | int, show: Callable[[Told], None] | None = None) -> Told:
        """The job when it has ended. `show` is told of it each time that it was asked for."""
        while True:
            now = self.look(job)
            if show is not None:
                show(now)
            if now["ended_at"] is not None:
                return now
            time.sleep(LOOK_S)

    def cancel(self, job: Told | int) -> Told:
        return self.service.ask("DELETE", f"/v1/jobs/{_number(job)}").json()  # type: ignore[no-any-return]

    def retry(self, job: Told | int) -> Told:
        return self.service.ask("POST", f"/v1/jobs/{_number(job)}/retry").json()  # type: ignore[no-any-return]

    def log(self, job: Told | int) -> Iterator[str]:
        """What the job has printed so far, in parts."""
        at = "0"
        while True:
            told = self.service.ask("GET", f"/v1/jobs/{_number(job)}/log", params={"start": at})
            if not told.text:
                return
            yield told.text
            at = told.headers["X-Next"]

    def result(self, job: Told | int) -> Told:
        """result.json of the answer; `WrongQuestion` says why there is none."""
        return self.service.ask("GET", f"/v1/jobs/{_number(job)}/result").json()  # type: ignore[no-any-return]

    def answer(self, job: Told | int, *, out: str | Path | None = None) -> Path:
        """Fetch the answer: its folder here, by default the settings' `runs`. `WrongQuestion` says why there is none yet."""
        number = _number(job)
        self.result(number)
        told = self.service.ask("GET", f"/v1/jobs/{number}/report", params={"form": "json"}).json()
        folder = Path(out) if out is not None else Path(compose.load_settings({}).runs) / told["run_id"]
        folder.mkdir(parents=True, exist_ok=True)
        for name in told["files"]:
            self.service.download(f"/v1/jobs/{number}/files/{name}", folder / Path(name).name)
        return folder


def _number(job: Told | int) -> int:
    return job if isinstance(job, int) else int(job["id"])


def _values(kinds: Sequence[Any], value: Any) -> bool:
    """Whether a value goes as it is, where the field takes plain values besides names."""
    return bool(kinds) and isinstance(value, list | tuple | Mapping)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WrongQuestion(
        f"A {type(value).__qualname__} cannot be sent to a service: give plain values, files, tables, or the name of a function "
        "that it has."
    )


def _targets(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [
            {"name": name, **one} if isinstance(one, Mapping) and "data" in one else {"name": name, "data": one}
            for name, one in value.items()
        ]
    return list(value)


def _error(told: httpx.Response, url: str) -> MillraceError:
    try:
        said = told.json()
        detail = str(said["detail"])
    except (ValueError, KeyError, TypeError):
        return ServiceAway(
            f"{url} answered {told.status_code} and is no service of millrace, or there is a proxy before it."
        )
    if told.status_code == 507:
        return DoesNotFit(detail, int(said.get("needs_bytes") or 0))
    if told.status_code >= 500:
        return ServiceAway(f"The service at {url} failed: {detail}")
    return WrongQuestion(detail)

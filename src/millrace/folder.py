"""What a run leaves in its folder: the ledger, result.json, tables, pictures, report.html. Written here, read again here.

Does not run anything; see `compose`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.errors import WrongQuestion
from millrace.run.ledger import History, replay

if TYPE_CHECKING:
    from millrace.diagnose.accounting import Accounting
    from millrace.diagnose.case import Finding
    from millrace.diagnose.page import Section

RESULT_SCHEMA = 1
PAGE = "report.html"
MOST_TOLD = 20
"""Values of a tuple that are told one by one."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run's time went, and what it left where."""

    run_id: str
    folder: Path
    plan: Mapping[str, Any]
    accounting: Accounting
    findings: tuple[Finding, ...] = ()
    home: Any = dataclasses.field(default=None, repr=False)

    def lines(self) -> list[str]:
        """Where the time went, and what costs most of it."""
        top = [f"{'gain':<12}{self.findings[0].line()}"] if self.findings else []
        return [*self.accounting.lines(), *top]

    def as_dict(self) -> dict[str, Any]:
        return {**self.accounting.as_dict(), "findings": [finding.as_dict() for finding in self.findings]}

    def __str__(self) -> str:
        return "\n".join(self.lines())


class Home:
    """A folder that goes when the last who holds it goes (a run's ledger, until nobody has its report any more)."""

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def fresh(folder: Path) -> Path:
    """The folder, empty of an earlier run's ledger: one ledger is one run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledger.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return folder


def history(folder: str | os.PathLike[str]) -> History:
    """The replayed ledger of a run's folder."""
    return replay(Path(folder) / "ledger.jsonl")


def report_of(folder: Path, home: Any = None) -> Report:
    """Account for the run whose ledger lies in `folder` (`home` keeps a temporary one alive)."""
    from millrace.diagnose.case import case_of
    from millrace.diagnose.findings import findings

    case = case_of(history(folder))
    return Report(case.history.header["run_id"], folder, case.plan, case.accounting, findings(case), home)


def save(answer: Any, folder: str | os.PathLike[str], page: bool = True) -> Path:
    """Write the answer: result.json, its tables as Parquet, its pictures, the ledger and one report.html.

    `page`: False leaves report.html to `page_of`, when somebody asks for it: it takes longer than a light job.
    """
    from millrace.diagnose.charts import save_chart

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report: Report = answer.report
    if report.folder != folder:
        shutil.copyfile(report.folder / "ledger.jsonl", folder / "ledger.jsonl")
        if (report.folder / "profile").is_dir():
            shutil.copytree(report.folder / "profile", folder / "profile", dirs_exist_ok=True)
    tables = answer.write_tables(folder)
    pictures = []
    for name, chart in answer.charts().items():
        pictures += save_chart(chart, folder / name)
        (folder / f"{name}.vl.json").write_text(json.dumps(chart, default=_plain))
    past = history(folder)
    said = {
        "schema": RESULT_SCHEMA,
        "analysis": past.header["analysis"],
        "run_id": report.run_id,
        "digest": answer.digest,
        "findings": answer.findings(),
        "answer": answer.as_dict(),
        "notes": list(answer.notes),
        "spec": past.header["spec"],
        "seed": past.header["seed"],
        "plan": {k: v for k, v in report.plan.items() if k != "record"},
        "versions": past.header["versions"],
        "report": report.as_dict(),
        "charts": list(answer.charts()),
        "tables": answer.page_tables() if hasattr(answer, "page_tables") else {},
        "files": sorted(p.name for p in [*tables, *pictures]),
    }
    text = json.dumps(said, indent=2, ensure_ascii=False, default=_plain)
    (folder / "result.json").write_text(text + "\n")
    if page:
        write_report(folder)
    return folder


def page_of(folder: Path) -> Path:
    """report.html of an answer's folder, written now where it was left out."""
    page = folder / PAGE
    return page if page.exists() else write_report(folder)


def write_report(folder: str | os.PathLike[str], page: str | os.PathLike[str] | None = None) -> Path:
    """(Re)write report.html (or `page`) from what lies in a run's folder: its result, its pictures' specs, its ledger."""
    from millrace.diagnose.page import write_report as write_page
    from millrace.settings import load

    folder = Path(folder)
    told = run_sections(folder)
    cache = load({}).cache.parent / "scripts"
    return write_page(page or folder / PAGE, told.title, [*result_sections(folder), *told.sections], cache)


@dataclass(frozen=True, slots=True)
class Told:
    """What a ledger says, as sections of a page."""

    run_id: str
    title: str
    sections: list[Section]


def result_sections(folder: Path) -> list[Section]:
    """What was found, with its pictures; nothing where there is no result."""
    from millrace.diagnose.page import Section

    if not (folder / "result.json").exists():
        return []
    result = json.loads((folder / "result.json").read_text())
    sections = [Section("What was found", text="\n".join(result["findings"] + result["notes"]))]
    for title, rows in result.get("tables", {}).items():
        sections.append(Section(title, table=rows))
    for name in result["charts"]:
        chart = json.loads((folder / f"{name}.vl.json").read_text())
        sections.append(Section(name.replace("_", " ").capitalize(), chart=chart))
    return sections


def run_sections(folder: Path) -> Told:
    """Where the core-seconds went, findings, timeline, and what was sampled. `WrongQuestion` without a ledger."""
    from millrace.diagnose.report import run_sections as of_run
    from millrace.diagnose.stacks import profiles
    from millrace.diagnose.stacks import sections as of_stacks

    past = history(folder)
    run_id = past.header["run_id"]
    return Told(run_id, f"{past.header['analysis']}: {run_id}", [*of_run(past), *of_stacks(profiles(folder))])


def _plain(value: Any) -> Any:
    """NumPy scalars and paths in JSON."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise WrongQuestion(f"{type(value).__qualname__} has no place in result.json.")


def described(spec: Any) -> dict[str, Any]:
    """A spec as the ledger and result.json tell it: options by value, inputs by path or kind."""
    said = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, tuple) and len(value) <= MOST_TOLD and all(map(_is_simple, value)):
            said[name] = ", ".join(map(str, value))
        else:
            said[name] = value if _is_simple(value) else str(value) if isinstance(value, os.PathLike) else _kind(value)
    return said


def _is_simple(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    size = f" {'x'.join(map(str, shape))}" if isinstance(shape, tuple) else ""
    return f"{type(value).__module__}.{type(value).__qualname__}{size}"

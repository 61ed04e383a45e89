"""`millrace report`: where the core-seconds of a run went, two runs side by side, or the timing lines of worker logs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.carry import shown
from millrace.cli.console import columns, say, say_json
from millrace.cli.options import QUESTION, Argument, Option, Sectioned, json_option
from millrace.cli.places import folder_of, past_of
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from collections.abc import Iterable

HELP = """Where the core-seconds of RUN went, and what would save some; its report.html is written again.

RUN is a run's folder, its id or a part of the id that no other has (see `millrace runs`), or `last`. With OTHER, both
runs are compared per core-second. With --logs, timing lines of worker logs are read instead of a run:
`kubectl logs -l app=worker --prefix --timestamps | millrace report --logs -`."""


def command(name: str) -> click.Command:
    params = [
        Argument(["run"], "RUN", "folder, id, part of an id, or last", required=False),
        Argument(["other"], "OTHER", "another run, to compare with the first", required=False),
        Option(["--logs"], metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True), section=QUESTION,
               help="read SIM_TIMING and AGG_TIMING lines from FILE, - for stdin"),
        Option(["--anyway"], is_flag=True, section=QUESTION, help="compare runs whose items are not the same thing, too"),
        Option(["--html"], metavar="FILE", type=click.Path(dir_okay=False), section=QUESTION,
               help="where the page goes (not given: report.html in the run's folder)"),
        json_option(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=report, help=HELP)


def report(**given: Any) -> int:
    if given["logs"] and given["run"]:
        raise WrongQuestion("Give a run or --logs, not both: timing lines are a report of their own.")
    if given["logs"]:
        return of_logs(given)
    if not given["run"]:
        raise WrongQuestion("Which run? Give its folder, its id or `last`, or timing lines with --logs FILE.")
    return of_two(given) if given["other"] else of_run(given)


def of_run(given: dict[str, Any]) -> int:
    from millrace.diagnose.stacks import lines, profiles
    from millrace.folder import report_of, write_report
    from millrace.settings import load

    folder = folder_of(given["run"], load().runs)
    told = report_of(folder)
    page = write_report(folder, given["html"])
    if given["json"]:
        say_json(told.as_dict())
        return 0
    click.echo(f"Run {told.run_id}")
    past = past_of(folder)
    if past is not None and past.state != "done":
        click.echo(f"Ended as {past.state}{f': {past.error}' if past.error else ''}")
    say(told.accounting.lines())
    say_findings(told.findings)
    for line in lines(profiles(folder)):
        click.echo(f"Within {line}")
    for note in told.accounting.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Written: {shown(page.absolute())}")
    return 0


def say_findings(found: Iterable[Any]) -> None:
    """One paragraph a finding, the largest gain first."""
    for finding in found:
        click.echo(f"- {finding.line()}")


def of_two(given: dict[str, Any]) -> int:
    """Both runs per core-second; refused when their items are not the same thing."""
    from millrace.diagnose.case import case_of
    from millrace.diagnose.compare import comparison
    from millrace.folder import history
    from millrace.settings import load

    place = load().runs
    cases = [case_of(history(folder_of(given[name], place))) for name in ("run", "other")]
    told = comparison(cases[0], cases[1])
    if told.unlike and not given["anyway"]:
        raise WrongQuestion(
            f"These runs do not compare: {' '.join(told.unlike)} An item of one is not an item of the other, so figures per "
            "item say nothing. --anyway compares them all the same."
        )
    if given["json"]:
        say_json(told.as_dict())
        return 0
    say(columns([("", "A", "B", "B to A"), *told.rows], right=(1, 2, 3)))
    for sentence in (*told.unlike, *told.unfair):
        click.echo(f"Not the same: {sentence}")
    if told.ratio is not None:
        fair = "" if not told.unfair and not told.unlike else ", with what is not the same above in it"
        click.echo(f"B computed {told.ratio:.2f} times as many items per core-second as A{fair}.")
    return 0


def of_logs(given: dict[str, Any]) -> int:
    """Timing lines as a report; what they cannot tell is marked so."""
    from millrace.diagnose.case import case_of
    from millrace.diagnose.findings import findings
    from millrace.diagnose.logs import history, joined, read

    source = given["logs"]
    with opened(source) as lines:
        log = read(lines)
    case = case_of(history(log, Path(source)))
    told = findings(case)
    page = _log_page(given["html"], case, log) if given["html"] else None
    if given["json"]:
        say_json({**case.accounting.as_dict(), "joined": dict(joined(log)), "findings": [f.as_dict() for f in told]})
        return 0
    say([f"{what:<12}{text}" for what, text in joined(log)])
    say(case.accounting.lines())
    click.echo(f"{'unknown':<12}{'; '.join(_unknown(case))}")
    say_findings(told)
    for note in case.accounting.notes:
        click.echo(f"Note: {note}")
    if page is not None:
        click.echo(f"Written: {shown(page.absolute())}")
    return 0


def _unknown(case: Any) -> list[str]:
    from millrace.diagnose.accounting import PARTS

    return [PARTS[part] for part in case.accounting.unknown]


def _log_page(html: str, case: Any, log: Any) -> Path:
    from millrace.diagnose.logs import joined
    from millrace.diagnose.page import Section, write_report
    from millrace.diagnose.report import case_sections
    from millrace.settings import load

    lines = "\n".join(f"{what.capitalize()}: {text}." for what, text in joined(log))
    sections = [Section("What the lines say", lines), *case_sections(case)]
    return write_report(html, f"timing lines of {case.history.path.name}", sections, load().cache.parent / "scripts")


@contextmanager
def opened(source: str) -> Iterator[Iterable[str]]:
    """The lines of a file or of stdin; bytes that are no text are kept as marks."""
    if source == "-":
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        yield sys.stdin
        return
    try:
        file = open(source, encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
    except OSError as e:
        raise WrongQuestion(f"{source} cannot be read: {e.strerror}. Give a file of log lines, or - for stdin.") from e
    with file:
        yield file

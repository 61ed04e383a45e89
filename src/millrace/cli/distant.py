"""`millrace --url URL ...`: the commands that a service elsewhere carries out, with the options that they have here.

An analysis is submitted, waited for and fetched; its digest is that of a run here. Ctrl-C cancels the job that is waited for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from millrace.analyses import catalogue
from millrace.cli.analyse import analyses, asked, question_options
from millrace.cli.console import columns, say, say_json
from millrace.cli.options import DURATION, MACHINE, QUESTION, Argument, Option, Sectioned, json_option
from millrace.cli.table import Entry, Table
from millrace.run.units import format_bytes, format_duration, parse_duration

if TYPE_CHECKING:
    from millrace.connecting import Service, Told

HERE = __name__
ABOUT = ("queue", "priority", "seed", "label", "key")


def commands() -> tuple[Entry, ...]:
    """The table of `millrace --url URL`."""
    planned = [entry for entry in catalogue.ENTRIES if entry.plan]
    return (
        *analyses(planned, f"{HERE}:analysis"),
        Entry("run", "a function of the service's, one call an item", f"{HERE}:function"),
        Entry("plan", "what a question will take there", f"{HERE}:plan"),
        Entry("submit", "a question as a job there", f"{HERE}:submit"),
        Entry("register", "send a model or data under a name of yours", f"{HERE}:register"),
        Entry("jobs", "your jobs there", f"{HERE}:jobs"),
        Entry("job", "one job", f"{HERE}:job"),
        Entry("logs", "what a job printed", f"{HERE}:logs"),
        Entry("cancel", "cancel a job", f"{HERE}:cancel"),
        Entry("retry", "queue a failed or cancelled job once more", f"{HERE}:retry"),
        Entry("result", "what a job found; fetches its answer", f"{HERE}:result"),
    )


def service() -> Service:
    """The service of the command line's --url."""
    from millrace.connecting import connect

    return connect(click.get_current_context().find_root().params["url"])


# -- questions -----------------------------------------------------------------------------------------------------
def analysis(name: str) -> click.Command:
    entry = catalogue.find(name)

    def ask(**given: Any) -> int:
        return _carry(name, asked(entry, given), given)

    said = f"{entry.about[0].upper()}{entry.about[1:]}; as a job of the service, waited for and fetched."
    return Sectioned(entry.path[-1], params=[*_question(name), *_about(), *_waiting()], callback=ask, help=said)


def function(name: str) -> click.Command:
    def ask(**given: Any) -> int:
        return _carry("run", _of_function(given), given)

    said = "A function of the service's, called once for each item of a file; waited for and fetched."
    return Sectioned(name, params=[*_run_options(), *_about(), *_waiting()], callback=ask, help=said)


def submit(name: str) -> click.Command:
    return _each(name, f"{HERE}:submit_one", "A question as a job of the service.")


def submit_one(name: str) -> click.Command:
    def ask(**given: Any) -> int:
        question = _of_function(given) if name == "run" else asked(catalogue.find(name), given)
        with service() as far:
            made = far.submit.submit(name, {**question, **_said(given)})
        if given["json"]:
            say_json(made)
        else:
            click.echo(f"Job {made['id']} is {made['state']}: queue {made['queue']}, tier {made['tier']}.")
        return 0

    word = name if name == "run" else catalogue.find(name).path[-1]
    return Sectioned(
        word, params=[*_question(name), *_about(), json_option()], callback=ask, help="As a job of the service."
    )


def plan(name: str) -> click.Command:
    return _each(name, f"{HERE}:plan_one", "What a question will take there, without running it.")


def plan_one(name: str) -> click.Command:
    def ask(**given: Any) -> int:
        question = _of_function(given) if name == "run" else asked(catalogue.find(name), given)
        with service() as far:
            told = far.plan(name, **question)
        if given["json"]:
            say_json(told)
            return 0
        click.echo(f"It would go to the queue {told['queue']} of the tier {told['tier']}: {told['why']}.")
        head = ("tier", "fits", "time", "core-seconds", "memory", "money")
        say(columns([head, *(_tier_row(one) for one in told["tiers"])], right=(2, 3, 4, 5)))
        return 0

    word = name if name == "run" else catalogue.find(name).path[-1]
    return Sectioned(word, params=[*_question(name), json_option()], callback=ask, help="What it will take there.")


def register(name: str) -> click.Command:
    def send(**given: Any) -> int:
        with service() as far:
            far.send(given["kind"], given["name"], given["file"])
        click.echo(f"{given['name']} is now the {given['kind']} {given['file']} there, for you.")
        return 0

    params: list[click.Parameter] = [
        Argument(["kind"], "model|data", "what is sent", type=click.Choice(["model", "data"])),
        Argument(["name"], "NAME", "what your questions call it"),
        Argument(["file"], "FILE", "a file of a form that cannot execute", type=click.Path()),
    ]
    return Sectioned(name, params=params, callback=send, help="Send a model or data under a name of yours.")


# -- jobs ----------------------------------------------------------------------------------------------------------
def jobs(name: str) -> click.Command:
    def told(**given: Any) -> int:
        which = {key: given[key] for key in ("state", "tier", "limit") if given[key]}
        with service() as far:
            found = far.submit.jobs(**which)
        if given["json"]:
            say_json(found)
        elif not found:
            click.echo("There are no jobs of yours yet.")
        else:
            say(columns([("job", "what", "state", "tier", "queue", "done", "why"), *map(_row, found)], right=(0,)))
        return 0

    params: list[click.Parameter] = [
        Option(["--state"], metavar="STATE", section=QUESTION, help="of this state only"),
        Option(["--tier"], metavar="TIER", section=QUESTION, help="of this tier only"),
        Option(["--limit"], type=click.IntRange(1, 200), default=30, show_default=True, metavar="N", section=QUESTION,
               help="the newest N"),
        json_option(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=told, help="Your jobs there, the newest first.")


def job(name: str) -> click.Command:
    def told(far: Service, number: int, given: Mapping[str, Any]) -> None:
        found = far.submit.look(number)
        if given["json"]:
            say_json(found)
        else:
            say(columns(_facts(found)))

    return _of_job(name, told, "One job: state, progress, what it was predicted to take and took.", [json_option()])


def logs(name: str) -> click.Command:
    def told(far: Service, number: int, given: Mapping[str, Any]) -> None:
        for part in far.submit.log(number):
            click.echo(part, nl=False)

    return _of_job(name, told, "What a job has printed so far.", [])


def cancel(name: str) -> click.Command:
    def told(far: Service, number: int, given: Mapping[str, Any]) -> None:
        now = far.submit.cancel(number)
        asked_to = now["state"] == "running"
        click.echo(f"Job {number} is {'asked to stop between two tasks' if asked_to else now['state']}.")

    return _of_job(name, told, "Cancel a job; what it has finished is kept in the store.", [])


def retry(name: str) -> click.Command:
    def told(far: Service, number: int, given: Mapping[str, Any]) -> None:
        click.echo(f"Job {number} is {far.submit.retry(number)['state']}.")

    return _of_job(name, told, "Queue a failed or cancelled job once more; it goes on from what it finished.", [])


def result(name: str) -> click.Command:
    def told(far: Service, number: int, given: Mapping[str, Any]) -> None:
        if given["wait"]:
            far.submit.wait(number)
        _fetched(far, number, given)

    wait = Option(["--wait"], is_flag=True, section=QUESTION, help="until the job has ended")
    return _of_job(name, told, "What a job found; its files are fetched.", [wait, _out(), json_option()])


# -- within --------------------------------------------------------------------------------------------------------
def _each(name: str, maker: str, about: str) -> click.Command:
    entries = analyses((entry for entry in catalogue.ENTRIES if entry.plan), maker)
    return Table(name, [*entries, Entry("run", "a function, one call an item", maker)], about)


def _question(name: str) -> list[click.Parameter]:
    own = {*ABOUT, "max_total"}
    options = _run_options() if name == "run" else question_options(catalogue.find(name))
    return [option for option in options if option.name not in own]


def _run_options() -> list[click.Parameter]:
    from millrace.cli.run import asked as of_function

    return of_function()


def _of_function(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in ("function", "items", "limit") if given[key] is not None}


def _about() -> list[click.Parameter]:
    from millrace.cli.submit import job_options

    return [option for option in job_options() if option.name in {*ABOUT, "max_total"}]


def _waiting() -> list[click.Parameter]:
    quiet = Option(["--quiet"], is_flag=True, section=MACHINE, help="say nothing but errors")
    deadline = Option(["--deadline"], type=DURATION, metavar="DURATION", section=MACHINE,
                      help="cancel the job when it has not ended after so long")  # fmt: skip
    return [_out(), deadline, quiet, json_option()]


def _out() -> Option:
    return Option(["--out"], type=click.Path(file_okay=False), metavar="DIR", section=MACHINE,
                  help="where the answer goes (not given: millrace-runs/RUN)")  # fmt: skip


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is about the job."""
    said = {name: given[name] for name in ABOUT if given[name] not in (None, "")}
    return {**said, "max_total_s": parse_duration(given["max_total"])} if given["max_total"] else said


def _carry(name: str, question: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    from millrace.run.errors import AnalysisFailed, Interrupted

    with service() as far:
        made = far.submit.submit(name, {**question, **_said(given)})
        watch = _Watch(given["quiet"] or given["json"], parse_duration(given["deadline"]) if given["deadline"] else 0.0)
        try:
            ended = far.submit.wait(made, watch)
        except (KeyboardInterrupt, TimeoutError) as e:
            far.submit.cancel(made)
            raise Interrupted(
                f"Job {made['id']} there is cancelled; what it finished is kept, the same command goes on."
            ) from e
        if ended["state"] != "succeeded":
            raise AnalysisFailed(
                f"Job {made['id']} is {ended['state']}: {ended['why']}. `millrace --url ... logs {made['id']}`"
            )
        _fetched(far, made["id"], given)
    return 0


class _Watch:
    """A line each time that the job has changed."""

    def __init__(self, quiet: bool, deadline_s: float) -> None:
        self.quiet, self.last = quiet, ""
        self.until = time.monotonic() + deadline_s if deadline_s else None

    def __call__(self, now: Told) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise TimeoutError
        said = f"job {now['id']}: {_state(now)}"
        if not self.quiet and said != self.last:
            self.last = said
            click.echo(said, err=True)


def _fetched(far: Service, number: int, given: Mapping[str, Any]) -> None:
    folder = far.submit.answer(number, out=given["out"])
    if given["json"]:
        sys.stdout.write((folder / "result.json").read_text())
    elif not given.get("quiet"):
        say(far.submit.result(number)["findings"])
        click.echo(f"Written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


def _of_job(name: str, told: Any, about: str, more: list[click.Parameter]) -> click.Command:
    def call(**given: Any) -> int:
        with service() as far:
            told(far, given["number"], given)
        return 0

    number = Argument(["number"], "ID", "the job's number, as `millrace --url URL jobs` shows it", type=int)
    return Sectioned(name, params=[number, *more], callback=call, help=about)


def _state(now: Told) -> str:
    done = now["progress"]
    at = (
        f", {done['stage']} {done['finished']:,}" + (f" of {done['total']:,}" if done["total"] else "")
        if done["finished"]
        else ""
    )
    why = now["waits"] or (now["why"] if now["state"] != "succeeded" else "")
    return f"{now['state']}{at if now['state'] == 'running' else ''}{f' ({why})' if why else ''}"


def _row(now: Told) -> tuple[str, ...]:
    done = now["progress"]["finished"] if now["state"] == "running" else ""
    why = now["waits"] or now["why"]
    return (str(now["id"]), now["label"], now["state"], now["tier"], now["queue"], str(done), why[:60])


def _facts(now: Told) -> list[tuple[str, str]]:
    def took(said: Mapping[str, Any]) -> str:
        memory = "unknown memory" if said["peak_bytes"] is None else format_bytes(said["peak_bytes"])
        core_s = "unknown" if said["core_s"] is None else f"{said['core_s']:,.3g}"
        return f"{core_s} core-seconds, {memory}"

    return [
        ("job", f"{now['id']}: {now['label']}"), ("state", _state(now)),
        ("where", f"queue {now['queue']}, tier {now['tier']}, priority {now['priority']}"),
        ("attempts", str(now["attempt"])), ("predicted", took(now["predicted"])), ("measured", took(now["measured"])),
        *([("digest", now["digest"])] if now["digest"] else []),
    ]  # fmt: skip


def _tier_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    if not one["fits"]:
        return (one["tier"], f"no: needs {format_bytes(one['needs_bytes'])}", "", "", "", "")
    if one["core_s"] is None:
        return (one["tier"], "nobody knows", "", "", "", "")
    return (
        one["tier"], "yes", format_duration(one["seconds"]), f"{one['core_s']:,.3g}", format_bytes(one["peak_bytes"]),
        f"{one['money']:.2g}",
    )  # fmt: skip

"""`millrace jobs`, `job ID`, `cancel ID`, `retry ID`, `result ID`: what there is, and what became of it."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.console import columns, say, say_json
from millrace.cli.desks import desk_of, place_options, settings_of
from millrace.cli.options import DURATION, QUESTION, Argument, Option, Sectioned, json_option
from millrace.cli.table import Entry, Table
from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes, format_duration
from millrace.run.urls import spoken

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.jobs.states import Job

SHOWN = 30


def command(name: str) -> click.Command:
    """`millrace jobs [list|prune]`; without a word it lists."""
    entries = (
        Entry("list", "the jobs, the newest first", f"{__name__}:listed"),
        Entry("prune", "forget jobs that have ended, with their results", f"{__name__}:prune"),
    )

    class Jobs(Table):
        def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
            return super().resolve_command(ctx, args)

        def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
            if not args or (args[0] not in self.entries and args[0] != "--help"):
                args = ["list", *args]
            return super().parse_args(ctx, args)

    return Jobs(name, entries, "The durable jobs: what there is, in which state, and why it waits.")


def listed(name: str) -> click.Command:
    def told(**given: Any) -> int:
        if given["tasks"]:
            return _tasks(given)
        with desk_of(given) as desk:
            found = desk.table.jobs(given["state"] or "", given["tier"] or "", given["limit"])
            if given["json"]:
                say_json([_as_json(desk, job) for job in found])
            elif not found:
                click.echo(f"There are no jobs in {desk.home} yet.")
            else:
                head = ("job", "what", "state", "tier", "queue", "submitted", "done", "took", "why")
                say(columns([head, *(_row(desk, job) for job in found)], right=(0, 7)))
        return 0

    from millrace.jobs.states import STATES

    params: list[click.Parameter] = [
        Option(["--state"], type=click.Choice(STATES), section=QUESTION, help="of this state only"),
        Option(["--tier"], metavar="TIER", section=QUESTION, help="of this tier only"),
        Option(["--limit"], type=click.IntRange(min=1), default=SHOWN, show_default=True, metavar="N", section=QUESTION,
               help="the newest N"),
        Option(["--tasks"], is_flag=True, section=QUESTION,
               help="instead: tasks of an application on the broker that are no jobs, running and waiting"),
        *place_options(),
        json_option(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=told, help="The jobs, the newest first.")


def _tasks(given: dict[str, Any]) -> int:
    """What a team's application has on the broker: each task that runs, and how many wait in each queue."""
    settings = settings_of(given)
    if settings.broker is None:
        raise WrongQuestion("Tasks are on a broker: give --broker its URL. Without one there are jobs only.")
    from millrace.jobs.celery.broker import check_broker
    from millrace.jobs.celery.signals import running_now, waiting
    from millrace.jobs.celery.wiring import own_app

    check_broker(settings.broker)
    app = own_app(settings.broker)
    with desk_of(given) as desk:
        depths = waiting(app, desk.tiers)
    running = running_now(app)
    app.close()
    if given["json"]:
        say_json({"running": [dataclasses.asdict(task) for task in running], "waiting": depths})
        return 0
    rows = [(task.name, "running", task.tier or "", "", task.worker, _when(task.since or 0.0)) for task in running]
    rows += [
        (f"{count} tasks", "waiting", tier, queue, "", "")
        for tier, of in depths.items()
        for queue, count in of.items()
        if count
    ]
    if rows:
        say(columns([("what", "state", "tier", "queue", "worker", "since"), *rows]))
    else:
        click.echo(f"No task runs or waits on {spoken(settings.broker)} but jobs; `millrace jobs` lists those.")
    return 0


def prune(name: str) -> click.Command:
    def done(**given: Any) -> int:
        from millrace.run.units import parse_duration

        with desk_of(given) as desk:
            numbers = desk.prune(parse_duration(given["older"]))
            click.echo(f"{len(numbers)} jobs are forgotten, with their results and ledgers.")
        return 0

    older = Option(["--older"], type=DURATION, default="30d", show_default=True, metavar="DURATION", section=QUESTION,
                   help="that ended longer ago than this")  # fmt: skip
    return Sectioned(name, params=[older, *place_options()], callback=done, help="Forget jobs that have ended.")


def job(name: str) -> click.Command:
    def told(desk: Desk, found: Job, given: dict[str, Any]) -> int:
        if given["json"]:
            say_json(_as_json(desk, found))
            return 0
        rows = [
            ("job", f"{found.id}: {found.label}"),
            ("state", _state(desk, found)),
            ("where", f"queue {found.queue}, tier {found.tier}, priority {found.priority}"),
            ("submitted", _when(found.created_at) + (f" by {found.owner}" if found.owner else "")),
            ("attempts", f"{found.attempt}: {found.own_ends} ended by itself, {found.losses} lost in a row"),
            ("progress", _progress(found)),
            ("predicted", f"{_seconds(found.predicted_core_s)} core-seconds, {_size(found.predicted_bytes)}"),
            (
                "measured",
                f"{_seconds(found.core_s)} core-seconds, {_size(found.peak_bytes)}, {found.attained_s:.1f} s in slots",
            ),
            ("log", str(desk.folder(found.id) / "log.txt")),
        ]
        if found.state == "succeeded":
            rows.append(("result", f"{desk.home / (found.result or '')}, digest {found.digest}"))
        say(columns(rows))
        return 0

    return _of_job(name, told, "One job: state, progress, what it was predicted to take and took.", [json_option()])


def cancel(name: str) -> click.Command:
    def told(desk: Desk, found: Job, given: dict[str, Any]) -> int:
        now = desk.publish(desk.table.cancel(found.id))
        asked = now.state == "running"
        click.echo(f"Job {now.id} is {'asked to stop between two tasks' if asked else now.state}.")
        return 0

    return _of_job(name, told, "Cancel a job; what it has finished is kept in the store.", [])


def retry(name: str) -> click.Command:
    def told(desk: Desk, found: Job, given: dict[str, Any]) -> int:
        now = desk.publish(desk.table.again(found.id))
        click.echo(f"Job {now.id} is {now.state}.")
        return 0

    return _of_job(name, told, "Queue a failed or cancelled job once more; it goes on from what it finished.", [])


def result(name: str) -> click.Command:
    def told(desk: Desk, found: Job, given: dict[str, Any]) -> int:
        while given["wait"] and desk.table.get(found.id).ended_at is None:
            time.sleep(0.2)
        folder = desk.answer(desk.table.get(found.id))
        if given["json"]:
            click.echo((folder / "result.json").read_text(), nl=False)
            return 0
        import json

        from millrace.folder import page_of

        page_of(folder)
        said = json.loads((folder / "result.json").read_text())
        say([*said["findings"], f"Written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}"])
        return 0

    wait = Option(["--wait"], is_flag=True, section=QUESTION, help="until the job has ended")
    return _of_job(name, told, "What a job found, and where its answer lies.", [wait, json_option()])


def _of_job(
    name: str, told: Callable[[Desk, Job, dict[str, Any]], int], about: str, more: list[click.Parameter]
) -> click.Command:
    def call(**given: Any) -> int:
        with desk_of(given) as desk:
            return told(desk, desk.table.get(given["number"]), given)

    number = Argument(["number"], "ID", "the job's number, as `millrace jobs` shows it", type=int)
    return Sectioned(name, params=[number, *more, *place_options()], callback=call, help=about)


def _as_json(desk: Desk, found: Job) -> dict[str, Any]:
    from millrace.jobs.table import plain

    return {**plain(found), "waits": _waits(desk, found)}


def _waits(desk: Desk, found: Job) -> str:
    from millrace.jobs.table import waiting

    if found.state != "queued":
        return ""
    ahead = sum(
        other.service_key < found.service_key for other in desk.table.jobs("queued", found.tier) if other.id != found.id
    )
    return waiting(found, desk.table.workers(), desk.table.clock(), ahead)


def _state(desk: Desk, found: Job) -> str:
    why = _waits(desk, found) or found.why
    return f"{found.state}{f': {why}' if why else ''}"


def _row(desk: Desk, found: Job) -> tuple[str, ...]:
    took = format_duration(found.attained_s) if found.attained_s else ""
    why = _waits(desk, found) or found.why
    return (
        str(found.id), found.label, found.state, found.tier, found.queue, _when(found.created_at), _progress(found), took,
        why if len(why) <= 60 else f"{why[:57]}...",
    )  # fmt: skip


def _progress(found: Job) -> str:
    if not found.finished_tasks or found.state == "succeeded":  # the last heartbeat is not the end
        return ""
    return f"{found.stage} {found.finished_tasks:,}" + (f" of {found.total_tasks:,}" if found.total_tasks else "")


def _when(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.3g}"


def _size(value: int | None) -> str:
    return "unknown memory" if value is None else format_bytes(value)

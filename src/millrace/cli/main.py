"""The command `millrace`: the table of its commands, and the one place where an end becomes an exit code.

    0 done    1 the analysis says no (only with --fail-on-no)    2 wrong question    3 does not fit    4 failed
    130 interrupted

Does not know what a command does; see the file that its entry names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from millrace.analyses import catalogue
from millrace.cli.analyse import analyses
from millrace.cli.table import Entry, Table

ABOUT = """Heavy Python analyses at full flow: the same answer on every engine, inside the memory it was given.

What was computed is kept: a run that was interrupted goes on where it stopped when the same command is given again.
`millrace COMMAND --help` tells the options of a command."""

COMMANDS = (
    *analyses(catalogue.ENTRIES),
    Entry("run", "your own function, one call an item, on every core", "millrace.cli.run:command"),
    Entry("plan", "what a question will take, without running it", "millrace.cli.plan:command"),
    Entry("submit", "a question as a durable job", "millrace.cli.submit:command"),
    Entry("register", "keep a model or data under a name that jobs may use", "millrace.cli.submit:register"),
    Entry("up", "serve jobs: the table, workers of every tier, the HTTP service", "millrace.cli.up:up"),
    Entry("worker", "one worker of a tier", "millrace.cli.up:worker"),
    Entry("serve", "the HTTP service of the jobs, and its page", "millrace.cli.serve:command"),
    Entry("token", "a token for the HTTP service", "millrace.cli.serve:token"),
    Entry("jobs", "the jobs there are: state, tier, progress, why they wait", "millrace.cli.jobs:command"),
    Entry("job", "one job", "millrace.cli.jobs:job"),
    Entry("logs", "what a job, or the simulations of a run, printed", "millrace.cli.logs:command"),
    Entry("cancel", "cancel a job", "millrace.cli.jobs:cancel"),
    Entry("retry", "queue a failed or cancelled job once more", "millrace.cli.jobs:retry"),
    Entry("result", "what a job found, and where its answer lies", "millrace.cli.jobs:result"),
    Entry("report", "where the time of a run went; writes its report.html again", "millrace.cli.report:command"),
    Entry("runs", "the runs there are: when, what, state, time, digest", "millrace.cli.runs:command"),
    Entry("scale", "how many workers the tiers have: replays of arrivals, costs", "millrace.cli.scale:command"),
    Entry("doctor", "what machine this really is, and the settings that suit it", "millrace.cli.doctor:command"),
    Entry("cache", "the store of finished work: its size, evict, export, import", "millrace.cli.cache:command"),
    Entry("config", "the machine's settings, and where each came from", "millrace.cli.config:command"),
    Entry(
        "demo",
        "explains a model of real data, refutes an effect in it, shows what comes out",
        "millrace.cli.demo:command",
    ),
)


class Faults:
    """Whether the user wants the traceback of an error; set while the command line is read."""

    traceback = False


def root(faults: Faults) -> Table:
    """The whole command line."""

    def version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            from millrace import __version__

            click.echo(f"millrace {__version__}")
            ctx.exit()

    def completion(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
        if shell and not ctx.resilient_parsing:
            from click.shell_completion import get_completion_class

            kind = get_completion_class(shell)
            assert kind is not None  # one of the choices
            click.echo(kind(ctx.command, {}, "millrace", "_MILLRACE_COMPLETE").source())
            ctx.exit()

    def traceback(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        faults.traceback = wanted

    eager = {"is_eager": True, "expose_value": False}
    params = [
        click.Option(["--version"], is_flag=True, callback=version, help="Print the version and stop.", **eager),
        click.Option(
            ["--show-completion"],
            type=click.Choice(["bash", "zsh", "fish"]),
            callback=completion,
            help='Print what the shell reads for completion: eval "$(millrace --show-completion bash)".',
            **eager,
        ),
        click.Option(
            ["--traceback"],
            is_flag=True,
            envvar="MILLRACE_TRACEBACK",
            show_envvar=True,
            callback=traceback,
            help="Show the traceback of an error, too.",
            **eager,
        ),
        click.Option(
            ["--url"], metavar="URL", help="Let a service carry the command out, such as http://127.0.0.1:8373."
        ),
    ]
    return Root("millrace", COMMANDS, ABOUT, params)


class Root(Table):
    """The whole command line; with --url, the commands that a service elsewhere carries out."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.params.get("url"):
            from millrace.cli.distant import commands

            self.entries = {entry.name: entry for entry in commands()}
        return super().resolve_command(ctx, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    faults = Faults()
    try:
        code = root(faults).main(arguments, prog_name="millrace", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the edge of the process: all becomes words and an exit code
        from millrace.cli.faults import told

        return told(error, faults.traceback)
    return code if isinstance(code, int) else 0

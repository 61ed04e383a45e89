"""An exception as one paragraph on stderr and an exit code.

What millrace raises on purpose has its own words; pydantic's and click's complaints name the option. Anything else is
a bug, is said to be one, and comes with its traceback.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.options import flag
from millrace.run.errors import Interrupted, MillraceError, TaskFailed

if TYPE_CHECKING:
    from pydantic import ValidationError

PIPE_CLOSED = 141
"""What a shell reports of a program that was ended by SIGPIPE, as `head` does to those before it."""

_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>\S+)')


def told(error: BaseException, with_traceback: bool) -> int:
    """Say what happened; the exit code."""
    if isinstance(error, BrokenPipeError) and _reader_left():
        return PIPE_CLOSED
    if isinstance(error, SystemExit):
        if type(sys.stdout) is click.utils.PacifyFlushWrapper:  # how click marks that the reader left
            return PIPE_CLOSED
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    paragraph, code = explained(error)
    if paragraph is None:
        traceback.print_exception(error)
        paragraph, code = (
            f"This is a bug in millrace ({type(error).__name__}: {str(error) or 'without a message'}). "
            "Finished tasks are kept; please report it with the lines above.",
            MillraceError.exit_code,
        )
    elif with_traceback:
        traceback.print_exception(error)
        if isinstance(error, TaskFailed) and error.failure.traceback:
            click.echo(f"In the worker:\n{error.failure.traceback.rstrip()}", err=True)
    click.echo(f"millrace: {paragraph}", err=True)
    return code


def explained(error: BaseException) -> tuple[str | None, int]:
    """The paragraph and the exit code; None for a bug."""
    if isinstance(error, TaskFailed):
        return _of_task(error), error.exit_code
    if isinstance(error, Interrupted):
        return f"{_first_paragraph(error)} {resume_hint()}", error.exit_code
    if isinstance(error, MillraceError):
        return _first_paragraph(error), error.exit_code
    if isinstance(error, click.ClickException):
        return _of_click(error), 2
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        return f"Interrupted. What was finished is kept. {resume_hint()}", Interrupted.exit_code
    if _is_validation(error):
        return of_validation(error), 2  # type: ignore[arg-type]
    if isinstance(error, MemoryError):
        words = "There was not enough memory for the driver. Give --memory less, so that fewer tasks run at once."
        return f"{words} ({error})" if str(error) else words, 3
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return (
            f"{error.strerror}{place}. Look at the path, its rights and the free space.",
            MillraceError.exit_code,
        )
    return None, MillraceError.exit_code


def of_validation(error: ValidationError) -> str:
    """What pydantic found, each with its option; our own errors from validators in their own words."""
    said = []
    for one in error.errors():
        inner = one.get("ctx", {}).get("error")
        if isinstance(inner, MillraceError):
            said.append(_first_paragraph(inner))
            continue
        name = ".".join(map(str, one["loc"]))
        reason = str(inner) if inner is not None else one["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            said.append(f"There is no {name!r} in this question.")
        elif one["type"] == "missing":
            said.append(f"{flag(name)} is missing.")
        else:
            said.append(f"{flag(name)} cannot be {_short(one['input'])}: {reason}.")
    return " ".join(said)


def resume_hint() -> str:
    """The exact command that goes on."""
    import shlex

    program = os.path.basename(sys.argv[0])
    words = ["python", "-m", "millrace"] if program == "__main__.py" else [program]
    return f"Go on with: {shlex.join([*words, *sys.argv[1:]])}"


def _of_click(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        alike = [f"'{name}'" for name in error.possibilities or ()]
        hint = f"; is {' or '.join(alike)} meant?" if alike else "."
        text = f"There is no option {error.option_name!r}{hint}"
    else:
        text = error.format_message().strip()
    text = text if text.endswith((".", "?", "!")) else f"{text}."
    ctx = getattr(error, "ctx", None)
    return f"{text} `{ctx.command_path} --help` tells what there is." if ctx is not None else text


def _of_task(error: TaskFailed) -> str:
    """What the function said, and the line of it that did."""
    text = _first_paragraph(error)
    frames = list(_FRAME.finditer(error.failure.traceback))
    if frames:
        last = frames[-1]
        text = f"{text.rstrip('.')} ({last['file']}, line {last['line']}, in {last['function']})."
        text += " MILLRACE_TRACEBACK=1 shows the whole traceback."
    return text


def _first_paragraph(error: BaseException) -> str:
    text = str(error).split("\n\n", 1)[0]
    return " ".join(text.split())


def _is_validation(error: BaseException) -> bool:
    """Without importing pydantic, which a light command has not loaded."""
    loaded: Any = sys.modules.get("pydantic")
    return loaded is not None and isinstance(error, loaded.ValidationError)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _reader_left() -> bool:
    """Nobody reads stdout any more; point it elsewhere, else Python complains again at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False

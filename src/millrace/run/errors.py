"""Every error that millrace raises on purpose, as one tree; each has one exit code and one HTTP status.

    MillraceError
    ├── WrongQuestion        2   422   the spec, a name, a file or a column is not right
    │   ├── NotSupported     2   422   right question, but not one that millrace answers yet (said by name)
    │   ├── ModelTrouble     2   422   the model cannot be read, or does not behave as a function
    │   └── MissingExtra     2   422   a package is needed that is not installed (with its pip command)
    ├── DoesNotFit           3   507   the smallest budget that would do is larger than the one given
    ├── AnalysisFailed       4   500   the work itself failed
    │   ├── TaskFailed       4   500   a task failed (carries its `Failure`)
    │   ├── NotAdditive      4   500   values do not add up to the model's output
    │   ├── SourceStalled    4   500   the source waits, and nothing is in flight
    │   └── EngineLost       4   500   the engine itself died
    └── Interrupted        130   499   paused or cancelled; what was finished is kept
        ├── Paused         130   499
        └── Cancelled      130   499

Exit codes 0 (done) and 1 (the analysis says no) are not errors. A message is one paragraph: what, where, what to
do next.
"""

from __future__ import annotations

from typing import Any

from millrace.run.task import Failure


class MillraceError(Exception):
    """Something that millrace can say clearly. `exit_code` and `http_status` are of the class."""

    exit_code = 4
    http_status = 500


class WrongQuestion(MillraceError, ValueError):
    """The question is not one that can be asked: found before any work."""

    exit_code = 2
    http_status = 422


class NotSupported(WrongQuestion):
    """A right question that millrace does not answer; the message names what is not there."""


class ModelTrouble(WrongQuestion):
    """The model cannot be read, or is not the function that an explanation needs."""


class MissingExtra(WrongQuestion, ImportError):
    """A package is missing; the message holds the pip command."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(
            f"{why} needs the package {package!r}, which is not installed: pip install 'millrace[{extra}]'"
        )
        self.package, self.extra = package, extra


class DoesNotFit(MillraceError, MemoryError):
    """The budget is too small; `needs_bytes` is the smallest that would do."""

    exit_code = 3
    http_status = 507

    def __init__(self, message: str, needs_bytes: int) -> None:
        super().__init__(message)
        self.needs_bytes = needs_bytes


class AnalysisFailed(MillraceError, RuntimeError):
    """The work failed; nothing stands in for its result."""


class TaskFailed(AnalysisFailed):
    """A task failed; `failure` says how, with the remote traceback."""

    def __init__(self, message: str, failure: Failure, key: str = "") -> None:
        super().__init__(message)
        self.failure, self.key = failure, key

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it may cross process pools of other people's."""
        return type(self), (str(self), self.failure, self.key)


class NotAdditive(AnalysisFailed):
    """Base value and contributions do not add up to the model's output within the method's tolerance."""


class SourceStalled(AnalysisFailed):
    """The source said None while nothing was in flight: nobody can ever bring it an outcome."""


class EngineLost(AnalysisFailed):
    """The engine's own process died; finished work is in the store."""


class Interrupted(MillraceError):
    """The run was asked to stop; `finished` tasks are kept, the same call goes on from there."""

    exit_code = 130
    http_status = 499


class Paused(Interrupted):
    """SIGTERM, Ctrl-C or the end of a job's slice."""


class Cancelled(Interrupted):
    """Somebody does not want the answer any more."""


class NotStorable(TypeError):
    """A value that no store takes without pickle; it is kept for this run only."""

"""The process that jobs run in: `python -m millrace.jobs.worker.child FD PARENT [warm]`. One job, or many when it is kept warm.

It is the leader of a session of its own and dies with the warden that started it. SIGTERM pauses the run (its slice is
over), SIGUSR1 cancels it. One JSON line a message on the socket FD: a job comes in, progress and the end go out. Never
touches the job table: who may write there is the warden's business.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from millrace.compose import Surroundings
    from millrace.run.run import Progress, Run

_PR_SET_PDEATHSIG = 1
TELL_S = 0.5
_HEARD = (signal.SIGTERM, signal.SIGUSR1)


class Asked:
    """What the signals say, and the run that is to hear it."""

    run: Run | None = None
    ending = ""
    interrupt: Callable[[], None] | None = None
    """What a pause does to an errand, which is no run."""
    worn = False
    """Whether this process is to be replaced: what has broken a ceiling may be held on to."""
    around: Surroundings | None = None
    """This host, looked at once for all light jobs of this process."""

    def pause(self, number: int, frame: FrameType | None) -> None:
        self.ending = self.ending or "pause"
        if self.interrupt is not None:
            self.interrupt()
        self.pass_on()

    def cancel(self, number: int, frame: FrameType | None) -> None:
        self.ending = "cancel"
        self.pass_on()

    def pass_on(self) -> None:
        if self.run is not None and self.ending:
            (self.run.cancel if self.ending == "cancel" else self.run.pause)()


def main(descriptor: int, parent: int, warm: bool) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1  # it died before the line above
    asked = Asked()
    signal.signal(signal.SIGTERM, asked.pause)
    signal.signal(signal.SIGUSR1, asked.cancel)
    _forks_end_as_any_program()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the warden's
    link = socket.socket(fileno=descriptor)
    lines = link.makefile("rb")
    if warm:
        from millrace.warming import warmed_up

        asked.around = warmed_up()
    link.sendall(b'{"ready": true}\n')
    for line in lines:
        asked.run, asked.ending = None, ""
        ended = _one(json.loads(line), asked, link)
        link.sendall(json.dumps(ended).encode() + b"\n")
    return 0


def _forks_end_as_any_program() -> None:
    """What the work forks has inherited our handlers, and is to end by a signal: a pool of multiprocessing waits for ever
    otherwise. The signals wait while it forks: Python forgets those that come before a fork is whole."""
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD),
        after_in_child=_unheard,
    )


def _unheard() -> None:
    for number in _HEARD:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


def _one(given: dict[str, Any], asked: Asked, link: socket.socket) -> dict[str, Any]:
    """Carry one job out; how it ended, as `states.Told` without its seconds."""
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(
        folder.parent / given.get("log", "log.txt"), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    _first_line_of_memory(given["memory_bytes"])
    before, modules, path = time.process_time() + _of_children(), set(sys.modules), list(sys.path)
    told = [0.0]
    last: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        now = time.monotonic()
        last.update(
            stage=progress.stage,
            finished=progress.finished,
            total=progress.total,
            computed=progress.finished - progress.cached,
        )
        if now - told[0] >= TELL_S:
            told[0] = now
            link.sendall(json.dumps({"progress": last}).encode() + b"\n")

    def opened(run: Run) -> None:
        asked.run = run
        asked.pass_on()

    ended = _errand(given, asked) if "errand" in given else _ended(given, asked, show, opened)
    asked.run = None
    sys.stdout.flush()
    sys.stderr.flush()
    sys.path[:] = path
    for name in (
        set(sys.modules) - modules if "errand" not in given else ()
    ):  # a user's module may be another one for the next job
        file = getattr(sys.modules[name], "__file__", None) or ""
        if given["cwd"] and file.startswith(f"{given['cwd']}/"):
            del sys.modules[name]
    ended["core_s"] = time.process_time() + _of_children() - before
    ended["progressed"] = bool(last.get("computed"))
    ended["worn"] = asked.worn or ended["ending"] == "out of memory"
    return {"end": ended, "progress": last}


def _errand(given: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """Work of somebody else's: "module:function" is called with what was given."""
    from importlib import import_module

    os.chdir(given["cwd"])
    module, _, function = given["errand"].partition(":")
    try:
        reply = getattr(import_module(module), function)(given, asked)
    except MemoryError as e:  # beside the work itself, which says so in its reply: what was too much is still held
        return _out_of_memory(given, e)
    except Exception as e:  # noqa: BLE001 - recorded as the typed end of this errand, with its traceback in the log
        traceback.print_exc()
        return {"ending": "raised", "why": f"{type(e).__name__}: {_first(e)}"}
    finally:
        asked.interrupt = None
    return {"ending": "finished", "reply": reply}


def _ended(given: dict[str, Any], asked: Asked, show: Any, opened: Any) -> dict[str, Any]:
    from millrace import tracing
    from millrace.run.errors import Cancelled, DoesNotFit, EngineLost, MillraceError, Paused, TaskFailed, WrongQuestion

    try:
        with tracing.job(given.get("number", 0), given["analysis"], given.get("attempt", 0), given.get("trace", "")):
            return {"ending": "finished", "answer": [given["result"], _answer(given, asked, show, opened)]}
    except Paused as e:
        return {"ending": "paused", "why": _first(e)}
    except Cancelled:
        return {"ending": "cancelled", "why": "cancelled on request"}
    except (DoesNotFit, WrongQuestion) as e:
        return {"ending": "raised", "why": _first(e)}
    except TaskFailed as e:
        traceback.print_exc()
        print(e.failure.traceback, file=sys.stderr)
        kinds = {"memory": "out of memory", "lost": "crashed"}
        return {"ending": kinds.get(e.failure.kind, "raised"), "why": _first(e)}
    except MemoryError as e:
        return _out_of_memory(given, e)
    except (EngineLost, OSError) as e:  # the store or the disk: may pass
        traceback.print_exc()
        return {"ending": "passing", "why": f"{type(e).__name__}: {_first(e)}"}
    except MillraceError as e:
        traceback.print_exc()
        return {"ending": "passing" if _passes(e) else "raised", "why": _first(e)}
    except Exception as e:  # noqa: BLE001 - recorded as the typed end of this attempt, with its traceback in the log
        traceback.print_exc()
        return {"ending": "raised", "why": f"{type(e).__name__}: {_first(e)}"}


def _out_of_memory(given: dict[str, Any], error: MemoryError) -> dict[str, Any]:
    traceback.print_exc()
    return {"ending": "out of memory", "why": f"a MemoryError under {given['memory_bytes']:,} private bytes. {error}"}


def _passes(error: BaseException) -> bool:
    """Whether something out of reach is the cause: a store's server, a disk (redis-py's errors are no OSError)."""
    cause = error.__cause__
    return isinstance(cause, OSError) or type(cause).__name__ in ("ConnectionError", "TimeoutError")


def _answer(given: dict[str, Any], asked: Asked, show: Any, opened: Any) -> str:
    """Ask the question as any face does; the digest of the answer, which lies in the job's folder."""
    from millrace import compose
    from millrace.jobs.inputs import find

    os.chdir(given["cwd"] or given["home"])
    inputs = Path(given["inputs"])
    question = {
        name: find(inputs, value["input"]) if isinstance(value, dict) and set(value) == {"input"} else value
        for name, value in given["question"].items()
    }
    machine = compose.Machine(
        given["engine"], given["cores"], given["memory_bytes"], given["store"], given["seed"], given["folder"],
        show=show, opened=opened, closed=_no_first_line, nice=given["nice"],
        light=given["light"], around=asked.around,
    )  # fmt: skip
    if given["analysis"] == "run":
        from millrace.run.tables import read_items

        items = read_items(question["items"])[: question.get("limit")]
        return str(compose.map_function(question["function"], items, machine).digest)
    return str(compose.carry_out(given["analysis"], question, machine).digest)


def _first_line_of_memory(ceiling_bytes: int) -> None:
    """Before the guard kills: an allocation beyond the ceiling is a clean MemoryError. What is mapped and not touched
    counts here and not there, so what is mapped now and not touched is given on top."""
    from millrace.host import private_bytes

    status = Path("/proc/self/status").read_text() if sys.platform == "linux" else ""
    data = next((int(row.split()[1]) << 10 for row in status.splitlines() if row.startswith("VmData:")), None)
    if data is None:
        return
    most = max(data, ceiling_bytes + max(0, data - private_bytes()))
    with suppress(ValueError):  # the hard limit of this machine is lower already
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _no_first_line() -> None:
    """Pictures are drawn by a library with a virtual machine, which reserves far more than it touches and aborts when it
    may not. The guard's ceiling holds on."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.getrlimit(resource.RLIMIT_DATA)[1],) * 2)


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _first(error: BaseException) -> str:
    return " ".join(str(error).split("\n\n", 1)[0].split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), "warm" in sys.argv[3:]))

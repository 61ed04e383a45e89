"""Worker processes on this host: an own fork server, pipes, and one driver without threads.

`ProcessEngine` is what others use. The rooms within, from the driver to the worker: `engine` (one stream from beginning
to end), `flow` (the source's rules), `packing` (what goes into the next message), `sharing` (which worker gets it, and
what moves to an idle one), `results` (frames to outcomes), `accounts` (what slots did when they did no task), `pool`
(workers, their deaths and successors), `losses` (who is blamed for a death), `client` (the driver's end of server and
pipes), `frames` (what is on a pipe), `page` (the shared status page), `kernel` (system calls), `server` (forks, reaps,
holds ceilings), `worker` (runs tasks). Linux only.

What it does not do: ceilings do not count what a task's own child processes use (the peak that is told does); a consumer
that sleeps for long starves the workers, since only the driver gives them work. Results of short tasks that are followed by
a long one in the same message are sent while that runs, some 50 ms later, but only when it comes back to the interpreter:
one long call of C code keeps them, unless a worker that has nothing computes them once more.
"""

from __future__ import annotations

from millrace.engines.processes.engine import ProcessEngine

__all__ = ["ProcessEngine"]

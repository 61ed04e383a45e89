"""Worker processes on this host: an own fork server, pipes, and one driver without threads.

`ProcessEngine` is what others use. The rooms within: `engine` (one stream from beginning to end), `flow` (the source's
rules), `packing` (what goes into the next message), `pool` (workers, their deaths and successors), `losses` (who is
blamed for a death), `accounts` (what slots did when they did no task), `client` (the driver's end of server and pipes),
`frames` (what is on a pipe), `page` (the shared status page), `kernel` (system calls), `server` (forks, reaps, holds
ceilings), `worker` (runs tasks). Linux only.
"""

from __future__ import annotations

from millrace.engines.processes.engine import ProcessEngine

__all__ = ["ProcessEngine"]

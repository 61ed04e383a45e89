"""What machine is this, really: cores, memory, threads, scratch, speed, and advice.

Reads the kernel's own files and believes no library: those are wrong in nested control groups. Does not know runs,
engines or settings; imports nothing of millrace but `run`, and nothing heavy before a function is called.

    cgroups   which control groups bind this process, all ancestors included
    cores     how many cores it may use               memory    what there is, what is free, what a process holds
    strain    throttling, pressure, stolen time       ceilings  ulimits; what this platform does not have
    threads   one BLAS thread                         scratch   where large files may go
    speed     one core and one disk, measured         extras    what is installed and what is missing
    identity  a few lines for a ledger                doctor    all of it, with settings to paste

What every run needs is gathered here; `doctor`, `extras` and `speed` are imported from their files. Some functions
are named as their file is: here the name is the function.
"""

from millrace.host.ceilings import absences, ceilings
from millrace.host.cores import Cores, cores, slots
from millrace.host.identity import describe, processor
from millrace.host.memory import Memory, budget_bytes, default_budget_bytes, memory, private_bytes
from millrace.host.scratch import Filesystem, filesystem, scratch
from millrace.host.strain import Pressure, Throttling, pressure, stolen_share, throttling, waiting_since_now
from millrace.host.threads import Blas, blas, child_environment, one_thread, one_thread_environment

__all__ = [
    "Blas",
    "Cores",
    "Filesystem",
    "Memory",
    "Pressure",
    "Throttling",
    "absences",
    "blas",
    "budget_bytes",
    "ceilings",
    "child_environment",
    "cores",
    "default_budget_bytes",
    "describe",
    "filesystem",
    "memory",
    "one_thread",
    "one_thread_environment",
    "pressure",
    "private_bytes",
    "processor",
    "scratch",
    "slots",
    "stolen_share",
    "throttling",
    "waiting_since_now",
]

"""What a run looks up of its host: at its start; or once a process, where small runs follow each other in it.

Looking takes some milliseconds, as long as a small run does itself. Nothing here computes or decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millrace.run.ports import Meters


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`slots`: tasks of one thread that may run at once; `described`: of `host.describe`; `taught_in`: the folder of this
    host's lessons; `one_thread`: what holds BLAS to one; `metered`: whether a run looks at what quotas and neighbours take
    from it."""

    slots: int
    described: Mapping[str, Any]
    taught_in: Path
    one_thread: Callable[[], AbstractContextManager[Any]]
    metered: bool

    @property
    def meter(self) -> Meters | None:
        """What an engine asks for the time that quotas took."""
        from millrace.host.strain import quota_meter

        return quota_meter if self.metered else None

    def throttled_since_now(self) -> Callable[[], int | None]:
        """For how many ns quotas have held this group back since the call; None: the kernel does not tell, or nobody looks."""
        from millrace import host

        before = host.throttling() if self.metered else None

        def since() -> int | None:
            now = host.throttling() if before is not None else None
            return None if before is None or now is None else round((now.throttled_s - before.throttled_s) * 1e9)

        return since

    def waiting_since_now(self) -> Callable[[], float | None]:
        """What part of the time since the call something here waited for a processor."""
        from millrace import host

        return host.waiting_since_now() if self.metered else lambda: None


def look(cache: Path) -> Surroundings:
    """This host as it is now. `cache`: of the settings, lessons lie beside it."""
    from millrace import host, lessons

    described = host.describe()
    return Surroundings(described["slots"], described, lessons.place(cache, described), host.one_thread, metered=True)


def look_once(cache: Path) -> Surroundings:
    """This host, for many small runs of a process that was started with one thread (see `host.child_environment`)."""
    from dataclasses import replace

    from millrace.host.threads import one_thread_of_known

    return replace(look(cache), one_thread=one_thread_of_known(), metered=False)

"""How a run shares this host with others: which folder, how many tokens, how much memory, whose claims.

Settings and the host in, parts for `compose` out. See `host.tokens`, `host.roster`, `stores.claims`.
"""

from __future__ import annotations

import contextlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.run.errors import MillraceError
from millrace.run.sharing import Sharing

if TYPE_CHECKING:
    from millrace.host.tokens import CoreTokens
    from millrace.run.ports import Store
    from millrace.settings import Settings
    from millrace.surroundings import Surroundings

MEMORY_SHARE = 0.9
"""Of the host's limit; the rest is for other programs and the file cache."""
WITHOUT = {"MILLRACE_SHARING": "off"}
"""In the environment of workers: a run that a task opens computes on the token that its worker holds."""


@dataclass(frozen=True, slots=True)
class Shared:
    """`tokens`: for each worker its own copy; None: nothing is shared. `sharing`: for the Run."""

    tokens: CoreTokens | None
    sharing: Sharing


def folder(settings: Settings) -> Path:
    """Where the locks of this host lie. `MillraceError` when no disk will do.

    By default not in $TMPDIR, which differs between programs that are to share; and by the host's name, since a home or
    a volume may be on several.
    """
    from millrace import host
    from millrace.host.tokens import places

    named = "host-" + re.sub(r"[^\w.-]+", "-", platform.node() or "local")
    if settings.tokens is not None:
        return host.scratch(settings.tokens, needs_bytes=0) / named
    return host.scratch(needs_bytes=0, among=places()) / named


def learnt(settings: Settings, taught_in: Path | None = None) -> Path:
    """The file of this host's crossovers, beside what else it has learnt (`taught_in`, where that is known)."""
    from millrace.lessons import place

    return (taught_in or place(settings.cache)) / "crossovers.json"


def share(
    settings: Settings,
    run_id: str,
    cores: int,
    light: bool,
    store: Store,
    owned: contextlib.ExitStack,
    around: Surroundings,
) -> Shared:
    """Enter the roster of this host, and what the run shares. Light work takes no tokens and declares no memory."""
    from millrace import host
    from millrace.host.placing import Gpus
    from millrace.host.roster import Roster
    from millrace.host.tokens import CoreTokens, holds
    from millrace.stores.claims import claims_of

    claims = claims_of(store.url) if store.url else None
    if claims is not None:
        owned.callback(claims.close)
    try:
        place = folder(settings)
    except MillraceError:
        return Shared(None, Sharing(claims))
    on = Gpus(settings.placement, place / "gpus", learnt(settings, around.taught_in), settings.gpu_memory)
    if settings.sharing == "off" or light or holds():
        return Shared(None, Sharing(claims, place=on))
    roster = Roster(place / "runs", int(host.memory().limit_bytes * MEMORY_SHARE))
    owned.callback(roster.close)
    roster.enter(run_id, cores)
    tokens = CoreTokens(place / "cores", around.slots)
    return Shared(tokens, Sharing(claims, roster.admit, on))

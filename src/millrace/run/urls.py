"""How stores are named: by a path or by a url, and how a url may be shown.

Opens nothing; see `compose.open_store`.
"""

from __future__ import annotations

import os
import re

_URL = re.compile(r"layered:|dir:|[a-z][a-z0-9+.-]*://")
_PASSWORD = re.compile(r"(://[^:/@,]*):[^/,]*@")


def is_url(store: str | os.PathLike[str]) -> bool:
    """Whether a store is named by a url and not by a path."""
    return _URL.match(os.fspath(store)) is not None


def spoken(store: str | os.PathLike[str]) -> str:
    """A store's name as it may be shown and written down: without passwords."""
    return _PASSWORD.sub(r"\1:***@", os.fspath(store))

"""The script that draws a report's pictures: Vega, Vega-Lite and vega-embed in one piece, as vl-convert brings them.

Putting it together takes over a second of processor time and gives the same text each time, so one copy is kept on disk.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zlib
from pathlib import Path

from millrace.run.errors import MissingExtra


def script(cache: Path | None) -> str:
    """JavaScript that defines `vegaEmbed`. `cache`: the folder of the copy; None: put it together. A copy that is
    damaged is made anew; where none can be written, none is. `MissingExtra` without vl-convert."""
    try:
        import vl_convert
    except ImportError as e:
        raise MissingExtra("vl-convert-python", "report", "A report with pictures") from e
    at = cache / f"vega-{vl_convert.__version__}.js" if cache is not None else None
    if at is not None and (known := _read(at)) is not None:
        return known
    made: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    if at is not None:
        with contextlib.suppress(OSError):  # a home that is full or read-only costs a second, not the report
            _write(at, made)
    return made


def _read(at: Path) -> str | None:
    """The copy, if it is whole: its last line is the checksum of the rest."""
    try:
        data = at.read_bytes()
    except OSError:
        return None
    body, _, last = data.rpartition(b"\n//")
    return body.decode() if last == b"%08x" % zlib.crc32(body) else None


def _write(at: Path, text: str) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    body = text.encode()
    handle, draft = tempfile.mkstemp(dir=at.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body + b"\n//%08x" % zlib.crc32(body))
        os.replace(draft, at)
    except BaseException:
        os.unlink(draft)
        raise

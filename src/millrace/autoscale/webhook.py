"""Tells a webhook of scaling events, in the shape that Slack and those who copy it read: {"text": ...}.

A webhook that is away is said and never holds the scaler up: messages go out from a thread of their own, the newest few
wait, and older ones are dropped with a word.
"""

from __future__ import annotations

import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from millrace.autoscale.loop import Event
from millrace.run.urls import spoken

TIMEOUT_S = 5.0
WAITING = 100


class Webhook:
    """Posts events to `url`; call it with each. `say` hears what could not be told."""

    def __init__(self, url: str, say: Callable[[str], None] = print, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._say, self._timeout_s = url, say, timeout_s
        self._events: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._post_all, name="webhook", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._say(f"webhook: {WAITING} messages wait for {spoken(self._url)}; this one is dropped: {text(event)}")

    def close(self) -> None:
        """Waits until what was heard is told, each at most its timeout."""
        self._events.put(None)
        self._thread.join()

    def _post_all(self) -> None:
        while (event := self._events.get()) is not None:
            request = urllib.request.Request(
                self._url, json.dumps(message(event)).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s):
                    pass
            except (OSError, urllib.error.URLError, ValueError) as away:
                self._say(f"webhook: {spoken(self._url)} did not take a message: {away}")


def text(event: Event) -> str:
    """One line for people."""
    d = event.decision
    did = [f"starts {d.start}"] * bool(d.start) + [f"lets {d.drain} idle go"] * bool(d.drain)
    did += [f"gives up {d.give_up} that did not boot"] * bool(d.give_up)
    return f"millrace {event.kind}: {', '.join([*did, d.line()])}"


def message(event: Event) -> dict[str, object]:
    """The JSON body: `text` for notices, one block of it for the channel."""
    said = text(event)
    return {"text": said, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": said}}]}

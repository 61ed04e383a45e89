"""How a Redis server is reached and what it says: its url taken apart, a client, errors that may pass, a policy of its own.

Knows nothing of keys and values; see `redis`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from millrace.run.errors import AnalysisFailed, MissingExtra, WrongQuestion
from millrace.run.units import parse_bytes
from millrace.run.urls import spoken
from millrace.stores.outages import patiently

T = TypeVar("T")
ANSWER_S, CONNECT_S = 20.0, 3.0


class NotAllowed(WrongQuestion):
    """The user of the url may do less than was asked for."""


def client(plain_url: str) -> Any:
    """A client that tries once: trying again is `answered`'s business."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(plain_url, socket_timeout=ANSWER_S, socket_connect_timeout=CONNECT_S, retry=once)


def passing(url: str) -> tuple[type[Exception], ...]:
    """What may pass: no connection, no answer in time, a server that is still loading or has just lost its role."""
    try:
        import redis.exceptions as errors
    except ImportError as e:
        raise MissingExtra("redis", "redis", f"The store {spoken(url)}") from e
    return (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.TryAgainError)


def parts(url: str) -> tuple[str, str, int]:
    """The url for redis-py, the namespace and the limit in bytes (0: none)."""
    try:
        split = urlsplit(url)
        port_is_right = split.port is None or split.port > 0
    except ValueError:
        port_is_right = False
    if not port_is_right or split.scheme not in ("redis", "rediss"):
        raise WrongQuestion(f"{spoken(url)!r} is no url of a Redis store: that is redis://host:port/number.")
    query = dict(parse_qsl(split.query))
    namespace, limit = query.pop("namespace", ""), query.pop("limit", "")
    if namespace and not namespace.replace("-", "").replace("_", "").isalnum():
        raise WrongQuestion(f"The namespace {namespace!r} in {spoken(url)} may have letters, digits, - and _ only.")
    plain = urlunsplit((split.scheme, split.netloc, split.path, urlencode(query), ""))
    return plain, namespace, parse_bytes(limit) if limit else 0


def remarks(url: str, client: Any, call: Callable[[Callable[[], Any]], Any]) -> tuple[str, ...]:
    """What whoever uses this server should know: that it takes values away by itself, if it does."""
    try:
        info = call(lambda: client.info("memory"))
    except NotAllowed:
        return ()  # a user who may only use the store need not be told
    policy = info.get("maxmemory_policy", "noeviction")
    if not info.get("maxmemory") or policy == "noeviction":
        return ()
    return (
        f"The server of the store {spoken(url)} may take values away by itself (maxmemory-policy {policy}): what it takes "
        "is computed again. Set noeviction, and a limit in the store's url, to keep that to millrace.",
    )


def answered(url: str, patience_s: float, may_pass: tuple[type[Exception], ...], work: Callable[[], T]) -> T:
    """What the server answers, waiting out what may pass. `WrongQuestion` when it does not let this user in."""
    import redis.exceptions as errors

    def attempt() -> T:
        try:
            return work()
        except (errors.AuthenticationError, errors.AuthorizationError) as e:  # kinds of ConnectionError, there
            raise WrongQuestion(
                f"The store {spoken(url)} does not let this user in ({e}). Give user and password in its url."
            ) from e

    try:
        return patiently(url, patience_s, may_pass, attempt)
    except errors.NoPermissionError as e:
        raise NotAllowed(
            f"The store {spoken(url)} does not allow this to its user ({e}). docs/stores.md tells the rights that reading and "
            "writing need."
        ) from e
    except errors.OutOfMemoryError as e:
        raise AnalysisFailed(
            f"The server of the store {spoken(url)} has no memory left ({e}). What was finished is kept on "
            "this host. Free some (`millrace cache evict`), put a limit into the store's url, or give the server "
            "more, and run again."
        ) from e

"""What a broker must be before jobs are trusted to it: there, of a kind that is known, and keeping what it is given."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from millrace.run.errors import MillraceError, MissingExtra, WrongQuestion
from millrace.run.urls import spoken

CONNECT_S = 5.0
REDIS = ("redis", "rediss", "valkey", "valkeys")
RABBIT = ("amqp", "amqps")


class BrokerAway(MillraceError):
    """The broker cannot be reached now; a cause that may pass."""


def plain_url(url: str) -> str:
    """The URL as Celery knows it: valkey:// is spoken as redis://. `WrongQuestion` for a broker of another kind."""
    scheme, there, rest = url.partition("://")
    if not there or scheme not in (*REDIS, *RABBIT):
        raise WrongQuestion(
            f"The broker {spoken(url)} is of a kind that jobs are not sent by: give redis://HOST:PORT/NUMBER (Redis or "
            "Valkey), rediss:// for TLS, or amqp://USER:PASSWORD@HOST/VHOST (RabbitMQ)."
        )
    return f"{scheme.replace('valkey', 'redis')}://{rest}"


def is_redis(url: str) -> bool:
    return plain_url(url).startswith("redis")


def check_broker(url: str) -> None:
    """`BrokerAway` when it does not answer, `WrongQuestion` when it may drop messages to save memory."""
    if is_redis(url):
        _check_redis(plain_url(url), spoken(url))
        return
    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        socket.create_connection((parts.hostname or "localhost", port), CONNECT_S).close()
    except OSError as e:
        raise away(url, e) from e


def away(url: str, error: BaseException) -> BrokerAway:
    return BrokerAway(
        f"The broker {spoken(url)} cannot be used now: {str(error).rstrip('.')}. Look whether it runs, listens there and has "
        "memory; jobs are safe in the table meanwhile, and workers are told of them when it is back."
    )


def _check_redis(url: str, shown: str) -> None:
    """INFO and not CONFIG, which hosted servers refuse."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as e:
        raise MissingExtra("redis", "celery", f"The broker {shown}") from e
    once = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(url, socket_timeout=CONNECT_S, socket_connect_timeout=CONNECT_S, retry=once)
    try:
        policy = client.info("memory").get("maxmemory_policy")
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as e:
        raise WrongQuestion(
            f"The broker {shown} does not let this user in ({e}). Give user and password in its URL, and the user INFO."
        ) from e
    except (redis.RedisError, OSError) as e:
        raise away(shown, e) from e
    finally:
        client.close()
    if policy != "noeviction":
        raise WrongQuestion(
            f"The broker {shown} may throw messages away to save memory (maxmemory-policy is {policy or 'not told'}): no job "
            "would be lost, but each would wait until it is missed. Set `maxmemory-policy noeviction` on the server, or give "
            "the broker a server of its own apart from caches."
        )

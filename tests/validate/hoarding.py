"""A library that remembers all that it ever made: 5 MiB a call."""

import functools


@functools.cache
def keep(value, number):
    return len(_store.setdefault(number, bytearray(5 << 20)))


_store = {}

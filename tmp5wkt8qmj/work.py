import time


def nothing(item):
    return item


def turns(item):
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        sum(range(1000))
    return item

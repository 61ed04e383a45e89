"""A library that imports what it does not answer for."""

import os
from operator import attrgetter

HERE = os.sep


def hmirror(grid):
    return tuple(row[::-1] for row in grid)


def name_of(thing):
    return attrgetter("name")(thing)

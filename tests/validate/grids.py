"""A library of a few functions over grids, as a search's DSL is; candidates import it by this name."""


def hmirror(grid):
    return tuple(row[::-1] for row in grid)


def vmirror(grid):
    return grid[::-1]


def rot90(grid):
    return tuple(zip(*grid[::-1], strict=True))


def swap(grid, a, b):
    return tuple(tuple(b if v == a else a if v == b else v for v in row) for row in grid)


def spin(grid):
    while True:
        pass


def deep(grid):
    return deep(grid)

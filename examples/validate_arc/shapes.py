"""A small language for grids of colours: tuples of rows of numbers 0 to 9, where 0 is the background.

Every function is pure: it makes a new grid of what it is given, and changes nothing.
"""

from collections import Counter

Grid = tuple[tuple[int, ...], ...]


# -- turning -------------------------------------------------------------------------------------------------------
def flip(grid: Grid) -> Grid:
    """Left becomes right."""
    return tuple(row[::-1] for row in grid)


def flop(grid: Grid) -> Grid:
    """Top becomes bottom."""
    return grid[::-1]


def transpose(grid: Grid) -> Grid:
    return tuple(zip(*grid, strict=True))


def turn(grid: Grid) -> Grid:
    """A quarter, clockwise."""
    return transpose(flop(grid))


def half_turn(grid: Grid) -> Grid:
    return flip(flop(grid))


def back_turn(grid: Grid) -> Grid:
    """A quarter, counter-clockwise."""
    return flop(transpose(grid))


def anti_transpose(grid: Grid) -> Grid:
    return half_turn(transpose(grid))


# -- parts and wholes ------------------------------------------------------------------------------------------------
def left(grid: Grid) -> Grid:
    """The left half; a column in the middle belongs to neither."""
    return tuple(row[: len(row) // 2] for row in grid)


def right(grid: Grid) -> Grid:
    return tuple(row[-(len(row) // 2) :] for row in grid)


def top(grid: Grid) -> Grid:
    return grid[: len(grid) // 2]


def bottom(grid: Grid) -> Grid:
    return grid[-(len(grid) // 2) :]


def beside(a: Grid, b: Grid) -> Grid:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def above(a: Grid, b: Grid) -> Grid:
    return a + b


def tiled(grid: Grid, rows: int, columns: int) -> Grid:
    return tuple(row * columns for row in grid) * rows


def larger(grid: Grid, times: int) -> Grid:
    """Every cell becomes a square."""
    return tuple(tuple(v for v in row for _ in range(times)) for row in grid for _ in range(times))


def smaller(grid: Grid, times: int) -> Grid:
    return tuple(row[::times] for row in grid[::times])


def trimmed(grid: Grid) -> Grid:
    """Without its outermost rows and columns."""
    return tuple(row[1:-1] for row in grid[1:-1])


def cropped(grid: Grid) -> Grid:
    """The smallest part that holds all that is not background."""
    rows = [i for i, row in enumerate(grid) if any(row)]
    columns = [j for j, column in enumerate(transpose(grid)) if any(column)]
    return tuple(row[columns[0] : columns[-1] + 1] for row in grid[rows[0] : rows[-1] + 1])


def distinct(grid: Grid) -> Grid:
    """Rows and columns that repeat the one before are left out."""

    def rows(g: Grid) -> Grid:
        return tuple(row for i, row in enumerate(g) if i == 0 or row != g[i - 1])

    return transpose(rows(transpose(rows(grid))))


# -- colours -----------------------------------------------------------------------------------------------------------
def commonest(grid: Grid) -> int:
    """The colour of most cells; of equals the smallest number."""
    counts = Counter(v for row in grid for v in row)
    return min(counts, key=lambda v: (-counts[v], v))


def rarest(grid: Grid) -> int:
    counts = Counter(v for row in grid for v in row)
    return min(counts, key=lambda v: (counts[v], v))


def recoloured(grid: Grid, old: int, new: int) -> Grid:
    return tuple(tuple(new if v == old else v for v in row) for row in grid)


def swapped(grid: Grid, a: int, b: int) -> Grid:
    return tuple(tuple(b if v == a else a if v == b else v for v in row) for row in grid)


def only(grid: Grid, colour: int) -> Grid:
    return tuple(tuple(v if v == colour else 0 for v in row) for row in grid)


def painted(grid: Grid, colour: int) -> Grid:
    """All that is not background in one colour."""
    return tuple(tuple(colour if v else 0 for v in row) for row in grid)


def filled(grid: Grid, colour: int) -> Grid:
    """All cells in one colour."""
    return tuple(tuple(colour for _ in row) for row in grid)


# -- two grids of one size ---------------------------------------------------------------------------------------------
def over(a: Grid, b: Grid) -> Grid:
    """`a`, and `b` where `a` is background."""
    return tuple(tuple(x or y for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True))


def both(a: Grid, b: Grid, colour: int) -> Grid:
    return tuple(tuple(colour if x and y else 0 for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True))


def neither(a: Grid, b: Grid, colour: int) -> Grid:
    return tuple(tuple(0 if x or y else colour for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True))


def one_of(a: Grid, b: Grid, colour: int) -> Grid:
    """Where exactly one of them is not background."""
    pairs = zip(a, b, strict=True)
    return tuple(tuple(colour if bool(x) != bool(y) else 0 for x, y in zip(r, s, strict=True)) for r, s in pairs)


# -- things ------------------------------------------------------------------------------------------------------------
def things(grid: Grid) -> tuple[Grid, ...]:
    """Connected cells (corners count) that are not background, each cut out, in reading order."""
    left_over = {(i, j) for i, row in enumerate(grid) for j, v in enumerate(row) if v}
    found = []
    for start in sorted(left_over):
        if start not in left_over:
            continue
        cells, edge = set(), [start]
        while edge:
            i, j = edge.pop()
            if (i, j) in left_over:
                left_over.discard((i, j))
                cells.add((i, j))
                edge += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        rows, columns = sorted(i for i, _ in cells), sorted(j for _, j in cells)
        found.append(
            tuple(
                tuple(grid[i][j] if (i, j) in cells else 0 for j in range(columns[0], columns[-1] + 1))
                for i in range(rows[0], rows[-1] + 1)
            )
        )
    return tuple(found)


def weight(grid: Grid) -> int:
    """Cells that are not background."""
    return sum(1 for row in grid for v in row if v)


def heaviest(grids: tuple[Grid, ...]) -> Grid:
    return max(grids, key=weight)


def lightest(grids: tuple[Grid, ...]) -> Grid:
    return min(grids, key=weight)


def enclosed(grid: Grid, colour: int) -> Grid:
    """Background that the edge cannot reach (over sides, not corners) in a colour."""
    high, wide = len(grid), len(grid[0])
    edge = [(i, j) for i in range(high) for j in range(wide) if i in (0, high - 1) or j in (0, wide - 1)]
    outside = set()
    while edge:
        i, j = edge.pop()
        if 0 <= i < high and 0 <= j < wide and not grid[i][j] and (i, j) not in outside:
            outside.add((i, j))
            edge += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return tuple(
        tuple(v if v or (i, j) in outside else colour for j, v in enumerate(row)) for i, row in enumerate(grid)
    )


def fallen(grid: Grid) -> Grid:
    """All that is not background falls to the bottom of its column."""
    columns = (tuple(v for v in column if not v) + tuple(v for v in column if v) for column in transpose(grid))
    return transpose(tuple(columns))

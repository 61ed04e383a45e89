"""What a causal graph says about adjustment: is a set of common causes valid, which minimal sets are, and what is wrong.

Pearl's back-door criterion on directed acyclic graphs, with causes that are not observed. Instruments and front doors are
recognised and named as not supported. Reading graphs is in `drawing`. Algorithms of our own: they are short, and must say
which path is at fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from millrace.run.errors import NotSupported, WrongQuestion

MOST_SETS = 1_000


@dataclass(frozen=True, slots=True)
class Graph:
    """nodes in the order of the source; edges (cause, effect); hidden: nodes without data. Made by `of`, which checks it."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    hidden: frozenset[str] = frozenset()

    def parents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {n: [] for n in self.nodes}
        for a, b in self.edges:
            found[b].append(a)
        return found

    def children(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {n: [] for n in self.nodes}
        for a, b in self.edges:
            found[a].append(b)
        return found


def of(edges: Iterable[tuple[str, str]], nodes: Iterable[str] = (), hidden: Iterable[str] = ()) -> Graph:
    """WrongQuestion when the edges run in a circle, which it names."""
    kept = tuple(dict.fromkeys((str(a), str(b)) for a, b in edges))
    named = tuple(dict.fromkeys([*map(str, nodes), *(n for edge in kept for n in edge)]))
    graph = Graph(named, kept, frozenset(map(str, hidden)) & frozenset(named))
    circle = _circle(graph)
    if circle:
        raise WrongQuestion(f"The graph runs in a circle, {' → '.join(circle)}: a cause cannot follow from its effect.")
    return graph


def _circle(graph: Graph) -> list[str]:
    children, state = graph.children(), dict.fromkeys(graph.nodes, 0)
    for start in graph.nodes:
        if state[start]:
            continue
        trail: list[tuple[str, Iterator[str]]] = [(start, iter(children[start]))]
        state[start] = 1
        while trail:
            node, rest = trail[-1]
            following = next(rest, None)
            if following is None:
                state[node] = 2
                trail.pop()
            elif state[following] == 1:
                names = [n for n, _ in trail]
                return [*names[names.index(following) :], following]
            elif not state[following]:
                state[following] = 1
                trail.append((following, iter(children[following])))
    return []


def reach(neighbours: dict[str, list[str]], start: Iterable[str]) -> set[str]:
    """What can be reached from `start`, itself included."""
    found, todo = set(start), list(start)
    while todo:
        for n in neighbours[todo.pop()]:
            if n not in found:
                found.add(n)
                todo.append(n)
    return found


def descendants(graph: Graph, *nodes: str) -> set[str]:
    """Itself included."""
    return reach(graph.children(), nodes)


def ancestors(graph: Graph, *nodes: str) -> set[str]:
    """Itself included."""
    return reach(graph.parents(), nodes)


def without_effects_of(graph: Graph, node: str) -> Graph:
    """The graph without the edges that leave `node`: what is left between it and the outcome are back doors."""
    return Graph(graph.nodes, tuple(e for e in graph.edges if e[0] != node), graph.hidden)


# -- d-separation --------------------------------------------------------------------------------------------------
def open_path(graph: Graph, a: str, b: str, given: Collection[str] = ()) -> str | None:
    """The shortest path from a to b that `given` leaves open, as "a ← c → b"; None when a and b are d-separated.

    Breadth first over (node, came with the arrow or against it). A node is passed as chain or fork when it is not given, as
    collider when it or a descendant of it is given (Shachter's Bayes ball).
    """
    given = set(given)
    parents, children = graph.parents(), graph.children()
    opened = reach(parents, [n for n in given if n in parents])
    start = (a, False)
    came: dict[tuple[str, bool], tuple[str, bool] | None] = {start: None}
    todo = deque([start])
    while todo:
        at = todo.popleft()
        node, with_arrow = at
        if node == b:
            return _drawn(at, came)
        up = node in opened if with_arrow else node not in given or node == a
        down = node not in given or node == a
        steps = [(n, False) for n in parents[node]] if up else []
        steps += [(n, True) for n in children[node]] if down else []
        for step in steps:
            if step not in came and step[0] != a:
                came[step] = at
                todo.append(step)
    return None


def _drawn(end: tuple[str, bool], came: dict[tuple[str, bool], tuple[str, bool] | None]) -> str:
    text, at = end[0], end
    while (before := came[at]) is not None:
        text = f"{before[0]} {'→' if at[1] else '←'} {text}"
        at = before
    return text


def separated(graph: Graph, a: str, b: str, given: Collection[str] = ()) -> bool:
    """Are a and b d-separated by `given`?"""
    return open_path(graph, a, b, given) is None


def directed_path(graph: Graph, a: str, b: str) -> str | None:
    """The shortest path along the arrows, as "a → m → b"."""
    children = graph.children()
    came: dict[str, str | None] = {a: None}
    todo = deque([a])
    while todo:
        node = todo.popleft()
        if node == b:
            names = [node]
            while (before := came[names[-1]]) is not None:
                names.append(before)
            return " → ".join(reversed(names))
        for n in children[node]:
            if n not in came:
                came[n] = node
                todo.append(n)
    return None


# -- is what was given right ---------------------------------------------------------------------------------------
def check(graph: Graph, treatment: str, outcome: str, given: Sequence[str], *, complete: bool = True) -> None:
    """WrongQuestion when one of the given common causes must not be adjusted for, with the path that shows it: a mediator, a
    collider, another descendant of the treatment; and (with `complete`) when a back door stays open."""
    _ends(graph, treatment, outcome)
    unknown = [g for g in given if g not in graph.nodes]
    if unknown:
        raise WrongQuestion(
            f"The common causes {', '.join(map(repr, unknown))} are not in the graph: add them, or leave them out."
        )
    after = descendants(graph, treatment) - {treatment}
    for g in given:
        if g in (treatment, outcome):
            raise WrongQuestion(f"{g!r} is the treatment or the outcome and cannot be a common cause too.")
        if g in after:
            raise WrongQuestion(_after(graph, treatment, outcome, g))
    backdoors = without_effects_of(graph, treatment)
    path = open_path(backdoors, treatment, outcome, given)
    if path is None:
        return
    nodes = path.split(" ")
    for i in range(2, len(nodes) - 2, 2):
        collider = nodes[i - 1] == "→" and nodes[i + 1] == "←"
        if collider:
            below = next(g for g in given if nodes[i] in ancestors(graph, g))
            what = "a collider" if below == nodes[i] else f"a descendant of the collider {nodes[i]!r}"
            raise WrongQuestion(
                f"The common cause {below!r} is {what} on the path {path}: adjusting for it opens this path, which is closed "
                f"otherwise. Leave it out, or give one more of the nodes on the path."
            )
    if complete:
        raise WrongQuestion(
            f"The given common causes leave the back door {path} open. Give one more of its nodes, or let the graph choose."
        )


def _after(graph: Graph, treatment: str, outcome: str, node: str) -> str:
    onward = directed_path(graph, node, outcome)
    if onward is not None:
        path = f"{directed_path(graph, treatment, node)} → {onward.split(' → ', 1)[1]}"
        return (
            f"The common cause {node!r} is a mediator: it lies on the path {path}, and adjusting for it takes away a part of the "
            f"effect. Leave it out."
        )
    path = directed_path(graph, treatment, node)
    back = directed_path(graph, outcome, node)
    if back is not None:
        aside = of([e for e in graph.edges if outcome not in e], [n for n in graph.nodes if n != outcome])
        path = directed_path(aside, treatment, node)
        if path is None:
            return (
                f"The common cause {node!r} is an effect of the outcome, {treatment} → … → {back}: adjusting for it distorts the "
                f"effect. Leave it out."
            )
        joined = f"{path} ← {' ← '.join(reversed(back.split(' → ')[:-1]))}"
        return (
            f"The common cause {node!r} is a collider: treatment and outcome both lead to it, {joined}, and adjusting for it "
            f"makes an association where there is none. Leave it out."
        )
    return f"The common cause {node!r} is an effect of the treatment, {path}: adjusting for it distorts the effect. Leave it out."


def _ends(graph: Graph, treatment: str, outcome: str) -> None:
    for what, node in (("treatment", treatment), ("outcome", outcome)):
        if node not in graph.nodes:
            raise WrongQuestion(f"The {what} {node!r} is not in the graph, which has {', '.join(graph.nodes[:20])}.")
        if node in graph.hidden:
            raise WrongQuestion(f"The {what} {node!r} is marked as not observed in the graph.")
    reverse = directed_path(graph, outcome, treatment)
    if reverse is not None:
        raise WrongQuestion(
            f"In the graph the outcome causes the treatment, {reverse}: there is no effect to estimate."
        )


# -- all minimal sets ----------------------------------------------------------------------------------------------
def adjustment_sets(
    graph: Graph, treatment: str, outcome: str, *, limit: int = MOST_SETS, observed: Collection[str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """All minimal valid back-door sets, the smallest first (at most `limit`, found in a fixed order); () has nothing to
    adjust for. observed: nodes that there are data of (all that are not hidden, when not given).

    Raises NotSupported, naming the instrument or the front door, when there is no such set but another way; WrongQuestion when
    there is none. Without a directed path from treatment to outcome: WrongQuestion, the graph says that the effect is 0.

    A minimal set is a minimal separator of treatment and outcome in the moral graph of their ancestors, without the edges
    that leave the treatment (van der Zander, Liśkiewicz and Textor, Artificial Intelligence 270, 2019).
    """
    _ends(graph, treatment, outcome)
    if directed_path(graph, treatment, outcome) is None:
        raise WrongQuestion(
            f"In the graph no path leads from {treatment!r} to {outcome!r}: it says that the effect is 0."
        )
    can = set(graph.nodes if observed is None else observed) - graph.hidden - descendants(graph, treatment) - {outcome}
    links = _moral(without_effects_of(graph, treatment), treatment, outcome, can)
    if outcome in links[treatment]:
        raise _no_set(graph, treatment, outcome)
    order = {n: i for i, n in enumerate(graph.nodes)}
    found = [tuple(sorted(s, key=order.__getitem__)) for s in _separators(links, treatment, outcome, limit)]
    return tuple(sorted(found, key=lambda s: (len(s), [order[n] for n in s])))


def _moral(graph: Graph, a: str, b: str, can: set[str]) -> dict[str, set[str]]:
    """Neighbours in the moral graph of the ancestors of a and b, over a, b and those that can be adjusted for: each of the
    others is taken out and its neighbours joined, since no set can close what runs through it."""
    kept = ancestors(graph, a, b)
    links: dict[str, set[str]] = {n: set() for n in graph.nodes if n in kept}
    for node, its in graph.parents().items():
        if node in kept:
            family = [*its, node]
            for i, x in enumerate(family):
                links[x].update(family[:i] + family[i + 1 :])
    for node in [n for n in links if n not in can and n not in (a, b)]:
        around = links.pop(node)
        for x in around:
            links[x] |= around
            links[x] -= {x, node}
    return links


def _separators(links: dict[str, set[str]], a: str, b: str, limit: int) -> list[frozenset[str]]:
    """All minimal a-b separators, breadth first from the one nearest to a: moving one of its nodes to a's side gives the
    next ones (Shen and Liang, Theoretical Computer Science 180, 1997)."""

    def component(start: str, closed: Collection[str]) -> set[str]:
        found, todo = {start}, [start]
        while todo:
            for n in links[todo.pop()]:
                if n not in found and n not in closed:
                    found.add(n)
                    todo.append(n)
        return found

    def around(side: set[str]) -> set[str]:
        return set().union(*(links[n] for n in side)) - side

    def nearest(side: set[str]) -> frozenset[str]:
        """The separator nearest to `side`: of its neighbours those that b's component touches."""
        return frozenset(around(component(b, around(side) | side)))

    first = nearest({a})
    found, todo = {first: None}, deque([first])
    while todo and len(found) < limit:
        separator = todo.popleft()
        side = component(a, separator)
        for node in sorted(separator - links[b]):
            moved = nearest(side | {node})
            if moved not in found and len(found) < limit:
                found[moved] = None
                todo.append(moved)
    return list(found)


# -- other ways, which are not taken -------------------------------------------------------------------------------
def instruments(graph: Graph, treatment: str, outcome: str) -> list[str]:
    """Observed nodes that move the treatment and reach the outcome through nothing else."""
    cut = without_effects_of(graph, treatment)
    after = descendants(graph, treatment)
    fitting = [n for n in graph.nodes if n not in graph.hidden and n not in after and n != outcome]
    return [n for n in fitting if not separated(graph, n, treatment) and separated(cut, n, outcome)]


def front_doors(graph: Graph, treatment: str, outcome: str) -> list[str]:
    """Observed single mediators through which all of the effect runs, free of back doors on either side."""
    found = []
    for m in graph.nodes:
        if m in graph.hidden or m in (treatment, outcome):
            continue
        if directed_path(graph, treatment, m) is None or directed_path(graph, m, outcome) is None:
            continue
        left = of([e for e in graph.edges if m not in e], [n for n in graph.nodes if n != m])
        if (
            directed_path(left, treatment, outcome) is None
            and separated(without_effects_of(graph, treatment), treatment, m)
            and separated(without_effects_of(graph, m), m, outcome, [treatment])
        ):
            found.append(m)
    return found


def _no_set(graph: Graph, treatment: str, outcome: str) -> WrongQuestion:
    able = [n for n in graph.nodes if n not in graph.hidden and n not in descendants(graph, treatment)]
    path = open_path(without_effects_of(graph, treatment), treatment, outcome, able)
    shown = f" The back door {path} stays open." if path else ""
    why = f"No set of observed common causes closes every back door from {treatment!r} to {outcome!r}.{shown}"
    if found := instruments(graph, treatment, outcome):
        return NotSupported(
            f"{why} The graph has an instrument, {found[0]!r}; estimates by instruments are not supported."
        )
    if found := front_doors(graph, treatment, outcome):
        return NotSupported(f"{why} The graph has a front door, {found[0]!r}; front-door adjustment is not supported.")
    return WrongQuestion(f"{why} Measure one of the causes on it, or ask for the sensitivity to what is hidden.")

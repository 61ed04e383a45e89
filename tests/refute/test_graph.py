"""Graphs are read as drawn, d-separation is the definition's, all minimal sets are found, and bad controls are named with
their path."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import graph as g
from millrace.analyses.refute.drawing import read
from millrace.run.errors import NotSupported, WrongQuestion

NAMES = "abcdef"


@st.composite
def dags(draw: st.DrawFn, hidden: bool = False) -> g.Graph:
    n = draw(st.integers(2, 6))
    order = draw(st.permutations(NAMES[:n]))
    pairs = list(combinations(order, 2))
    edges = [p for p in pairs if draw(st.booleans())]
    unseen = [v for v in order if hidden and draw(st.integers(0, 4)) == 0]
    return g.of(edges, order, unseen)


# -- oracles: the definitions, path by path -------------------------------------------------------------------------
def all_paths(graph: g.Graph, a: str, b: str) -> list[list[str]]:
    beside = {n: {x for e in graph.edges if n in e for x in e if x != n} for n in graph.nodes}
    found: list[list[str]] = []

    def walk(path: list[str]) -> None:
        if path[-1] == b:
            found.append(path)
            return
        for n in sorted(beside[path[-1]] - set(path)):
            walk([*path, n])

    walk([a])
    return found


def below(graph: g.Graph, node: str) -> set[str]:
    found = {node}
    for _ in graph.nodes:
        found |= {b for a, b in graph.edges if a in found}
    return found


def blocked(graph: g.Graph, path: list[str], given: set[str]) -> bool:
    for left, node, right in zip(path, path[1:], path[2:], strict=False):
        collider = (left, node) in graph.edges and (right, node) in graph.edges
        if collider and not below(graph, node) & given:
            return True
        if not collider and node in given:
            return True
    return False


def d_separated(graph: g.Graph, a: str, b: str, given: set[str]) -> bool:
    return all(blocked(graph, path, given) for path in all_paths(graph, a, b))


def minimal_sets(graph: g.Graph, t: str, y: str) -> set[frozenset[str]]:
    cut = g.Graph(graph.nodes, tuple(e for e in graph.edges if e[0] != t))
    able = [n for n in graph.nodes if n not in below(graph, t) and n != y and n not in graph.hidden]
    valid = [
        frozenset(s) for k in range(len(able) + 1) for s in combinations(able, k) if d_separated(cut, t, y, set(s))
    ]
    return {s for s in valid if not any(other < s for other in valid)}


@settings(deadline=None, max_examples=150)
@given(dags(), st.data())
def test_d_separation_is_that_of_the_definition(graph, data):
    a, b = data.draw(st.permutations(graph.nodes))[:2]
    rest = [n for n in graph.nodes if n not in (a, b)]
    given_set = {n for n in rest if data.draw(st.booleans())}
    assert g.separated(graph, a, b, given_set) == d_separated(graph, a, b, given_set)


@settings(deadline=None, max_examples=250)
@given(dags(hidden=True))
def test_all_minimal_back_door_sets_are_found_and_nothing_else(graph):
    tops = [(t, y) for t in graph.nodes for y in below(graph, t) - {t} if not {t, y} & graph.hidden]
    for t, y in tops:
        wanted = minimal_sets(graph, t, y)
        if not wanted:
            with pytest.raises(WrongQuestion):
                g.adjustment_sets(graph, t, y)
            continue
        found = g.adjustment_sets(graph, t, y)
        assert {frozenset(s) for s in found} == wanted and len(found) == len(wanted)
        assert [len(s) for s in found] == sorted(len(s) for s in found)
        for s in found:
            g.check(graph, t, y, s)


def test_the_enumeration_is_bounded():
    rungs = [(f"{side}{i}", f"{side}{i + 1}") for side in "lmr" for i in range(9)]
    ends = [e for side in "lmr" for e in ((f"{side}0", "t"), (f"{side}9", "y"))]
    graph = g.of([*rungs, *ends, ("t", "y")])
    assert len(g.adjustment_sets(graph, "t", "y", limit=2_000)) == 1_000
    assert len(g.adjustment_sets(graph, "t", "y", limit=25)) == 25


# -- what was given ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edges", "given_causes", "says"),
    [
        ("t>y t>m m>y", ["m"], r"'m' is a mediator.*t → m → y"),
        ("t>y t>m m>k k>y", ["k"], r"'k' is a mediator.*t → m → k → y"),
        ("t>y t>c y>c", ["c"], r"'c' is a collider.*t → c ← y"),
        ("t>y t>c y>k k>c", ["c"], r"'c' is a collider.*t → c ← k ← y"),
        ("t>y t>d", ["d"], r"'d' is an effect of the treatment, t → d"),
        ("t>y y>d", ["d"], r"'d' is an effect of the outcome.*y → d"),
        ("t>y u>t u>m v>m v>y", ["m"], r"'m' is a collider on the path t ← u → m ← v → y"),
        ("t>y u>t u>m v>m v>y m>d", ["d"], r"'d' is a descendant of the collider 'm' on the path t ← u → m ← v → y"),
        ("t>y c>t c>y", [], r"leave the back door t ← c → y open"),
        ("t>y c>t c>y", ["t"], r"'t' is the treatment"),
        ("t>y c>t c>y", ["z"], r"'z' are not in the graph"),
        ("y>t", [], r"outcome causes the treatment, y → t"),
    ],
)
def test_a_bad_control_is_an_error_that_names_the_path(edges, given_causes, says):
    graph = g.of([tuple(e.split(">")) for e in edges.split()])
    with pytest.raises(WrongQuestion, match=says):
        g.check(graph, "t", "y", given_causes)


def test_an_m_collider_is_right_together_with_one_of_its_causes():
    graph = g.of([("t", "y"), ("u", "t"), ("u", "m"), ("v", "m"), ("v", "y")])
    g.check(graph, "t", "y", ["m", "u"])
    assert g.adjustment_sets(graph, "t", "y") == ((),)


def test_what_could_be_done_otherwise_is_named_as_not_supported():
    hidden = [("u", "t"), ("u", "y")]
    with pytest.raises(NotSupported, match=r"t ← u → y.*instrument, 'z'"):
        g.adjustment_sets(g.of([*hidden, ("z", "t"), ("t", "y")], hidden=["u"]), "t", "y")
    with pytest.raises(NotSupported, match=r"front door, 'm'"):
        g.adjustment_sets(g.of([*hidden, ("t", "m"), ("m", "y")], hidden=["u"]), "t", "y")
    with pytest.raises(WrongQuestion, match=r"stays open"):
        g.adjustment_sets(g.of([*hidden, ("t", "y")], hidden=["u"]), "t", "y")
    with pytest.raises(WrongQuestion, match="effect is 0"):
        g.adjustment_sets(g.of([("c", "t"), ("c", "y")]), "t", "y")


def test_a_graph_that_runs_in_a_circle_is_refused_by_name():
    with pytest.raises(WrongQuestion, match=r"b → c → d → b"):
        g.of([("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])


# -- reading -------------------------------------------------------------------------------------------------------
GML = """graph [ directed 1
  node [ id 0 label "age" ] node [ id 1 label "t" ] node [ id "y" label "y" ]
  node [ id 3 label "U" observed "no" ]
  edge [ source 0 target 1 ] edge [ source 0 target "y" ] edge [source "1" target y weight 2]
  edge [ source 3 target 0 ] ]"""
DOT = """// a comment
strict digraph "my graph" { rankdir=LR; node [shape=box, color="#fff"];
  age -> {t; y} [weight=2]; t->y
  U [observed="no"] /* not
  seen */
  "U" -> age; }"""


@pytest.mark.parametrize(
    "text", [GML, DOT, "dag { age -> t age -> y t -> y U [latent] U -> age }"], ids=["gml", "dot", "dagitty"]
)
def test_texts_say_what_they_draw(text, tmp_path: Path):
    graph = read(text)
    assert set(graph.nodes) == {"age", "t", "y", "U"}
    assert set(graph.edges) == {("age", "t"), ("age", "y"), ("t", "y"), ("U", "age")}
    assert graph.hidden == {"U"}
    file = tmp_path / "causes.dot"
    file.write_text(text)
    assert read(str(file)) == read(file) == graph


def test_chains_names_with_hyphens_and_double_heads_are_read():
    graph = read('digraph { a -> b-2 -> "c d" -> e; x <-> e; e <- z }')
    hidden = "x<->e"
    assert set(graph.edges) == {
        ("a", "b-2"), ("b-2", "c d"), ("c d", "e"), (hidden, "x"), (hidden, "e"), ("z", "e"),
    }  # fmt: skip
    assert graph.hidden == {hidden}


def test_pairs_and_mappings_are_graphs():
    wanted = {("c", "t"), ("c", "y"), ("t", "y")}
    assert set(read([("c", "t"), ["c", "y"], ("t", "y")]).edges) == wanted
    assert set(read({"c": ["t", "y"], "t": "y"}).edges) == wanted


class Drawn:
    """What a networkx.DiGraph looks like from outside: `nodes` callable with data, `edges` of pairs."""

    class Nodes(dict[str, dict[str, str]]):
        def __call__(self, data: bool) -> list[tuple[str, dict[str, str]]]:
            assert data
            return list(self.items())

    def __init__(self, directed: bool = True) -> None:
        self.nodes = self.Nodes(c={}, t={}, y={}, u={"observed": "no"})
        self.edges = [("c", "t"), ("c", "y"), ("t", "y"), ("u", "c")]
        self.directed = directed

    def is_directed(self) -> bool:
        return self.directed


def test_a_networkx_graph_is_read_with_what_is_not_observed():
    graph = read(Drawn())
    assert set(graph.edges) == {("c", "t"), ("c", "y"), ("t", "y"), ("u", "c")} and graph.hidden == {"u"}
    with pytest.raises(WrongQuestion, match="not directed"):
        read(Drawn(directed=False))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("graph { a -- b }", "not directed"), ("digraph { a -> }", "cannot be read|misses"), ("digraph { a -> b", "no { ... }"),
        ("digraph { subgraph x { a } }", "subgraph"), ("hello", "neither GML"), ("graph [ node [ id 1 ]", "not closed"),
        ("graph [ directed 0 node [ id 1 ] ]", "directed 0"), ("graph [ edge [ source 1 ] ]", "no target"),
        ("missing.dot", "no graph file"), ([("a", "b", "c")], "pair"), (7, "not int"), ("digraph { a -- b }", "not directed"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(source, says):
    with pytest.raises(WrongQuestion, match=says):
        read(source)

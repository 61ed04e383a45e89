"""Causal graphs as people hand them over: GML, DOT (digraphs without subgraphs), networkx objects, edge lists, files.

Returns a `graph.Graph`. Nodes marked observed="no" or latent, and the ends of a double-headed arrow's hidden cause, have no
data. Neither networkx nor pydot is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from millrace.analyses.refute.graph import Graph, of
from millrace.run.errors import WrongQuestion

Pairs = list[tuple[str, str]]


def read(source: Any) -> Graph:
    """A GML or DOT text, the path of a file (.gml, .dot, .gv, .txt), a directed networkx graph, pairs (cause, effect), or a
    mapping from causes to their effects. WrongQuestion, naming the place, for what cannot be read."""
    if isinstance(source, Graph):
        return source
    if isinstance(source, Path) or (
        isinstance(source, str) and re.fullmatch(r"[^\n{}\[\]]+\.(gml|dot|gv|txt)", source.strip())
    ):
        path = Path(source)
        if not path.is_file():
            raise WrongQuestion(f"There is no graph file {str(path)!r}.")
        source = path.read_text(encoding="utf-8")
    if isinstance(source, str):
        return _text(source)
    if hasattr(source, "nodes") and hasattr(source, "edges"):
        return _networkx(source)
    if isinstance(source, Mapping):
        edges = [(str(a), str(b)) for a, its in source.items() for b in ([its] if isinstance(its, str) else its)]
        return of(edges, map(str, source))
    return _pairs(source)


def _text(text: str) -> Graph:
    bare = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*", "", text, flags=re.S | re.M).strip()
    if re.match(r"(strict\s+)?(digraph|dag)\b", bare):
        return _dot(bare)
    if re.match(r"(strict\s+)?graph\b[^\[]*\{", bare):
        raise WrongQuestion("The graph is not directed ('graph'): causes and effects need 'digraph' and arrows '->'.")
    if re.search(r"\bgraph\s*\[", bare):
        return _gml(bare)
    start = text.strip()[:40]
    raise WrongQuestion(f"The text {start!r} is neither GML ('graph [ ... ]') nor DOT ('digraph {{ ... }}').")


def _networkx(source: Any) -> Graph:
    if hasattr(source, "is_directed") and not source.is_directed():
        raise WrongQuestion("The networkx graph is not directed: use a DiGraph, from causes to effects.")
    hidden = [n for n, its in source.nodes(data=True) if _is_hidden(its)]
    return of([(str(e[0]), str(e[1])) for e in source.edges], map(str, source.nodes), map(str, hidden))


def _pairs(source: Any) -> Graph:
    try:
        pairs = [tuple(pair) for pair in source]
    except TypeError as e:
        raise WrongQuestion(
            f"A graph is GML, DOT, a networkx graph or pairs (cause, effect), not {type(source).__name__}."
        ) from e
    for pair in pairs:
        if len(pair) != 2 or isinstance(pair[0], bool) or not all(isinstance(n, str | int) for n in pair):
            raise WrongQuestion(f"An edge of the graph is a pair (cause, effect), not {pair!r}.")
    return of([(str(a), str(b)) for a, b in pairs])


def _is_hidden(attributes: Mapping[str, Any]) -> bool:
    seen = str(attributes.get("observed", "yes")).strip('"').lower()
    return seen in ("no", "false", "0") or "latent" in attributes or "unobserved" in attributes


# -- GML -----------------------------------------------------------------------------------------------------------
def _gml(text: str) -> Graph:
    tokens = re.findall(r'"[^"]*"|[\[\]]|[^\s\[\]"]+', text)
    tree, rest = _gml_list(tokens, 0, top=True)
    del rest
    graphs = [v for k, v in tree if k == "graph" and isinstance(v, list)]
    if len(graphs) != 1:
        raise WrongQuestion(f"The GML text holds {len(graphs)} graphs; one is needed.")
    names: dict[str, str] = {}
    hidden: list[str] = []
    edges: Pairs = []
    for key, value in graphs[0]:
        if key == "node":
            its = dict(value)
            if "id" not in its:
                raise WrongQuestion("A node of the GML graph has no id.")
            names[its["id"]] = str(its.get("label", its["id"]))
            hidden += [names[its["id"]]] * _is_hidden(its)
    for key, value in graphs[0]:
        if key == "edge":
            its = dict(value)
            if "source" not in its or "target" not in its:
                raise WrongQuestion("An edge of the GML graph has no source or no target.")
            # Texts written by hand often name an edge's ends by their labels.
            edges.append((names.get(its["source"], its["source"]), names.get(its["target"], its["target"])))
    if ("directed", "0") in graphs[0]:
        raise WrongQuestion("The GML graph says 'directed 0': causes and effects need 'directed 1'.")
    return of(edges, names.values(), hidden)


def _gml_list(tokens: list[str], at: int, top: bool = False) -> tuple[list[tuple[str, Any]], int]:
    found: list[tuple[str, Any]] = []
    while at < len(tokens) and tokens[at] != "]":
        key = tokens[at]
        if at + 1 >= len(tokens) or key == "[":
            raise WrongQuestion(f"The GML text breaks off or has no value at {key!r}.")
        value: Any = tokens[at + 1].strip('"')
        at += 2
        if tokens[at - 1] == "[":
            value, at = _gml_list(tokens, at)
            if at >= len(tokens):
                raise WrongQuestion(f"A bracket after {key!r} in the GML text is not closed.")
            at += 1
        found.append((key, value))
    if top and at < len(tokens):
        raise WrongQuestion("The GML text closes a bracket that was not opened.")
    return found, at


# -- DOT -----------------------------------------------------------------------------------------------------------
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|<->|->|<-|--|[{}\[\];,=]|[^\s{}\[\];,="<>-]+(?:-[^\s{}\[\];,="<>-]+)*|\S')
ARROWS = ("->", "<-", "<->", "--")


def _dot(text: str) -> Graph:
    """digraph name { a; b [observed="no"]; a -> b -> c; a -> {b c}; }, and dagitty's `dag`, with <- and <->."""
    opened = text.find("{")
    if opened < 0 or text.rstrip()[-1] != "}":
        raise WrongQuestion("The DOT text has no { ... }.")
    tokens = TOKEN.findall(text.rstrip()[opened + 1 : -1])
    nodes: dict[str, None] = {}
    hidden: list[str] = []
    edges: Pairs = []
    for statement in _statements(tokens):
        if statement[0] == "subgraph":
            raise WrongQuestion("The DOT text has a subgraph, which is not read: write its edges out.")
        groups, arrows, attributes = _statement(statement)
        if not arrows and len(groups) == 1 and groups[0][0] in ("node", "edge", "graph"):
            continue  # defaults of how things look
        for name in (n for group in groups for n in group):
            nodes.setdefault(name)
        if not arrows and _is_hidden(attributes):
            hidden += [n for group in groups for n in group]
        for left, arrow, right in zip(groups, arrows, groups[1:], strict=False):
            for a, b in ((a, b) for a in left for b in right):
                if arrow == "<->":
                    both = f"{a}<->{b}"
                    hidden.append(both)
                    edges += [(both, a), (both, b)]
                else:
                    edges.append((a, b) if arrow == "->" else (b, a))
    return of(edges, nodes, hidden)


def _statements(tokens: list[str]) -> Iterator[list[str]]:
    """Statements end at ';', and where a name follows a name without an arrow between."""
    now: list[str] = []
    depth = 0
    for token in tokens:
        depth += (token in "[{") - (token in "]}")
        ends = token == ";" and depth == 0
        starts = (
            depth == 0
            and bool(now)
            and not _special(token)
            and (now[-1] == "]" or now[-1] == "}" or not _special(now[-1]))
        )
        # `key = value` outside brackets sets how the graph looks.
        if ends or starts:
            if now:
                yield now
            now = [] if ends else [token]
        else:
            now.append(token)
    if depth:
        raise WrongQuestion("A bracket in the DOT text is not closed.")
    if now:
        yield now


def _special(token: str) -> bool:
    return token in ARROWS or token in ("{", "}", "[", "]", ";", ",", "=")


def _statement(tokens: list[str]) -> tuple[list[list[str]], list[str], dict[str, str]]:
    attributes: dict[str, str] = {}
    if "[" in tokens:
        at = tokens.index("[")
        inner = [t for t in tokens[at + 1 :] if t not in ("[", "]", ",", ";")]
        i = 0
        while i < len(inner):
            has_value = i + 2 < len(inner) and inner[i + 1] == "="
            attributes[inner[i].lower()] = inner[i + 2].strip('"') if has_value else ""
            i += 3 if has_value else 1
        tokens = tokens[:at]
    if "=" in tokens:
        return [["graph"]], [], {}
    groups: list[list[str]] = []
    arrows: list[str] = []
    expects, inside = True, False
    for token in tokens:
        if token in ARROWS:
            if token == "--" or expects:
                raise WrongQuestion(f"The DOT text is not directed or misses a name: {' '.join(tokens)!r}.")
            arrows.append(token)
            expects = True
        elif token == "{":
            groups.append([])
            inside, expects = True, False
        elif token == "}":
            inside = False
        elif token not in (",", ";"):
            name = token[1:-1].replace('\\"', '"') if token.startswith('"') else token
            if inside:
                groups[-1].append(name)
            else:
                groups.append([name])
                expects = False
    if expects or len(groups) != len(arrows) + 1:
        raise WrongQuestion(f"A statement of the DOT text cannot be read: {' '.join(tokens)!r}.")
    return groups, arrows, attributes

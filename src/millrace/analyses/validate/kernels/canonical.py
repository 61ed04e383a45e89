"""When two programs are the same: a canonical form and its digest, about 0.1 ms a program.

Straight-line code (one function, assignments of expressions over names, constants and pure calls, one return) is read as a
dataflow: values are numbered by what they are made of, and the digest is that of the text which they make. Names of locals,
lines that nothing depends on and the order of independent lines do not matter, and no expression is ever written out twice,
so that a long chain of doublings stays small. What runs is the canonical form itself, so a program and its twin can never
get different verdicts. All other code keeps its syntax tree, without comments, layout and docstrings; unless it could look
at its own text, then every character counts.

Pure means: calls nothing but what the library itself defines (which is taken to be pure) and built-in functions that are.
Such programs may share a process; see `cell`. Parses and never runs a program.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

SCHEME = 1
"""Of the digests; a change of what counts as the same program is a new one."""
MOST_CHARACTERS = 1 << 18
"""Parsing takes some 400 bytes for each."""
MOST_DEPTH = 20
"""Calls within calls on one line of a canonical form: Python's own parser gives up at 200."""
MOST_MODULES, MODULE_CHARACTERS = 64, 100
PURE = frozenset((
    "abs", "all", "any", "ascii", "bin", "bool", "bytes", "callable", "chr", "complex", "dict", "divmod", "enumerate", "filter",
    "float", "format", "frozenset", "hash", "hex", "int", "len", "list", "map", "max", "min", "oct", "ord", "pow", "range",
    "repr", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip",
))  # fmt: skip
"""Built-in names that depend on nothing but their arguments."""
DIGEST_BYTES = 16
LOOKS = re.compile(
    r"__|attr|format|inspect|frame|traceback|vars|dir\b|help|eval|exec|compile|globals|locals|ctypes|gc\b|sys\b|warn"
)
"""Who uses none of these cannot see its own text, line numbers or docstrings. Too many words cost a duplicate that runs twice;
one too few, a wrong verdict."""


@dataclass(frozen=True, slots=True)
class Library:
    """What programs see. names: all public names; pure: those that the library defines itself, and that mean one thing only;
    modules: what it is imported as."""

    names: frozenset[str] = frozenset()
    pure: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Program:
    """One candidate, read. digest: equal for equal programs; source: what runs; lane: "batch" when it is proven to call
    nothing but the library. size: nodes of its canonical form. modules: of the standard library, as it imports them."""

    digest: str
    source: str
    entry: str
    lane: str
    size: int
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that is no program: why."""

    reason: str


def read(source: object, entry: str, library: Library) -> Program | Rejected:
    """The canonical form of a candidate's `entry` ("": its last function)."""
    if isinstance(source, bytes):
        try:
            source = source.decode()
        except UnicodeDecodeError as e:
            return Rejected(f"it is not UTF-8 (byte {e.start})")
    if not isinstance(source, str):
        return Rejected(f"its source is a {type(source).__name__}, and no text")
    if len(source) > MOST_CHARACTERS:
        return Rejected(f"it has {len(source):,} characters, and {MOST_CHARACTERS:,} are the most")
    try:
        tree = ast.parse(source)
    except SyntaxError as e:
        return Rejected(f"syntax error: {e.msg} (line {e.lineno})")
    except (ValueError, MemoryError, RecursionError) as e:
        return Rejected(f"it cannot be parsed: {e or 'nested too deeply'}")
    if not entry:
        functions = [s.name for s in tree.body if isinstance(s, ast.FunctionDef)]
        if not functions:
            return Rejected("it defines no function")
        entry = functions[-1]
    try:
        straight = _straight(tree, entry, library)
    except (RecursionError, ValueError):  # deeper, or a number longer, than what Python writes out
        straight = None
    return straight or _general(tree, source, entry)


# -- straight-line code as a dataflow ------------------------------------------------------------------------------
class _NotStraight(Exception):
    """Something that the dataflow does not read."""


def _straight(tree: ast.Module, entry: str, library: Library) -> Program | None:
    function = _only_function(tree, entry, library)
    if function is None:
        return None
    arguments = [a.arg for a in function.args.args]
    if len(set(arguments)) < len(arguments):
        return None
    flow = _Flow(arguments, entry, library)
    try:
        result = flow.read(function.body)
    except _NotStraight:
        return None
    source, size = _written(flow, result)
    return Program(_hex(source.encode(), len(arguments)), source, flow.entry, "batch", size)


def _only_function(tree: ast.Module, entry: str, library: Library) -> ast.FunctionDef | None:
    """The entry, when the program is imports of the library and this one plain function."""
    body = [s for s in tree.body if not _of_library(s, library) and not _is_text(s)]
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].name != entry:
        return None
    function, args = body[0], body[0].args
    plain = not (
        function.decorator_list or args.defaults or args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs
    )
    return function if plain else None


def _of_library(statement: ast.stmt, library: Library) -> bool:
    """An import that changes nothing: its names are there already."""
    return (
        isinstance(statement, ast.ImportFrom)
        and not statement.level
        and statement.module in library.modules
        and all(alias.name == "*" or (alias.asname is None and alias.name in library.pure) for alias in statement.names)
    )


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


class _Flow:
    """Reads statements in order. A value is a number: equal values, which are made by the same text of equal values, have the
    same one, and are made of values with smaller ones. pieces, parts: of each value its text, cut where its parts stand."""

    def __init__(self, arguments: Sequence[str], entry: str, library: Library) -> None:
        self.library, self.itself = library, entry
        self.numbers: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
        self.pieces: list[tuple[str, ...]] = []
        self.parts: list[tuple[int, ...]] = []
        self.arguments = [name for name, _ in zip(_names("a", library.names), arguments, strict=False)]
        self.entry = next(_names("entry", library.names))
        given = zip(arguments, self.arguments, strict=True)
        self.bound = {name: self._value((text,), ()) for name, text in given}

    def read(self, body: Sequence[ast.stmt]) -> int:
        for statement in body[:-1]:
            if _is_text(statement):
                continue
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target, value = statement.targets[0], statement.value
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                target, value = statement.target, statement.value
            else:
                raise _NotStraight
            if not isinstance(target, ast.Name) or target.id in self.library.names or target.id in PURE:
                raise _NotStraight  # a local of that name is unbound, and not the global, before this line
            self.bound[target.id] = self.value(value)
        last = body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            raise _NotStraight
        return self.value(last.value)

    def value(self, e: ast.expr) -> int:
        """The number of an expression's value. Most are names and calls, so these come first."""
        kind = type(e)
        if kind is ast.Name:
            return self.named(e.id)
        if kind is ast.Call:
            return self.called(e)
        if kind is ast.Constant:
            said = repr(e.value)
            if isinstance(e.value, float | complex) and "inf" in said:
                raise _NotStraight  # 1e999 is written so
            return self._value((said,), ())
        if kind is ast.Tuple:
            parts = tuple([self.value(x) for x in e.elts])
            return self._value(("(", *([", "] * (len(parts) - 1)), ",)") if parts else ("()",), parts)
        if kind is ast.UnaryOp:
            return self._value((f"({_UNARY[type(e.op)]}", ")"), (self.value(e.operand),))
        if kind is ast.BinOp and type(e.op) in _BINARY:
            return self._value(("(", f" {_BINARY[type(e.op)]} ", ")"), (self.value(e.left), self.value(e.right)))
        raise _NotStraight

    def named(self, name: str) -> int:
        if name in self.bound:
            return self.bound[name]
        pure = name in self.library.pure or (name in PURE and name not in self.library.names)
        if not pure or name == self.itself:
            raise _NotStraight
        return self._value((name,), ())

    def called(self, e: ast.Call) -> int:
        if type(e.func) is not ast.Name and type(e.func) is not ast.Call:
            raise _NotStraight
        parts, given = [self.value(e.func)], [""] * len(e.args)
        parts += [self.value(a) for a in e.args]  # of a starred one: not straight
        for keyword in e.keywords:
            if keyword.arg is None:
                raise _NotStraight
            given.append(f"{keyword.arg}=")
            parts.append(self.value(keyword.value))
        if not given:
            return self._value(("", "()"), tuple(parts))
        return self._value(("", f"({given[0]}", *[f", {name}" for name in given[1:]], ")"), tuple(parts))

    def _value(self, pieces: tuple[str, ...], parts: tuple[int, ...]) -> int:
        number = self.numbers.setdefault((pieces, parts), len(self.pieces))
        if number == len(self.pieces):
            self.pieces.append(pieces)
            self.parts.append(parts)
        return number


_UNARY: Mapping[type, str] = {ast.USub: "-", ast.UAdd: "+", ast.Not: "not ", ast.Invert: "~"}
_BINARY: Mapping[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.BitAnd: "&",
    ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip


def _written(flow: _Flow, result: int) -> tuple[str, int]:
    """The canonical text, each value that is used more than once, or made of too many others, on a line of its own; and how
    many values there are."""
    order, uses = _order(flow.parts, result)
    texts, depths = [""] * len(uses), [0] * len(uses)
    lines, names = [], _names("v", flow.library.names)
    for number in order:
        pieces, parts = flow.pieces[number], flow.parts[number]
        text, depth = pieces[0], 0
        for part, piece in zip(parts, pieces[1:], strict=True):
            text += texts[part] + piece
            if depths[part] >= depth:
                depth = depths[part] + 1
        if parts and (uses[number] > 1 or depth > MOST_DEPTH) and number != result:
            name, depth = next(names), 0
            lines.append(f"    {name} = {text}")
            text = name
        texts[number], depths[number] = text, depth
    head = f"def {flow.entry}({', '.join(flow.arguments)}):"
    return "\n".join([head, *lines, f"    return {texts[result]}", ""]), len(order)


def _order(parts: Sequence[tuple[int, ...]], result: int) -> tuple[list[int], list[int]]:
    """Values that the result depends on, parts first, in an order that depends on nothing else; and how often each is used."""
    order: list[int] = []
    uses = [0] * len(parts)
    uses[result] = 1
    stack = [(result, iter(parts[result]))]
    while stack:
        number, coming = stack[-1]
        for part in coming:
            uses[part] += 1
            if uses[part] == 1:
                if parts[part]:
                    stack.append((part, iter(parts[part])))
                    break
                order.append(part)
        else:
            order.append(number)
            stack.pop()
    return order, uses


def _names(first: str, taken: frozenset[str]) -> Iterator[str]:
    """`first` and a number, none of them a name of the library."""
    return (name for name in map(f"{first}{{}}".format, count()) if name not in taken)


# -- all other code ------------------------------------------------------------------------------------------------
def _general(tree: ast.Module, source: str, entry: str) -> Program | Rejected:
    """By its syntax tree without layout, comments and docstrings. What runs is the program as it came."""
    defined, size = False, 0
    for node in ast.walk(tree):
        size += 1
        defined = defined or _defines(node, entry)
    if not defined:
        return Rejected(f"it defines no {entry!r}")
    modules = modules_of(tree)
    content = source
    if not LOOKS.search(source):
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and len(body) > 1 and _is_text(body[0]) and isinstance(body[0].value.value, str):
                del body[0]  # a docstring
        try:
            content = ast.dump(tree)
        except (RecursionError, ValueError):  # as above: then every character counts
            content = source
    return Program(_hex(content.encode(), entry), source, entry, "candidate", size, modules)


def modules_of(tree: ast.Module, *, everything: bool = False) -> tuple[str, ...]:
    """Names that a program imports from the standard library, or from `everything`, with what it takes from them (which may be
    a module, too): "os.path", "re.match"."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}".removesuffix(".*") for alias in node.names)
    known = (n for n in sorted(found) if everything or n.partition(".")[0] in sys.stdlib_module_names)
    return tuple(n for n in known if len(n) <= MODULE_CHARACTERS)[:MOST_MODULES]


def _defines(node: ast.AST, entry: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name == entry
    if isinstance(node, ast.ImportFrom | ast.Import):
        return any((alias.asname or alias.name) in (entry, "*") for alias in node.names)
    return isinstance(node, ast.Name) and node.id == entry and isinstance(node.ctx, ast.Store)


def _hex(content: bytes, about: object) -> str:
    return hashlib.blake2b(content + f"\0{about}\0{SCHEME}".encode(), digest_size=DIGEST_BYTES).hexdigest()

"""What code a function comes from, as a digest: the part of a key that changes when the program changes.

An installed package counts by its version; a project module (and millrace itself) by its source and that of the
project modules that it imports, with the versions of the packages that these import; a function of `__main__` or a
notebook by its byte code, its closure, and the globals that it really reads. What was changed is never found under
an old key; a comment in a project module costs a recomputation, which is the cheap side to err on.
"""

from __future__ import annotations

import ast
import dis
import functools
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from millrace.run.canonical import Unkeyable, canonical, digest

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


class CodeDigests:
    """Digests of functions, classes and modules, remembered for the life of one Run. `own`: millrace's modules count by
    their source and what they reach; else they do not count."""

    def __init__(self, own: bool = True) -> None:
        self._own = own
        self._of: dict[int, tuple[Any, str]] = {}
        self._modules: dict[str, str] = {}
        self._busy: dict[int, int] = {}
        stdlib = {sysconfig.get_path(p) for p in ("stdlib", "platstdlib")}
        self._stdlib = tuple(str(Path(p)) + "/" for p in stdlib if p)
        self._distributions: dict[str, str] = {}

    def __call__(self, thing: Any) -> str:
        """Digest of a callable or module; Unkeyable when it depends on something without identity."""
        known = self._of.get(id(thing))
        if known is not None:
            return known[1]
        if id(thing) in self._busy:  # recursion: its place in the walk stands for it
            return f"cycle{self._busy[id(thing)]}"
        self._busy[id(thing)] = len(self._busy)
        try:
            said = self._digest(thing)
        finally:
            del self._busy[id(thing)]
        if not self._busy:  # inside a cycle a digest depends on where the walk began
            self._of[id(thing)] = (thing, said)
        return said

    def _digest(self, thing: Any) -> str:
        if isinstance(thing, types.ModuleType):
            return self.module(thing.__name__)
        if isinstance(thing, functools.partial):
            return digest(b"partial", canonical((thing.func, thing.args, thing.keywords), self))
        if isinstance(thing, types.MethodType):
            return digest(b"method", canonical((thing.__func__, thing.__self__), self))
        body = getattr(thing, "py_func", None)  # a numba dispatcher
        if isinstance(body, types.FunctionType):
            return digest(b"compiled", self(body).encode(), self.module("numba").encode())
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, types.BuiltinFunctionType) or not hasattr(thing, "__dict__"):
            owner = getattr(thing, "__self__", None)
            if owner is not None and not isinstance(owner, types.ModuleType | type):
                return digest(b"method", canonical((thing.__name__, owner), self))
            return self._named(thing)
        if callable(thing) and hasattr(thing, "__name__"):
            return self._named(thing)  # a ufunc, a compiled function
        return digest(b"instance", canonical(thing, self))

    def _named(self, thing: Any) -> str:
        name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
        if name is None:
            raise Unkeyable(f"a {type(thing).__module__}.{type(thing).__qualname__}")
        module = getattr(thing, "__module__", None) or type(thing).__module__
        return digest(b"named", name.encode(), self.module(module).encode())

    # -- functions and classes ---------------------------------------------------------------------------------
    def _function(self, f: types.FunctionType) -> str:
        own = [f.__module__ or "", f.__qualname__]
        inner = [c.cell_contents for c in f.__closure__ or () if _filled(c)]
        state = canonical((f.__defaults__, f.__kwdefaults__, inner), self)
        if self._origin(f.__module__) != "live":
            where = f.__code__.co_firstlineno if "<" in f.__qualname__ else 0
            named = digest(*(p.encode() for p in own), b"%d" % where, self.module(f.__module__).encode())
            return digest(b"function", named.encode(), state)
        reads = [(name, self._global(f, name)) for name in sorted(_globals_read(f.__code__))]
        imports = [self.module(name) for name in sorted(_imports_made(f.__code__))]
        return digest(b"live", f.__name__.encode(), _code_bytes(f.__code__), state, canonical((reads, imports)))

    def _global(self, f: types.FunctionType, name: str) -> str:
        if name not in f.__globals__:
            return "builtin or missing"
        try:
            return digest(canonical(f.__globals__[name], self))
        except Unkeyable as e:
            raise Unkeyable(f"the global {name!r}, {e}") from None

    def _class(self, c: type) -> str:
        if self._origin(c.__module__) != "live":
            return digest(b"class", c.__qualname__.encode(), self.module(c.__module__).encode())
        skip = {"__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__firstlineno__"}
        members = {}
        for name, member in vars(c).items():
            if name in skip or isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                continue
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            elif isinstance(member, property):
                member = (member.fget, member.fset, member.fdel)
            members[name] = member
        return digest(b"class", c.__qualname__.encode(), canonical((list(c.__bases__), members), self))

    # -- modules -----------------------------------------------------------------------------------------------
    def module(self, name: str) -> str:
        """Digest of a module: a version, or the source of a project module with all that it reaches."""
        if name not in self._modules:
            reached: dict[str, str] = {}
            self._reach(name, reached)
            self._modules[name] = digest(canonical(reached))
        return self._modules[name]

    def _reach(self, name: str, reached: dict[str, str]) -> None:
        origin = self._origin(name)
        if origin == "stdlib":
            reached["python"] = PYTHON
        elif origin == "installed":
            top = name.partition(".")[0]
            if top not in reached:
                reached[top] = self._version(top)
        elif origin == "project" and name not in reached and (self._own or name.partition(".")[0] != "millrace"):
            source = Path(_file_of(name) or "").read_bytes()
            reached[name] = digest(source)
            for imported in _imports_in(source, name, _is_package(name)):
                self._reach(imported, reached)

    def _origin(self, name: str | None) -> str:
        """live (no module file to go by), stdlib, installed or project."""
        top = (name or "").partition(".")[0]
        if not top or top in ("__main__", "__mp_main__"):
            return "live"
        if top in sys.stdlib_module_names:
            return "stdlib"
        if _is_installed(top):
            return "installed"
        path = _file_of(name or "")
        if path is None:
            return "installed" if _file_of(top) is not None or top in sys.builtin_module_names else "live"
        if top == "millrace":
            return "project"
        if "site-packages" in path or "dist-packages" in path or not path.endswith(".py"):
            return "installed"
        return "stdlib" if path.startswith(self._stdlib) else "project"

    def packages(self) -> tuple[str, ...]:
        """Packages, by the names that pip knows, that what was digested so far reaches and whose version it counts by."""
        return tuple(sorted({name for top in self._distributions for name in _packages_of(top)}))

    def _version(self, top: str) -> str:
        if top not in self._distributions:
            self._distributions[top] = _version(top)
        return self._distributions[top]


def packages(things: Iterable[Any]) -> tuple[str, ...]:
    """The installed packages that these callables, or modules by name, come from and reach: what must be the same where
    they run. What millrace itself reaches is left out: not all of it is needed everywhere. What has no identity tells what
    was reached before that."""
    digests = CodeDigests(own=False)
    for thing in things:
        try:
            digests.module(thing) if isinstance(thing, str) else digests(thing)
        except Unkeyable:
            continue
    return digests.packages()


def _packages_of(top: str) -> list[str]:
    try:
        return [importlib.metadata.distribution(top).name]
    except importlib.metadata.PackageNotFoundError:
        return sorted(set(_owners().get(top, [top])))


def _version(top: str) -> str:
    """By the metadata alone: what a module says of itself is known only once it is imported, and keys must not depend
    on that. What was installed without metadata counts by the file that it begins with."""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        pass
    owners = _owners().get(top, [])
    if owners:
        return ",".join(f"{o}=={importlib.metadata.version(o)}" for o in sorted(set(owners)))
    path = _file_of(top)
    return digest(Path(path).read_bytes()) if path is not None else "no version"


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    """Packages that are called otherwise than what they install."""
    return importlib.metadata.packages_distributions()


@functools.cache
def _spec(name: str) -> Any:
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__spec__", None) is not None:
        return module.__spec__
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # a name inside a module, or an optional package
        return None


def _is_installed(top: str) -> bool:
    """By the package's own place: to look for what is inside of it would import it, and torch for a name of captum."""
    path = _file_of(top) or ""
    return top != "millrace" and ("site-packages" in path or "dist-packages" in path)


def _file_of(name: str) -> str | None:
    spec = _spec(name)
    return spec.origin if spec is not None and spec.origin not in (None, "built-in", "frozen") else None


def _is_package(name: str) -> bool:
    spec = _spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@functools.lru_cache(1024)
def _imports_in(source: bytes, module: str, package: bool) -> tuple[str, ...]:
    """Modules that a source imports anywhere, relative ones resolved, sorted."""
    found: set[str] = set()
    for node in _import_statements(source):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        else:
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = parts[: len(parts) - node.level + (1 if package else 0)]
                base = ".".join([*up, base] if base else up)
            found.add(base)
            if not _is_installed(base.partition(".")[0]):
                found |= {f"{base}.{a.name}" for a in node.names if _file_of(f"{base}.{a.name}") is not None}
    return tuple(sorted(found - {"", "__future__"}))


def _import_statements(source: bytes) -> list[ast.Import | ast.ImportFrom]:
    """Every import of a source. Only what looks like one is parsed, which takes a tenth of the time; where something
    that looks like one is none (it stands in a text), the whole source is."""
    joined = source.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    said = [m[1].strip() for m in _IMPORT.finditer(joined)]
    try:
        nodes = list(ast.parse(b"\n".join(said)).body)
    except SyntaxError:
        nodes = list(ast.walk(ast.parse(source)))  # type: ignore[arg-type]
    return [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]


_IMPORT = re.compile(
    rb"(?:^|[;:])[ \t]*((?:from[ \t]*[.\w]+[ \t]*import\b[ \t]*(?:\([^)]*\)|[^\n;#(]*))|(?:import[ \t]+[\w.][^\n;#:]*))",
    re.M,
)


def _codes(code: types.CodeType) -> list[types.CodeType]:
    out = [code]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            out += _codes(const)
    return out


def _globals_read(code: types.CodeType) -> set[str]:
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    return {str(i.argval) for c in _codes(code) for i in dis.get_instructions(c) if i.opname in loads}


def _imports_made(code: types.CodeType) -> set[str]:
    return {str(i.argval) for c in _codes(code) for i in dis.get_instructions(c) if i.opname == "IMPORT_NAME"}


def _code_bytes(code: types.CodeType) -> bytes:
    """Byte code without file names and line numbers, so that moving a function does not change its key."""
    consts = [_code_bytes(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
    head = (PYTHON, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return canonical((head, code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars))


def _constant(value: Any) -> bytes:
    return b"..." if value is Ellipsis else canonical(value)


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True

"""Keys: equal exactly when the same code is asked the same question, in every process, under every version."""

import ast
import dataclasses
import datetime
import importlib.util
import json
import subprocess
import sys
import sysconfig
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.run.canonical import Unkeyable, canonical
from millrace.run.code import CodeDigests, _import_statements
from millrace.run.keys import Keys, content_key
from millrace.run.task import Ref

GOLDEN = Path(__file__).with_name("golden_keys.json")


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float


def values() -> dict[str, object]:
    return {
        "none": None, "true": True, "one": 1, "one point zero": 1.0, "minus zero": -0.0, "nan": float("nan"),
        "large": 2**80, "text": "grün", "bytes": b"\x00\xff", "list": [1, "a", None], "tuple": (1, "a", None),
        "mapping": {"b": 1, "a": [2.5]}, "set": {3, 1, 2}, "point": Point(1, 2.0), "date": datetime.date(2024, 2, 29),
        "floats": np.arange(6.0).reshape(2, 3), "ints": np.arange(3, dtype=np.int32), "scalar": np.float64(1.0),
        "ref": Ref("ab" * 20, "dir:/somewhere", 10), "path": Path("a/b"), "complex": 1 + 2j,
    }  # fmt: skip


def test_the_scheme_is_pinned_by_a_golden_file():
    pinned = {name: value for name, value in values().items() if name != "point"}  # its module's name depends on pytest
    found = {name: content_key(value) for name, value in pinned.items()}
    keys = Keys(7, code=lambda fn: "code of " + fn.__name__)  # type: ignore[arg-type]
    found |= {f"f({name})": keys.of(len, (value, 3)) for name, value in pinned.items()}
    assert found == json.loads(GOLDEN.read_text())


def test_all_golden_values_differ():
    found = [content_key(v) for v in values().values()]
    assert len(set(found)) == len(found)


def test_a_key_is_the_same_in_another_process_with_another_hash_seed():
    program = textwrap.dedent("""
        from millrace.run.keys import Keys, content_key
        import json.decoder
        def f(x, names={"a", "b", "c"}): return [x for _ in names]
        print(content_key({"b": {3, "x"}, "a": frozenset("hello")}), Keys(1).of(f, (1, {"k"})), Keys(1).of(json.dumps, (2,)))
    """)
    told = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "424242")
    }
    assert len(told) == 1


def test_order_of_mappings_and_sets_does_not_matter():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({1, 2, 3}) == content_key({3, 2, 1})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equal in type and in every bit."""
    return repr(a) == repr(b) and type(a) is type(b)


@settings(max_examples=300, deadline=None)
@given(PLAIN, PLAIN)
def test_canonical_bytes_are_equal_exactly_for_the_same_value(a, b):
    if same(a, b):
        assert canonical(a) == canonical(b)
    elif canonical(a) == canonical(b):
        assert a == b  # mappings in another order


def write_module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def key_in_a_project(folder: Path, seed: int = 0) -> str:
    program = f"from millrace.run.keys import Keys; import work; print(Keys({seed}).of(work.f, (1,)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_change_of_a_project_module_or_of_one_that_it_imports_changes_the_key(tmp_path):
    write_module(tmp_path, "deeper", "SCALE = 2\n")
    write_module(tmp_path, "work", "from deeper import SCALE\ndef f(x): return SCALE * x\n")
    write_module(tmp_path, "other", "A = 1\n")
    first = key_in_a_project(tmp_path)
    write_module(tmp_path, "other", "A = 2\n")
    assert key_in_a_project(tmp_path) == first
    assert key_in_a_project(tmp_path, seed=1) != first
    write_module(tmp_path, "deeper", "SCALE = 3\n")
    second = key_in_a_project(tmp_path)
    write_module(tmp_path, "work", "from deeper import SCALE\ndef f(x): return SCALE + x\n")
    assert len({first, second, key_in_a_project(tmp_path)}) == 3


def key_in_main(body: str) -> str:
    program = f"from millrace.run.keys import Keys\n{textwrap.dedent(body)}\nprint(Keys(0).of(f, (1,)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_function_of_main_counts_by_its_code_and_by_what_it_reads():
    plain = key_in_main("A = 1\nB = 2\ndef g(x): return x + A\ndef f(x): return g(x)")
    assert plain == key_in_main("\n\n# moved\nA = 1\nB = 3\ndef g(x): return x + A\ndef f(x): return g(x)")
    assert plain != key_in_main("A = 2\nB = 2\ndef g(x): return x + A\ndef f(x): return g(x)")
    assert plain != key_in_main("A = 1\nB = 2\ndef g(x): return x - A\ndef f(x): return g(x)")


def test_closures_defaults_partials_and_methods_enter_the_key():
    keys = Keys(0)

    def made(n, k=1):
        return lambda x, k=k: x + n

    class Scaled:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x * self.by

    found = [keys.of(fn, (1,)) for fn in (made(1), made(2), made(1, 5), Scaled(1), Scaled(2), Scaled(1).__call__)]
    assert len(set(found)) == len(found)
    assert keys.of(made(1), (1,)) == found[0]
    assert Keys(0).of(Scaled(1), (1,)) == found[3]


def test_recursive_functions_have_a_key():
    code = CodeDigests()

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    assert Keys(0, code).of(even, (4,)) != Keys(0, code).of(odd, (4,))


@pytest.mark.parametrize("live", [threading.Lock(), open, (i for i in range(3))], ids=repr)
def test_what_has_no_identity_is_unkeyable(live):
    if live is open:
        with Path(__file__).open() as file, pytest.raises(Unkeyable):
            Keys(0).of(len, (file,))
        return
    with pytest.raises(Unkeyable):
        Keys(0).of(len, (live,))


def test_a_global_without_identity_makes_a_function_unkeyable_and_is_named():
    scope: dict[str, object] = {"lock": threading.Lock(), "__name__": "__main__"}
    exec("def f(x):\n    with lock: return x", scope)
    with pytest.raises(Unkeyable, match="lock"):
        Keys(0).of(scope["f"], (1,))  # type: ignore[arg-type]


def test_fitted_models_have_a_key_by_their_content():
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), rng.standard_normal(50)

    def fitted(seed):
        return MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, random_state=seed, tol=10.0, n_iter_no_change=1).fit(
            x, y
        )

    keys = Keys(0)
    assert keys.of(len, (fitted(0),)) == keys.of(len, (fitted(0),)) != keys.of(len, (fitted(1),))
    assert keys.of(len, (Ridge(1.0).fit(x, y),)) != keys.of(len, (Ridge(2.0).fit(x, y),))
    # a generator at another place of its stream is another argument
    early, late = np.random.default_rng(3), np.random.default_rng(3)
    late.random()
    assert keys.of(len, (early,)) != keys.of(len, (late,))


def test_arrays_count_by_type_shape_and_bytes():
    a = np.arange(6.0)
    same_bytes = [a, a.reshape(2, 3), a.view(np.int64), a.astype(">f8")]
    assert len({content_key(v) for v in same_bytes}) == 4
    assert content_key(a[::2]) == content_key(np.ascontiguousarray(a[::2]))
    assert content_key(np.asfortranarray(a.reshape(2, 3))) == content_key(a.reshape(2, 3))
    with pytest.raises(Unkeyable):
        content_key(np.array([object()]))


def test_tables_count_by_content_not_by_library_or_chunks():
    import polars
    import pyarrow

    one = pyarrow.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    two = pyarrow.concat_tables([one.slice(0, 1), one.slice(1)])
    assert content_key(one) == content_key(two)
    assert content_key(one) != content_key(one.slice(0, 2))
    assert content_key(polars.DataFrame({"a": [1]})) == content_key(polars.DataFrame({"a": [1]}))


def test_a_digest_does_not_depend_on_what_has_been_imported_meanwhile(tmp_path):
    (tmp_path / "project.py").write_text("def f():\n    import sklearn, vl_convert, PIL\n")
    program = textwrap.dedent("""
        from millrace.run.code import CodeDigests
        import project
        before = CodeDigests()(project.f)
        import sklearn, vl_convert
        print(before == CodeDigests()(project.f))
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_no_import_of_a_source_is_overlooked():
    def of(nodes):
        return {ast.dump(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)}

    folders = [
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("stdlib"), "asyncio"),
        Path(np.__file__).parent,
    ]
    sources = [path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py"))]
    sources += [b"if x: import a\n", b"from . import (a,  # (not b)\n c)\n", b"a = 1; from b import \\\n  c\n"]
    assert len(sources) > 150
    for source in sources:
        assert of(_import_statements(source)) >= of(ast.walk(ast.parse(source)))


def test_a_key_imports_nothing_of_what_a_module_names(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text("from sklearn.svm import SVC\n\ndef work(x):\n    return SVC, x\n")
    code = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from millrace.run.code import CodeDigests\n"
        "print(len(CodeDigests().module('asking')), 'sklearn' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["40", "False"]


@pytest.mark.skipif(
    not importlib.util.find_spec("torch"), reason="torch, some gigabytes, is no part of the set-up: pip install torch"
)
def test_a_tensor_is_its_values_type_and_shape() -> None:
    import torch

    def key(value: object) -> str:
        return content_key([value])

    whole = torch.arange(6.0)
    assert key(whole) == key(torch.arange(6.0)) == key(whole.clone())
    assert key(whole.reshape(2, 3).T) == key(whole.reshape(2, 3).T.contiguous())
    different = [whole, whole.double(), whole.reshape(2, 3), whole + 1e-6, torch.nn.Parameter(whole), whole.numpy()]
    assert len({key(value) for value in different}) == len(different)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    assert Keys(0).of(len, (network,)) == Keys(0).of(len, (network,))
    with torch.no_grad():
        changed = Keys(0).of(len, (network,))
        network[0].bias += 1.0
    assert Keys(0).of(len, (network,)) != changed
    with pytest.raises(Unkeyable, match="without values"):
        key(torch.zeros(3, device="meta"))

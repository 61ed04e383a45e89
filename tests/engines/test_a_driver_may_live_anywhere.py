"""Scripts without a guard, stdin, `-c`, threads, notebooks, closed streams, forks, Ctrl-C: the pool works in all of them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from millrace.testing.toys import until

BEGIN = """
import os, sys, threading, time
from millrace.engines.processes import ProcessEngine
from millrace.run.task import Task
class Point:
    def __init__(self, x): self.x = x
K = 7
def helper(x): return x * K
def fn(p): return Point(helper(p.x))
"""
USE = """
e = ProcessEngine(2)
r = [o for o in e.stream(Task(fn, (Point(i),), str(i)) for i in range(50))]
assert sorted(o.value.x for o in r) == [7 * i for i in range(50)] and type(r[0].value) is Point, r[0]
pids = [e._pool.server.process.pid, *e.worker_pids()]
assert len(pids) == 3
e.close()
assert not [p for p in pids if os.path.exists(f"/proc/{p}")]
print("fine")
"""


def run(*command: str, stdin: str | None = None, **options: object) -> str:
    """Standard output of a driver that must end well."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "driver.py"
    path.write_text(BEGIN + USE)
    return path


def test_a_script_without_a_main_guard(script: Path) -> None:
    assert run(sys.executable, str(script)) == "fine\n"


def test_a_script_from_standard_input() -> None:
    assert run(sys.executable, "-", stdin=BEGIN + USE) == "fine\n"


def test_a_command() -> None:
    assert run(sys.executable, "-c", BEGIN + USE) == "fine\n"


def test_a_driver_with_closed_standard_streams(script: Path) -> None:
    assert run("sh", "-c", f"{sys.executable} {script} <&-") == "fine\n"
    assert run("sh", "-c", f"{sys.executable} {script} <&- 2>&-") == "fine\n"
    run("sh", "-c", f"{sys.executable} {script} <&- >&- 2>&-")


def test_a_thread_that_ended_before_the_pool_is_used(tmp_path: Path) -> None:
    made = """
    out = []
    t = threading.Thread(target=lambda: out.append(ProcessEngine(2))); t.start(); t.join()
    for _ in range(3): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    time.sleep(0.2)
    """
    text = BEGIN + textwrap.dedent(made) + USE.replace("e = ProcessEngine(2)", "e = out[0]")
    assert run(sys.executable, "-c", text) == "fine\n"


def test_a_thread_that_is_not_the_main_one() -> None:
    text = (
        BEGIN
        + "def work():\n"
        + textwrap.indent(USE, "    ")
        + "t = threading.Thread(target=work); t.start(); t.join()\n"
    )
    assert run(sys.executable, "-c", text) == "fine\n"


@pytest.mark.parametrize("tick", [0.0, 0.2])
def test_a_fork_of_the_driver_leaves_the_pool_to_the_parent(tick: float) -> None:
    use = """
    e = ProcessEngine(2)
    s = e.stream(Task(fn, (Point(i),), str(i)) for i in range(50)); next(s); time.sleep(TICK)
    pid = os.fork()
    if not pid:
        try: list(s)
        except ValueError as x: print("refused", "forked" in str(x), flush=True)
        e.wake(); e.close()
        own = ProcessEngine(1)
        print([o.value.x for o in own.stream(iter([Task(fn, (Point(1),), "k")]))], flush=True)
        own.close()
        os._exit(0)
    os.waitpid(pid, 0)
    print("left", len(list(s)))
    e.close()
    """
    text = BEGIN + textwrap.dedent(use).replace("TICK", str(tick))
    assert run(sys.executable, "-c", text) == "refused True\n[7]\nleft 49\n"


def test_ctrl_c_is_the_drivers_alone() -> None:
    use = """
    import signal
    e = ProcessEngine(2)
    list(e.stream(iter([Task(fn, (Point(1),), "k")])))
    before = e.worker_pids()
    def ring(driver):
        if driver: os.killpg(driver, signal.SIGINT)
        time.sleep(600)
    try: list(e.stream(Task(ring, (0 if i else os.getpid(),), str(i)) for i in range(4)))
    except KeyboardInterrupt: print("interrupted", end=" ")
    print(len(list(e.stream(Task(fn, (Point(i),), str(i)) for i in range(5)))))
    try: os.killpg(0, signal.SIGINT); time.sleep(60)
    except KeyboardInterrupt: pass
    before = e.worker_pids()
    list(e.stream(Task(fn, (Point(i),), str(i)) for i in range(5)))
    print(e.worker_pids() == before)
    e.close()
    """
    out = run(sys.executable, "-c", BEGIN + textwrap.dedent(use), start_new_session=True)
    assert out == "interrupted 5\nTrue\n"


def test_a_driver_that_forgets_to_close() -> None:
    use = "e = ProcessEngine(2); print(e._pool.server.process.pid); list(e.stream(iter([Task(fn, (Point(1),), 'k')])))"
    pid = int(run(sys.executable, "-W", "error", "-c", BEGIN + use))
    assert not Path(f"/proc/{pid}").exists()
    use = "for o in ProcessEngine(2).stream(Task(fn, (Point(i),), str(i)) for i in range(9)): sys.exit(0)"
    assert run(sys.executable, "-W", "error", "-c", BEGIN + use) == ""


def test_modules_and_the_working_directory_are_those_of_now(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("import os\ndef where(x): return os.getcwd(), x\n")
    use = f"""
    e = ProcessEngine(1)
    assert [o.value.x for o in e.stream(iter([Task(fn, (Point(1),), "k")]))] == [7]
    sys.path.append({str(tmp_path)!r}); os.chdir({str(tmp_path)!r})
    import later
    print([o.value for o in e.stream(iter([Task(later.where, (1,), "k")]))] == [({str(tmp_path)!r}, 1)])
    K = 8
    print([o.value.x for o in e.stream(iter([Task(fn, (Point(1),), "k")]))])
    e.close()
    """
    assert run(sys.executable, "-c", BEGIN + textwrap.dedent(use)) == "True\n[8]\n"


def test_a_preload_that_fails_or_starts_threads_says_which(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    )
    for module, word in (("no_such_module", "ModuleNotFoundError"), ("threaded", "started 1 thread")):
        use = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        from millrace.run.errors import NotSupported
        e = ProcessEngine(1, preload=("json", {module!r}))
        for _ in range(2):
            try: list(e.stream(iter([Task(fn, (Point(1),), "k")])))
            except NotSupported as x: print({module!r} in str(x), {word!r} in str(x))
        e.close()
        """
        assert run(sys.executable, "-c", BEGIN + textwrap.dedent(use)) == "True True\nTrue True\n"


def test_workers_compute_with_one_thread_and_the_environment_that_was_given() -> None:
    use = """
    from millrace.engines.processes.client import WORKER_ENVIRONMENT
    def look():
        own = {k: os.environ.get(k) for k in WORKER_ENVIRONMENT}
        return own == WORKER_ENVIRONMENT, os.environ["MINE"], len(os.listdir("/proc/self/task")), os.getcwd()
    e = ProcessEngine(1, preload=("numpy",), environment={"MINE": "yes"})
    def threads():
        import numpy
        (numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum()
        return look()
    print([o.value for o in e.stream(iter([Task(threads, (), "k")]))] == [(True, "yes", 1, os.getcwd())])
    e.close()
    """
    assert run(sys.executable, "-c", BEGIN + textwrap.dedent(use)) == "True\n"


def test_what_tasks_print_comes_out_by_the_line() -> None:
    use = """
    def say(x): print("said", x)
    e = ProcessEngine(1); list(e.stream(Task(say, (i,), str(i)) for i in range(3))); e.close()
    """
    assert run(sys.executable, "-c", BEGIN + textwrap.dedent(use)) == "said 0\nsaid 1\nsaid 2\n"


@pytest.mark.slow
def test_a_notebook() -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        out: list[str] = []

        def cell(text: str) -> str:
            out.clear()
            hook = lambda m: out.append(m["content"].get("text") or "\n".join(m["content"].get("traceback", [])))  # noqa: E731
            reply = client.execute_interactive(text, timeout=60, output_hook=hook)
            assert reply["content"]["status"] == "ok", "".join(out)
            return "".join(out)

        cell(BEGIN)
        assert cell(USE) == "fine\n"
        cell("e = ProcessEngine(2)")
        use = "print(sorted(o.value.x for o in e.stream(Task(fn, (Point(i),), str(i)) for i in range(3))))"
        assert cell(use) == "[0, 7, 14]\n"
        cell("K = 2")
        assert cell(use) == "[0, 2, 4]\n"
        pid = int(cell("print(e._pool.server.process.pid)"))
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    until(lambda: not _runs(pid))  # the fork server ends with its notebook


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_under_pytest_with_functions_of_the_test_module() -> None:
    from millrace.engines.processes import ProcessEngine
    from millrace.run.task import Task

    engine = ProcessEngine(1)
    try:
        assert [o.value for o in engine.stream(iter([Task(_double, (os.getpid(),), "k")]))] == [2 * os.getpid()]
    finally:
        engine.close()


def _double(x: int) -> int:
    return 2 * x

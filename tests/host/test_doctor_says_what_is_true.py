"""`doctor` agrees with the functions that it asks, is quick, and its advice can be pasted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from machines import GIB, machine

from millrace import settings
from millrace.host import cores, gpu, slots
from millrace.host.doctor import Doctor, Facts, advise, doctor
from millrace.host.extras import extras, requirements
from millrace.host.instances import Instance, instances
from millrace.host.speed import disk_speed, single_core_reference
from millrace.run.units import parse_bytes

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Doctor:
    files = {
        "sys/fs/cgroup/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory.stat": f"anon {GIB}\ninactive_file {GIB}\nactive_file 0\n",
        "sys/fs/cgroup/cpu.stat": "nr_periods 100\nnr_throttled 30\nthrottled_usec 9000000\n",
        "proc/self/limits": f"{'Max address space':<26}{8 * GIB:<21}unlimited            bytes\n",
    }
    root = machine(tmp_path_factory.mktemp("machine"), files=files)
    return doctor(tmp_path_factory.mktemp("scratch"), root)


@pytest.fixture(scope="module")
def facts(container: Doctor) -> Facts:
    return container.facts


def test_on_a_container_with_2_of_64_cores_it_says_2(container: Doctor) -> None:
    assert container.facts.slots == 2
    assert container.facts.cores.logical == 64
    assert any(line.startswith("Cores       2 (64 logical") for line in container.lines())
    assert container.as_dict()["slots"] == 2
    assert container.facts.memory.available_bytes == 3 * GIB


def test_advice_can_be_pasted_and_is_what_was_found(container: Doctor, tmp_path: Path) -> None:
    pasted = [advice for advice in container.advice if advice.into == "millrace.toml"]
    (tmp_path / "millrace.toml").write_text("\n".join(f"# {a.why}\n{a.line}" for a in pasted))
    loaded = settings.load(environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert loaded.cores == 2
    assert loaded.memory == 3 * GIB * 3 // 4
    assert loaded.scratch == container.facts.scratch
    for name in ("cores", "memory", "scratch"):
        assert loaded.origin(name).startswith("file ")
    text = "\n".join(container.lines()).partition("To paste into millrace.toml:\n")[2].partition("\n\n")[0]
    assert set(tomllib.loads(text)) == {"cores", "memory", "scratch"}


def test_the_shell_lines_run(container: Doctor) -> None:
    shell = [advice.line for advice in container.advice if advice.into == "shell"]
    assert shell or all(library.threads == 1 for library in container.facts.blas)
    subprocess.run(["sh", "-eu", "-c", "\n".join(shell)], check=True)


def test_strain_and_ceilings_become_advice(container: Doctor) -> None:
    told = " ".join(advice.why for advice in container.advice)
    assert "Throttled in 30% of all periods" in told
    assert "`ulimit -v` is 8GiB" in told


def test_advice_is_pure(facts: Facts) -> None:
    assert advise(facts) == advise(facts)


def test_json_holds_every_fact(container: Doctor) -> None:
    told = json.loads(json.dumps(container.as_dict(), allow_nan=False))
    assert set(told) == {*Facts.__dataclass_fields__, "advice"}
    assert told["memory"]["limit_bytes"] == 4 * GIB
    assert told["pressure"] is None


def test_a_refused_scratch_is_said_and_is_no_failure(tmp_path: Path) -> None:
    mount = f"99 27 0:44 / {tmp_path} rw shared:1 - tmpfs tmpfs rw"
    found = doctor(tmp_path / "s", machine(tmp_path / "m", mounts=(mount,)))
    assert found.facts.scratch is None
    assert found.facts.disk_speed is None
    assert any("tmpfs, which is memory" in line for line in found.lines())


def test_this_machine_is_examined() -> None:
    found = doctor()
    assert found.facts.slots == slots(cores())
    assert all(isinstance(line, str) and "None" not in line for line in found.lines())


def test_extras_are_those_of_the_project_file_and_installed_ones_are_seen() -> None:
    declared = tomllib.loads(_PROJECT.read_text())["project"]["optional-dependencies"]
    found = extras()
    assert found is not None
    assert {extra.name for extra in found} == set(declared) - {"all"}
    whole = requirements(
        [f'{need}; extra == "{name}"' for name, needs in declared.items() for need in needs], "millrace"
    )
    for extra in found:
        assert {package.name for package in extra.packages} == {name for name, _ in whole[extra.name]}
        assert extra.pip == f"pip install 'millrace[{extra.name}]'"
        for package in extra.packages:
            if package.version is not None:
                assert package.version == metadata.version(package.name)


def test_missing_and_old_packages_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real distribution on the path, in the form that pip leaves behind."""
    info = tmp_path / "toywheel-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toywheel\nVersion: 1.0\nProvides-Extra: near\nProvides-Extra: far\n"
        'Requires-Dist: numpy>=1.0; extra == "near"\nRequires-Dist: numpy>=999; extra == "far"\n'
        'Requires-Dist: toywheel[near]; extra == "far"\nRequires-Dist: no-such-package-here; extra == "far"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = extras("toywheel")
    assert found is not None
    near, far = found
    assert near.missing == ()
    assert [(p.name, p.version is None) for p in far.missing] == [
        ("numpy", False),
        ("no-such-package-here", True),
    ]
    assert extras("no-such-package-here") is None


def test_the_reference_core_is_measured_and_repeats() -> None:
    first, second = single_core_reference(), single_core_reference()
    assert first.index == pytest.approx(
        (first.gathers_per_s / 650e6 * first.flops / 50e9) ** 0.5
    )  # the stated reference
    assert 0.5 < first.index / second.index < 2.0


def test_disk_speed_leaves_nothing_and_times_what_it_says(tmp_path: Path) -> None:
    found = disk_speed(tmp_path, limit_s=0.05, limit_bytes=8 << 20)
    assert list(tmp_path.iterdir()) == []
    assert 0 < found.size_bytes <= 8 << 20
    assert found.write_bytes_per_s > 0
    assert found.read_bytes_per_s > 0


def test_importing_host_is_light() -> None:
    code = "import sys, millrace.host, millrace.host.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    heavy = {"numpy", "pydantic", "psutil", "threadpoolctl", "rich", "numba", "pyarrow"}
    assert not heavy & set(done.stdout.split())


def test_sizes_in_advice_are_never_above_what_was_found(facts: Facts) -> None:
    line = next(a.line for a in advise(facts) if a.line.startswith("memory"))
    assert parse_bytes(line.split('"')[1]) <= facts.budget_bytes


def test_a_gpu_is_told_with_its_memory_or_that_there_is_none(container: Doctor, tmp_path: Path) -> None:
    assert any(line == "GPU         none" for line in container.lines())
    root = machine(
        tmp_path, files={"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 5\n"}
    )
    assert gpu.gpus(root) == (gpu.Gpu("NVIDIA H100", None),)
    assert gpu.parse("NVIDIA H100 80GB HBM3, 81559\nNVIDIA A2, [N/A]\n") == (
        gpu.Gpu("NVIDIA H100 80GB HBM3", 81559 << 20),
        gpu.Gpu("NVIDIA A2", None),
    )


def test_other_runs_are_seen_by_the_locks_they_hold(container: Doctor, tmp_path: Path) -> None:
    code = """
import fcntl, sys
files = [open(f"{sys.argv[1]}/{i}", "w") for i in range(3)]
for file in files[:2]:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert instances([tmp_path]) == (Instance(other.pid, 2),)
        other.communicate()
    assert instances([tmp_path]) == ()
    assert instances([tmp_path / "nowhere"]) == ()
    assert container.facts.instances is None
    busy = dataclasses.replace(container.facts, instances=(Instance(7, 1),))
    assert "millrace ... --cores 1" in [advice.line for advice in advise(busy)]

"""What must be equal between a driver and the workers of a cluster, so that they give the same answers. Pure, but for
`describe`, which runs on each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def describe(packages: tuple[str, ...] = (), dask_worker: Any = None) -> dict[str, Any]:
    """Versions, BLAS and settings of the process where it runs. Travels by value: uses nothing of this module.

    `dask_worker`: given by Dask (it finds the name in the signature) where it runs on a worker."""
    import importlib.metadata
    import importlib.util
    import sys

    names = ("millrace", "numpy", "scipy", "numba", "pyarrow", "scikit-learn", "lightgbm", "xgboost", "statsmodels")
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (*names, "cloudpickle", "msgspec", *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "" if importlib.util.find_spec(name.partition(".")[0]) is None else "unpackaged"
    blas: list[tuple[str, str, str]] = []
    if importlib.util.find_spec("threadpoolctl") and importlib.util.find_spec("numpy"):
        import numpy  # noqa: F401 - it loads its BLAS
        import threadpoolctl

        blas = [
            (found["internal_api"], found.get("version") or "", found.get("architecture") or "")
            for found in threadpoolctl.threadpool_info()
            if found["user_api"] == "blas"
        ]
    said: dict[str, Any] = {"versions": versions, "blas": sorted(set(blas)), "platform": sys.platform}
    said |= {"threads": 1, "memory": {}}
    if dask_worker is not None:
        import dask

        said["threads"] = dask_worker.state.nthreads
        said["memory"] = {
            "limit": dask_worker.memory_manager.memory_limit or 0,
            "terminate": dask.config.get("distributed.worker.memory.terminate") or 0.0,
            "spill": dask.config.get("distributed.worker.memory.spill") or 0.0,
        }
    return said


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each version that is not the driver's, with the workers that have it. What neither the driver nor the
    worker has does not count; nor does a numeric library that the driver lacks."""
    found: dict[str, list[str]] = defaultdict(list)
    for address, said in theirs.items():
        for name, version in mine["versions"].items():
            other = said["versions"].get(name, "")
            if version and other != version:
                found[f"{name} is {version} here and {other or 'missing'}"].append(address)
        if said["platform"] != "linux":
            found[f"tasks' processes need Linux, and {said['platform']} is"].append(address)
    return [f"{what} on {_some(where)}" for what, where in found.items()]


def pinned(mine: Mapping[str, Any], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Environment that makes OpenBLAS take the same inner loops everywhere; {} when it does already.

    Raises `WrongQuestion` when the libraries differ in more than that.
    """
    from millrace.run.errors import WrongQuestion

    here = _kernels(mine)
    found = [_kernels(said) for said in theirs.values()]
    apart = [
        f"{api} {version}"
        for other in found
        if here and other and not here.keys() & other.keys()
        for api, version in other
    ]
    if apart:
        named = ", ".join(f"{api} {version}" for api, version in here)
        raise WrongQuestion(
            f"The workers have different BLAS libraries, whose sums differ in the last bits: {named} here, and "
            f"{', '.join(sorted(set(apart)))} there. Install the same one everywhere."
        )
    kernels = {other[kind] for other in (here, *found) for kind in other.keys() & here.keys()}
    if all(other[kind] == here[kind] for other in found for kind in other.keys() & here.keys()):
        return {}
    own = {one[2] for one in mine["blas"]}
    if own <= {COMMON, "Zen"} and all(api == "openblas" for api, _ in here):
        return {"OPENBLAS_CORETYPE": COMMON}
    raise WrongQuestion(
        f"The processors of the cluster differ, and so do the inner loops that BLAS picks for them "
        f"({', '.join(sorted(kernels))}; here {', '.join(sorted(own))}), whose sums differ in the last bits. Start this "
        f"driver with OPENBLAS_CORETYPE={COMMON} in its environment: the workers then get the same. With another BLAS than "
        "OpenBLAS, use workers of one processor generation."
    )


COMMON = "Haswell"
"""What every x86-64 processor since 2013 can run; Zen is another name for the same loops."""


def _kernels(said: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(library, version) -> inner loops. Which are loaded depends on what was imported (SciPy brings one of its own), so
    that only those which both sides have are compared."""
    return {(api, version): kernels for api, version, kernels in said["blas"]}


def warnings(theirs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the cluster's settings mean for a run, a sentence each."""
    limited = [a for a, said in theirs.items() if said["memory"].get("limit") and said["memory"].get("terminate")]
    found = []
    if limited:
        limit = min(theirs[a]["memory"]["limit"] for a in limited)
        share = theirs[limited[0]]["memory"]["terminate"]
        found.append(
            f"Dask restarts a worker that holds {share:.0%} of {limit / (1 << 30):.1f} GiB ({_some(limited)}), and counts "
            "mapped files as held. Tasks run in processes beside it, which it does not count; values that stay on the "
            "workers are mapped there. millrace does not change this: `dask worker --memory-limit 0` turns it off."
        )
    wide = [a for a, said in theirs.items() if said["threads"] > 1]
    if wide:
        most = max(theirs[a]["threads"] for a in wide)
        found.append(
            f"Workers with up to {most} threads ({_some(wide)}): in Dask's own threads, functions that hold the interpreter "
            f"lock would share one core of them. Here each thread has a process, with an interpreter and a share of the "
            f"memory of its own, so that up to {most} functions compute there at once, whatever they hold."
        )
    return found


def _some(addresses: list[str]) -> str:
    few = ", ".join(sorted(addresses)[:3])
    return few if len(addresses) <= 3 else f"{few} and {len(addresses) - 3} more"

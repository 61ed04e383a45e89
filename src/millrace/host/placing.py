"""The GPUs of this host for kernels with two bodies: one process at a time on each, and what was measured, kept.

A GPU is held by a lock file as a core is (see `tokens`), so the runs of a host share them, too. The crossovers lie in
one JSON file a host. Imports no numeric library itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from millrace.host.gpu import gpus
from millrace.host.tokens import CoreTokens, holding
from millrace.run.placement import Line, crossover


class Gpus:
    """`wish`: auto, cpu, gpu, or gpu:0,2; `folder`: of the locks; `learnt`: the file of crossovers; `memory_share`: of a
    GPU's memory, 0 to 1."""

    def __init__(self, wish: str, folder: Path, learnt: Path, memory_share: float) -> None:
        head, _, chosen = wish.partition(":")
        self.wish: Literal["auto", "cpu", "gpu"] = "gpu" if head == "gpu" else "cpu" if head == "cpu" else "auto"
        self._chosen = tuple(int(n) for n in chosen.split(",")) if chosen else ()
        self._folder, self._learnt, self._share = folder, learnt, memory_share
        self._found: tuple[int, ...] | None = None

    def devices(self) -> int:
        return len(self._numbers())

    def known(self, name: str) -> int | None:
        told = crossovers(self._learnt).get(name)
        return None if told is None else int(told["wins_from"])

    def learn(self, name: str, cpu: Line, gpu: Line) -> int:
        wins_from = crossover(cpu, gpu)
        told = {**crossovers(self._learnt), name: {"wins_from": wins_from, "cpu": asdict(cpu), "gpu": asdict(gpu)}}
        with contextlib.suppress(OSError):  # a home that is full costs a measurement, never a run
            self._learnt.parent.mkdir(parents=True, exist_ok=True)
            draft = self._learnt.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(told, indent=1))
            os.replace(draft, self._learnt)
        return wins_from

    def on_gpu(self, body: Callable[..., Any]) -> OnGpu:
        numbers = self._numbers()
        return OnGpu(body, CoreTokens(self._folder, len(numbers), "gpu", numbers), self._share)

    def _numbers(self) -> tuple[int, ...]:
        if self._found is None:
            there = range(len(gpus()))
            self._found = tuple(n for n in there if not self._chosen or n in self._chosen)
        return self._found


class OnGpu:
    """A body that is called with a GPU that no other process uses meanwhile."""

    def __init__(self, body: Callable[..., Any], tokens: CoreTokens, memory_share: float) -> None:
        self._body, self._tokens, self._share = body, tokens, memory_share
        self.gpu_used = -1, 0
        """Number of the GPU that it had last, and for how many ns it had one so far."""

    def __call__(self, *given: Any) -> Any:
        with holding(self._tokens) as number:
            began_ns = time.monotonic_ns()
            try:
                return self._on(number, *given)
            finally:
                self._leave()
                self.gpu_used = number, self.gpu_used[1] + time.monotonic_ns() - began_ns

    def _leave(self) -> None:
        """What torch keeps of the GPU's memory for later goes: the next process has the same share."""
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.cuda.empty_cache()

    def _on(self, number: int, *given: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and self._share < 1.0:
            torch.cuda.set_per_process_memory_fraction(self._share, number)
        return self._body(*given, device=f"cuda:{number}")


def crossovers(learnt: Path) -> dict[str, dict[str, Any]]:
    """What was measured: name -> wins_from (0: never), cpu and gpu lines; empty where nothing was."""
    try:
        told = json.loads(learnt.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}

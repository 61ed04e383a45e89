"""A host whose one GPU is called by another name. The bodies for a GPU take the device's name from their place, and torch
computes on "cpu" by the same code: so they run, and are timed, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from millrace.run.placement import Line, crossover


class Held:
    """A body that is given its device, and tells that it had GPU 0."""

    def __init__(self, body: Callable[..., Any], device: str) -> None:
        self._body, self._device = body, device
        self.gpu_used = 0, 0

    def __call__(self, *given: Any) -> Any:
        found = self._body(*given, device=self._device)
        self.gpu_used = 0, self.gpu_used[1] + 1
        return found


@dataclass
class Host:
    """`count` GPUs called `device`. known_from: kernels' crossovers by name; `as_if`: the lines that are learnt whatever was
    measured. measured: what `learn` was told, by name."""

    wish: Literal["auto", "cpu", "gpu"] = "auto"
    count: int = 1
    device: str = "cpu"
    as_if: tuple[Line, Line] | None = None
    known_from: dict[str, int] = field(default_factory=dict)
    measured: dict[str, tuple[Line, Line]] = field(default_factory=dict)

    def devices(self) -> int:
        return self.count

    def known(self, name: str) -> int | None:
        return self.known_from.get(name)

    def learn(self, name: str, cpu: Line, gpu: Line) -> int:
        self.measured[name] = cpu, gpu
        self.known_from[name] = crossover(*(self.as_if or (cpu, gpu)))
        return self.known_from[name]

    def on_gpu(self, body: Callable[..., Any]) -> Held:
        return Held(body, self.device)


GPU_WINS = Line(1.0, 1e-3), Line(0.0, 1e-9)
CPU_WINS = Line(0.0, 1e-9), Line(1.0, 1e-3)

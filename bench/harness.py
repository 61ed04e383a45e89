"""Times contenders alternately in one process tree, and tells ratios with their spread.

Machines are shared and noisy: a second means little, the ratio of two medians that were taken in turns means much.
A contender is a function without arguments; what it needs is made before. Nothing here asserts: benchmarks inform.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from millrace.host import private_bytes

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison: seconds of ours and of a peer (medians), their ratio (peer / ours) with its range over the
    turns, and what it is held to. `scaled`: the peer's time was measured on fewer rows and scaled, as `how` says."""

    work: str
    peer: str
    ours_s: float
    peer_s: float
    ratio: float
    low: float
    high: float
    hold: float | None = None
    how: str = ""

    def text(self) -> str:
        held = "" if self.hold is None else f"  hold >= {self.hold:g}: {'yes' if self.ratio >= self.hold else 'NO'}"
        how = f"  ({self.how})" if self.how else ""
        return (
            f"{self.work:<46} {seconds(self.ours_s):>9}   {self.peer:<24} {seconds(self.peer_s):>9}   "
            f"{self.ratio:8.1f}x [{self.low:.1f}-{self.high:.1f}]{held}{how}"
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of ours beside the bound that it is held to (`at_most` or at least)."""

    work: str
    value: float
    unit: str
    hold: float | None = None
    at_most: bool = True

    def text(self) -> str:
        held = ""
        if self.hold is not None:
            right = self.value <= self.hold if self.at_most else self.value >= self.hold
            held = f"  hold {'<=' if self.at_most else '>='} {self.hold:g}: {'yes' if right else 'NO'}"
        return f"{self.work:<62} {self.value:10.3g} {self.unit}{held}"


@dataclass(slots=True)
class Bench:
    """Collects lines and figures of one capability, prints each as it comes, and writes them with a picture."""

    name: str
    lines: list[Line] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    clock: Callable[[], float] = time.perf_counter
    """What is compared: wall time, or `time.process_time` where both work in this process and the machine is shared."""

    def against(
        self,
        work: str,
        ours: Callable[[], object],
        peers: Mapping[str, tuple[Callable[[], object], float, float | None]],
        turns: int = 3,
        how: str = "",
    ) -> float:
        """Time `ours` and each peer `(function, scale, hold)` in turns; returns our median in seconds.

        `scale` multiplies the peer's seconds (when it was given a part of the rows).
        """
        mine: list[float] = []
        theirs: dict[str, list[float]] = {p: [] for p in peers}
        ours()  # compiled, warm
        for _ in range(turns):
            mine.append(timed(ours, self.clock))
            for peer, (function, scale, _) in peers.items():
                theirs[peer].append(timed(function, self.clock) * scale)
        for peer, (_, scale, hold) in peers.items():
            ratios = sorted(t / m for t, m in zip(theirs[peer], mine, strict=True))
            said = how or (f"on 1/{scale:g} of the rows, scaled" if scale != 1 else "")
            self.add(Line(work, peer, statistics.median(mine), statistics.median(theirs[peer]),
                          statistics.median(ratios), ratios[0], ratios[-1], hold, said))  # fmt: skip
        return statistics.median(mine)

    def add(self, line: Line) -> None:
        self.lines.append(line)
        print(line.text(), flush=True)

    def figure(self, work: str, value: float, unit: str, hold: float | None = None, at_most: bool = True) -> None:
        self.figures.append(Figure(work, value, unit, hold, at_most))
        print(self.figures[-1].text(), flush=True)

    def keep(self) -> None:
        """Take what an earlier call measured and this one does not: a bench that runs in parts."""
        path = RESULTS / f"{self.name}.json"
        if not path.exists():
            return
        old = json.loads(path.read_text())
        lines, figures = {(x.work, x.peer) for x in self.lines}, {x.work for x in self.figures}
        self.lines += [Line(**x) for x in old["lines"] if (x["work"], x["peer"]) not in lines]
        self.figures += [Figure(**x) for x in old["figures"] if x["work"] not in figures]

    def write(self) -> None:
        """results/NAME.json, and a picture of the ratios."""
        RESULTS.mkdir(exist_ok=True)
        said = {
            "machine": machine(),
            "lines": [asdict(x) for x in self.lines],
            "figures": [asdict(x) for x in self.figures],
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(said, indent=1) + "\n")
        if self.lines:
            draw(self.lines, RESULTS / f"{self.name}.svg")


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """Growth of private memory while `work` runs, sampled every 2 ms."""
    start, peak, over = private_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            peak[0] = max(peak[0], private_bytes() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return peak[0]


def seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor(),
        "python": sys.version.split()[0],
        "day": time.strftime("%Y-%m-%d"),
    }


def draw(lines: list[Line], path: Path) -> None:
    """Ratios as bars on a logarithmic axis, the bounds as ticks."""
    import altair as alt
    import vl_convert

    rows = [
        {
            "work": x.work,
            "peer": x.peer,
            "ratio": x.ratio,
            "low": x.low,
            "high": x.high,
            "hold": x.hold,
            "label": f"{x.ratio:,.1f}x",
        }
        for x in lines
    ]
    top = 10 ** math.ceil(math.log10(max(x.ratio for x in lines) * 1.5))
    axis = alt.Scale(type="log", domain=[min(0.5, *(x.ratio for x in lines)), top])
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("peer:N", title=None, sort=None))
    bars = base.mark_bar(height=12, color="#4c78a8").encode(
        x=alt.X("ratio:Q", scale=axis, title="times faster than the peer")
    )
    held = (
        base.transform_filter("isValid(datum.hold)")
        .mark_tick(color="#e45756", thickness=2, height=18)
        .encode(x=alt.X("hold:Q", scale=axis))
    )
    text = base.mark_text(align="left", dx=4).encode(x=alt.X("ratio:Q", scale=axis), text="label:N")
    chart = (bars + held + text).properties(width=420).facet(
        row=alt.Row("work:N", title=None, sort=None, header=alt.Header(labelAngle=0, labelAlign="left", labelLimit=320))
    ).resolve_scale(y="independent")  # fmt: skip
    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()))

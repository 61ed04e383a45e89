"""How many slots earlier days needed at the same hour: a floor for tiers that ask for it.

In replay it was worth no more than a longer idle time, so it is off by default. Keeps its days in memory: a new scaler knows
nothing of yesterday, and then has no floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

DAYS = 28
_HOUR_S = 3600.0


@dataclass(slots=True)
class Busiest:
    """The busiest moment of each hour, in slots, of the last four weeks."""

    hours: dict[int, int] = field(default_factory=dict)

    def see(self, now: float, slots: int) -> None:
        """`slots`: running and queued jobs at `now` (Unix seconds)."""
        hour = int(now // _HOUR_S)
        self.hours[hour] = max(self.hours.get(hour, 0), slots)
        if len(self.hours) > 24 * DAYS:
            for old in [h for h in self.hours if h <= hour - 24 * DAYS]:
                del self.hours[old]

    def slots(self, now: float, boot_s: float = 0.0) -> int:
        """The forecast for the hour of `now` from the same hour of earlier days; the next hour's, too, once it is so near that
        replicas should boot for it (two boot times)."""
        return max(self._slots(int(now // _HOUR_S)), self._slots(int((now + 2 * boot_s) // _HOUR_S)))

    def _slots(self, hour: int) -> int:
        return forecast_slots([s for h, s in self.hours.items() if h < hour and (hour - h) % 24 == 0])


def forecast_slots(days: Sequence[int]) -> int:
    """The (lower) median of what earlier days were busiest with; 0 without any."""
    peaks = sorted(days)
    return peaks[(len(peaks) - 1) // 2] if peaks else 0

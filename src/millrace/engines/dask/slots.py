"""Which slot of the engine a message was carried in.

A slot is a place of a Dask worker, one for each of its threads. Where fewer tasks are to run at once than there are such
places, slots are lanes instead: a message has one to itself from its sending to its reply, wherever Dask carries it. That is
on the same worker as long as it lives, so that no more processes get warm than there are lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.engines.dask.accounts import Accounts


class Slots:
    """`most`: how many messages may be at Dask at once; None: as many as keep all workers busy."""

    def __init__(self, accounts: Accounts, most: int | None = None) -> None:
        self._accounts, self.most = accounts, most
        self._at: dict[tuple[str, int], int] = {}
        self._owner: list[str] = []
        self._lanes: list[int] = []
        self.pids: dict[int, int] = {}
        """Of processes on the driver's own machine, by slot."""

    def __len__(self) -> int:
        places = len(self._owner)
        return places if self.most is None else min(places, self.most)

    def seat(self, address: str, seats: int, alive: set[str]) -> None:
        """Places of a worker: first those of workers that are gone (not `alive`; empty: nobody is known to be)."""
        free = [slot for slot, owner in enumerate(self._owner) if alive and owner not in alive]
        for seat in range(seats):
            if free:
                slot = free.pop(0)
                self._owner[slot] = address
                if self.most is None:
                    self.pids.pop(slot, None)
                    self._accounts.lost(slot)
            else:
                slot = len(self._owner)
                self._owner.append(address)
                if self.most is None or slot < self.most:
                    self._lanes.append(slot)
                    self._accounts.grow(slot + 1)
            self._at[address, seat] = slot

    # -- lanes -------------------------------------------------------------------------------------------------
    def take(self) -> int:
        """The lane of a message that is sent now; -1 where its place is told by the reply."""
        return self._lanes.pop(0) if self.most is not None else -1

    def give(self, lane: int) -> None:
        if lane >= 0:
            self._lanes.append(lane)

    def wanted(self, lane: int) -> str:
        """Address of the worker that a message in this lane is to go to; "" where the scheduler is to say."""
        return self._owner[lane] if lane >= 0 else ""

    def of(self, lane: int, address: str, seat: int) -> int | None:
        """The slot in which that place carried a message; None for a place that nobody has enlisted."""
        slot = self._at.get((address, seat))
        return slot if slot is None or lane < 0 else lane

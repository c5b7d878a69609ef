"""Reads evidence out of the frames that the loop has read, and has the state computed again when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from penstock_agent.evidence import Evidence
from penstock_agent.loop import WeightLoop
from penstock_agent.probes import Target

WATCH_SECONDS = 0.5

Place = tuple[str, str]  # core VIP, backend


class TrafficWatch:
    """What clients' traffic shows of backends, by core VIP and backend id."""

    def __init__(self, loop: WeightLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._evidence = Evidence()
        self._places: Mapping[Target, list[Place]] = {}
        self._decisive: tuple[object, ...] = ()
        self.failing: frozenset[Place] = frozenset()  # backends of which evidence decides what becomes of their flows

    def set_places(self, places: Mapping[Target, list[Place]], failing: frozenset[Place]) -> None:
        """Set the backends that each target stands for, and those that fail their checks."""
        self._places = places
        self.failing = failing

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.take_frames()
            await asyncio.sleep(WATCH_SECONDS)

    def take_frames(self) -> None:
        """Take the newest frame of every VIP."""
        now = time.monotonic()
        self._evidence.retain(self._loop.vips)
        for vip, steering in self._loop.vips.items():
            if steering.frame is not None:
                self._evidence.observe(vip, steering.frame, now)
        places = sorted(self.failing)
        decisive = (
            tuple((place, self.answers(*place), self.silent(*place)) for place in places),
            tuple(vip for vip in self._loop.vips if self.no_path(vip)),
        )
        if decisive != self._decisive:
            self._decisive = decisive
            self._on_change()

    def answers(self, vip: str, backend: str) -> bool:
        """Return whether a backend has just sent payload to clients."""
        slot = self._slot(vip, backend)
        return slot is not None and self._evidence.answers(vip, slot, time.monotonic())

    def silent(self, vip: str, backend: str) -> bool:
        """Return whether clients sent to a backend again and again, and it sent nothing."""
        slot = self._slot(vip, backend)
        return slot is not None and self._evidence.silent(vip, slot)

    def no_path(self, vip: str) -> bool:
        """Return whether clients of a VIP send again and again, and no backend sends anything."""
        return self._evidence.no_path(vip)

    def answered_since(self, target: Target, moment: float) -> bool:
        """Return whether a server sent payload to clients of any VIP after a monotonic time."""
        for vip, backend in self._places.get(target, ()):
            slot = self._slot(vip, backend)
            if slot is not None and self._evidence.answered_since(vip, slot, moment):
                return True
        return False

    def _slot(self, vip: str, backend: str) -> int | None:
        steering = self._loop.vips.get(vip)
        if steering is None or backend not in steering.vip.slots.backends:
            return None
        return steering.vip.slots.backends.index(backend)

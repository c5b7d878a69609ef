"""How many health checks run at once: a reserved share for every VIP, and a common part for who needs more.

Checks of servers that do not answer last until their timeout. Were all slots common, one VIP with many such servers
would delay every other VIP's checks. Computation only.
"""

from __future__ import annotations

from collections import Counter

DEFAULT_SLOTS = 256


class CheckSlots:
    """Slots by owner; an owner is whoever's checks must not delay those of others: a VIP object."""

    def __init__(self, total: int = DEFAULT_SLOTS) -> None:
        self._common = total // 2
        self._running: Counter[str] = Counter()
        self.reserved = self._common
        self._beyond = 0  # running in the common part

    def set_owners(self, count: int) -> None:
        """Divide the reserved half among so many owners; each has one slot at least."""
        self.reserved = max(self._common // max(count, 1), 1)
        self._beyond = sum(max(running - self.reserved, 0) for running in self._running.values())

    def may_start(self, owner: str) -> bool:
        """Return whether a slot is free for a check of this owner."""
        return self._running[owner] < self.reserved or self._beyond < self._common

    def start(self, owner: str) -> None:
        """Take a slot."""
        self._beyond += self._running[owner] >= self.reserved
        self._running[owner] += 1

    def end(self, owner: str) -> None:
        """Give a slot back."""
        self._beyond -= self._running[owner] > self.reserved
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]

"""Where the desired state comes from: each source turns what users wrote into a `Snapshot`."""

from __future__ import annotations

from typing import Protocol

from penstock_agent.desired import Name, Snapshot


class Source(Protocol):
    """What an agent needs of a source."""

    @property
    def snapshot(self) -> Snapshot | None:
        """What users want now; None while that is not known in full."""
        ...

    @property
    def error(self) -> str:
        """What is wrong with the source itself, "" when nothing is."""
        ...

    def ages(self) -> dict[str, float]:
        """Seconds since each part was last known to be current."""
        ...

    def follow(self, services: frozenset[Name]) -> None:
        """Have these Services followed, whether or not a VIP still names them: their endpoints are backends."""
        ...

    async def run(self) -> None:
        """Follow the source until cancelled."""
        ...

"""The way to the data plane: one adapter per kind of it, and the link that keeps it at its desired state."""

from __future__ import annotations

from typing import Protocol

from penstock_embedded.messages import ApplyResult, DesiredState, Dump, Hello, Stats


class DataPlane(Protocol):
    """What an adapter offers; every call raises DataPlaneError when it cannot answer."""

    async def hello(self) -> Hello:
        """Ask who is there, connecting first where needed."""
        ...

    async def apply(self, desired: DesiredState) -> ApplyResult:
        """Make it so; the same state twice changes nothing."""
        ...

    async def dump(self) -> Dump:
        """Read the state in force."""
        ...

    async def stats(self) -> Stats:
        """Read the counters."""
        ...

    async def withdraw(self) -> None:
        """Take everything off the node."""
        ...

    async def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        ...

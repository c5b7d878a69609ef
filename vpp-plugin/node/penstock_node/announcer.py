"""Answers ARP and neighbour discovery for addresses that no interface has, and says when they move here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from penstock_node.desired import Address

ANNOUNCE_AT = (0.0, 0.2, 1.0, 2.0, 4.0)
"""Seconds after taking an address over at which it is announced; several, because each may be lost."""


class Announcer:
    """Responder and announcer on raw sockets (CAP_NET_RAW); an async context manager of the running loop.

    An address that another node is heard to announce is *lost*: it is answered no more until it leaves the
    set given to `update` and comes back, or is reclaimed. `on_lost` is called in the loop, once per loss.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[Address], None] | None = None,
        announce_at: Sequence[float] = ANNOUNCE_AT,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def update(self, interfaces: Iterable[str], addresses: Iterable[Address]) -> None:
        """Announce exactly these addresses on these interfaces (empty: those of the default routes).

        Idempotent: addresses that are new are announced several times, others are left alone, and those
        no longer named are no longer answered. Raises `AnnounceError` for an interface that cannot be
        used; the others are served all the same.
        """
        raise NotImplementedError

    def reclaim(self, addresses: Iterable[Address]) -> None:
        """Take lost addresses back, as if they were new."""
        raise NotImplementedError

    @property
    def lost(self) -> frozenset[Address]:
        """Addresses of the current set that another node has taken."""
        raise NotImplementedError

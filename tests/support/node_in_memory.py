"""A node without a kernel: what the embedded data plane asks of `penstock_node`, remembered instead of done.

For tests of its control side that need neither packets nor privileges. `install()` puts it into the place of the real
functions, before `penstock_embedded` is imported: there they are looked up once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any, Self

import penstock_node
from penstock_node.changes import ConfigureTun

desired: penstock_node.DesiredNode | None = None  # what the node is like; None: nothing of ours
_peers: list[socket.socket] = []  # the other ends of the device's queues


def reconcile(wanted: penstock_node.DesiredNode) -> tuple[penstock_node.Change, ...]:
    """Become what is desired, and tell whether that was a change."""
    global desired
    before, desired = desired, wanted
    assert isinstance(wanted.tun, penstock_node.Tun)
    if before is None:
        return (penstock_node.CreateTun(wanted.tun),)
    return (ConfigureTun(wanted.tun),) if before != wanted else ()


def withdraw() -> tuple[penstock_node.Change, ...]:
    """Have nothing any more."""
    global desired
    desired = None
    return ()


def open_tun(tun: penstock_node.Tun) -> tuple[int, ...]:
    """Return descriptors that keep packets apart as those of a TUN do, and from which nothing comes."""
    while _peers:
        _peers.pop().close()
    queues = []
    for _ in range(tun.queues):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _peers.append(ours)
        theirs.setblocking(False)
        queues.append(theirs.detach())
    return tuple(queues)


def dropped_by_queue(name: str) -> int:
    """Return what a device without traffic has dropped."""
    return 0


class Announcer:
    """Announces to nobody, and loses nothing."""

    lost: frozenset[penstock_node.Address] = frozenset()

    def __init__(self, *, on_lost: Callable[[penstock_node.Address], None] | None = None) -> None:
        self.held: frozenset[penstock_node.Address] = frozenset()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.held = frozenset()

    def update(self, interfaces: Iterable[str], addresses: Iterable[penstock_node.Address]) -> None:
        """Hold exactly these addresses."""
        self.held = frozenset(addresses)

    def reclaim(self, addresses: Iterable[penstock_node.Address]) -> None:
        """Take nothing back, for nothing was lost."""


def install() -> None:
    """Take the place of the real functions."""
    for each in (reconcile, withdraw, open_tun, dropped_by_queue, Announcer):
        setattr(penstock_node, each.__name__, each)

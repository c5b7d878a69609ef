"""Which node announces an address (`L2`).

Computation only. Every agent comes to the same answer from the same live nodes by rendezvous hashing (D. Thaler,
C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1),
1998): each address goes to the node with the highest hash of both, so that a lost node's addresses spread over
the others and no other address moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


def announcer_of(address: Address, nodes: Collection[str]) -> str | None:
    """Name the node that announces an address; None when no node is alive."""
    return max(nodes, key=lambda node: (_score(address, node), node), default=None)


def _score(address: Address, node: str) -> bytes:
    return hashlib.sha256(f"{address}\0{node}".encode()).digest()


@dataclass(slots=True)
class Peers:
    """Tells live nodes from lost ones by their Leases, on this node's clock alone.

    A Lease counts as renewed when its content changes: times written by other nodes are never compared with ours. The
    time this node was cut off from the API server does not count against anybody.
    """

    duration: float  # seconds without a renewal after which a node is lost
    grace: float  # seconds without a renewal after which it is lost although its machine answers
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _vouched: dict[str, float] = field(default_factory=dict)

    def observe(self, renewals: Mapping[str, str], now: float) -> None:
        """Take note of each node's latest renewal, as it reads in its Lease."""
        for gone in self._seen.keys() - renewals.keys():
            del self._seen[gone]
        for node, renewal in renewals.items():
            if self._seen.get(node, ("", 0.0))[0] != renewal:
                self._seen[node] = renewal, now

    def reconnected(self, now: float) -> None:
        """Give everybody a full duration again: renewals may have been missed."""
        self._seen = {node: (renewal, now) for node, (renewal, _) in self._seen.items()}

    def live(self, now: float) -> frozenset[str]:
        """Nodes that renewed in time."""
        return frozenset(
            node
            for node, (_, at) in self._seen.items()
            if now - at < self.duration
            or (now - at < self.grace and now - self._vouched.get(node, float("-inf")) < self.duration)
        )

    def doubtful(self, now: float) -> frozenset[str]:
        """Nodes that did not renew in time, but whose machine may still forward: worth a look."""
        return frozenset(
            node
            for node, (_, at) in self._seen.items()
            if self.duration <= now - at < self.grace
            and now - self._vouched.get(node, float("-inf")) >= self.duration / 3
        )

    def vouch(self, node: str, now: float) -> None:
        """Take note that a doubtful node's machine answers: its agent may be restarting."""
        self._vouched[node] = now


@dataclass(frozen=True, slots=True)
class View:
    """What one node knows when it decides what to announce."""

    node: str
    addresses: frozenset[Address]  # of all VIPs that are programmed
    live: frozenset[str]  # this node included while its own Lease is good
    connected: bool  # to the API server, recently enough to trust `live`
    announced: frozenset[Address]  # before
    lost: frozenset[Address]  # heard from another node since
    rebooted: bool  # and not connected since: what was announced before may long be another's
    draining: bool = False  # the others announce in its place, if there are any


def announced(view: View) -> frozenset[Address]:
    """Decide which addresses this node announces."""
    if view.connected:
        candidates = view.live if view.draining and view.live else view.live | {view.node}
        return frozenset(a for a in view.addresses if announcer_of(a, candidates) == view.node)
    if view.rebooted:
        return frozenset()
    return (view.announced - view.lost) & view.addresses


def candidates(live: frozenset[str], draining: frozenset[str]) -> frozenset[str]:
    """Return the nodes that may announce: draining ones only where there is no other."""
    return live - draining or live


def sort_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Order addresses of both families."""
    return tuple(sorted(addresses, key=lambda address: (address.version, int(address))))

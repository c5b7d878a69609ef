"""Who holds or claims which address, kept current so that one VIP's decision never looks at all VIPs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from penstock_api import LoadBalancerVIP
from penstock_api.fields import IPAddress

from penstock_operator.plan.facts import Name, parse_address, parse_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Port = tuple[int, str]  # number, protocol


@dataclass(frozen=True)
class Claim:
    """What one VIP holds and requests, as rivals see it."""

    name: Name
    uid: str
    created: datetime
    data_plane: str
    pool: str  # that its addresses must lie in, "" for any
    ports: frozenset[Port]  # requested, on each of its addresses
    held_ports: frozenset[Port]  # held, on each of the addresses that are held
    held: frozenset[IPAddress]
    wanted: frozenset[IPAddress]
    decided: bool  # the operator has seen this generation of its spec
    readable: bool = True  # else its ports are unknown, and it shares with nobody
    servers: frozenset[IPAddress] = frozenset()  # static endpoints that it forwards to

    @classmethod
    def of(cls, vip: LoadBalancerVIP, data_plane: str = "") -> Claim:
        """Read a VIP; `data_plane` is the one that is about to serve it, where that may be another than before."""
        status = vip.status
        decided = status.observed_generation == vip.metadata.generation
        ports = frozenset((port.port, str(port.protocol)) for port in vip.spec.ports)
        held_ports = frozenset((port.port, str(port.protocol)) for port in status.ports)
        if not held_ports and decided:
            held_ports = ports  # the status of an earlier version has no ports
        frozen = vip.paused or vip.deleting  # requests nothing new, and blocks nobody
        return cls(
            name=(vip.metadata.namespace, vip.metadata.name),
            uid=vip.metadata.uid,
            created=vip.metadata.creation_timestamp or _EPOCH,
            data_plane=data_plane or status.data_plane_name or vip.spec.data_plane_name or "",
            pool=vip.spec.address_pool or "",
            ports=held_ports if frozen else ports,
            held_ports=held_ports,
            held=frozenset(status.addresses),
            wanted=frozenset(() if frozen else vip.spec.addresses or ()),
            decided=decided and (not data_plane or status.data_plane_name == data_plane),
            servers=frozenset(each.address for each in vip.spec.backends.endpoints or () if status.addresses),
        )

    @classmethod
    def of_unreadable(cls, raw: Mapping[str, Any]) -> Claim:
        """Read what a VIP holds that this version cannot read: another version gave it, and it stays."""
        metadata, status = raw["metadata"], raw.get("status")
        status = status if isinstance(status, Mapping) else {}
        texts = status.get("addresses")
        held = (parse_address(text) for text in texts) if isinstance(texts, list) else ()
        return cls(
            name=(metadata["namespace"], metadata["name"]),
            uid=metadata.get("uid", ""),
            created=parse_time(metadata.get("creationTimestamp")) or _EPOCH,
            data_plane=str(status.get("dataPlaneName") or ""),
            pool="",
            ports=frozenset(),
            held_ports=frozenset(),
            held=frozenset(address for address in held if address is not None),
            wanted=frozenset(),
            decided=True,
            readable=False,
        )

    def holds(self, address: IPAddress, port: Port | None = None) -> bool:
        """Return whether it holds an address, or one port of it."""
        return address in self.held and (port is None or port in self.held_ports)

    def rank(self, address: IPAddress, port: Port | None = None) -> tuple[int, datetime, str]:
        """Order of precedence for an address or one port of it: holders before claimants, then age, then UID.

        Of two holders, the one that is about to leave or whose spec was edited since comes second.
        """
        stays = self.decided and not self.leaves(address)
        level = 2 if not self.holds(address, port) else 0 if stays else 1
        return level, self.created, self.uid

    def competes(self, address: IPAddress, port: Port | None = None) -> bool:
        """Return whether it holds an address or one port of it, or requests that and was not refused yet."""
        if self.holds(address, port):
            return True
        requested = address in self.wanted or (address in self.held and not self.wanted)
        return requested and not self.decided and (port is None or port in self.ports)

    def leaves(self, address: IPAddress) -> bool:
        """Return whether it holds an address and requests others instead."""
        return address in self.held and bool(self.wanted) and address not in self.wanted

    def shares_with(self, other: Claim) -> bool:
        """Return whether both may have one address with different ports: within one namespace and DataPlane."""
        same_data_plane = not self.data_plane or not other.data_plane or self.data_plane == other.data_plane
        return self.readable and other.readable and self.name[0] == other.name[0] and same_data_plane

    def excludes(self, other: Claim) -> bool:
        """Return whether both cannot have one address."""
        return not self.shares_with(other) or bool((self.ports | self.held_ports) & other.ports)


@dataclass(frozen=True)
class Rival:
    """A VIP that has precedence on an address, and the ports of it; no port: the whole address."""

    claim: Claim
    ports: frozenset[Port] = frozenset()


def rival_of(mine: Claim, other: Claim, address: IPAddress) -> Rival | None:
    """Return what another VIP's precedence on an address leaves no room for."""
    if not mine.shares_with(other):
        first = other.competes(address) and other.rank(address) < mine.rank(address)
        return Rival(other) if first else None
    ports = frozenset(
        port
        for port in mine.ports & (other.ports | other.held_ports)
        if other.competes(address, port) and other.rank(address, port) < mine.rank(address, port)
    )
    return Rival(other, ports) if ports else None


class Ledger:
    """Claims of all VIPs, by address."""

    def __init__(self) -> None:
        self._claims: dict[Name, Claim] = {}
        self._by_address: dict[IPAddress, set[Name]] = {}
        self._by_namespace: dict[str, set[Name]] = {}
        self._by_server: dict[IPAddress, set[Name]] = {}
        self._held: dict[int, list[int]] = {4: [], 6: []}  # held addresses as numbers, sorted, by IP version

    def put(self, claim: Claim) -> None:
        """Enter or replace a VIP's claim."""
        self.remove(claim.name)
        for address in claim.held:
            if not self.is_held(address):
                insort(self._held[address.version], int(address))
        self._claims[claim.name] = claim
        self._by_namespace.setdefault(claim.name[0], set()).add(claim.name)
        for address in claim.servers:
            self._by_server.setdefault(address, set()).add(claim.name)
        for address in claim.held | claim.wanted:
            self._by_address.setdefault(address, set()).add(claim.name)

    def remove(self, name: Name) -> None:
        """Strike a VIP out."""
        claim = self._claims.pop(name, None)
        if claim is None:
            return
        self._by_namespace[name[0]].discard(name)
        for address in claim.servers:
            self._by_server[address].discard(name)
        for address in claim.held | claim.wanted:
            names = self._by_address[address]
            names.discard(name)
            if not names:
                del self._by_address[address]
        for address in claim.held:
            if not self.is_held(address):
                numbers = self._held[address.version]
                del numbers[bisect_left(numbers, int(address))]

    def rivals(self, claim: Claim, address: IPAddress) -> list[Rival]:
        """Return the VIPs that have precedence on an address and leave no room for `claim`, the first of them first."""
        found = (rival_of(claim, other, address) for other in self._others(claim, address))
        return sorted(filter(None, found), key=lambda rival: rival.claim.rank(address))

    def other_holder(self, claim: Claim, address: IPAddress) -> Claim | None:
        """Return the VIP that holds an address, or ports of it, which `claim` holds too and has to give up.

        Two hold the same while they exchange their addresses, and where a status was restored from a backup.
        """
        for other in self._others(claim, address):
            both: Iterable[Port | None] = [None] if other.holds(address) else []
            if claim.shares_with(other):
                both = [port for port in claim.held_ports & other.held_ports if other.holds(address, port)]
            if any(other.rank(address, port) < claim.rank(address, port) for port in both):
                return other
        return None

    def _others(self, claim: Claim, address: IPAddress) -> list[Claim]:
        names = self._by_address.get(address, set()) - {claim.name}
        return [self._claims[name] for name in sorted(names)]

    def excluded_by(self, claim: Claim, address: IPAddress) -> list[Claim]:
        """Return the VIPs that hold or request an address and could not have it together with `claim`."""
        return [other for other in self._others(claim, address) if other.excludes(claim)]

    def is_free(self, address: IPAddress) -> bool:
        """Return whether no VIP holds an address, requests it or forwards to it."""
        return not self.served_by(address) and not any(
            self._claims[name].competes(address) for name in self._by_address.get(address, ())
        )

    def is_held(self, address: IPAddress) -> bool:
        """Return whether a VIP holds an address."""
        return any(address in self._claims[name].held for name in self._by_address.get(address, ()))

    def first_unheld(self, version: int, first: int, last: int) -> int | None:
        """Return the lowest address of a range that nobody holds, in logarithmic time."""
        numbers = self._held[version]
        start = bisect_left(numbers, first)
        low, high = 0, len(numbers) - start
        while low < high:  # up to `low` the range is held without a gap
            middle = (low + high) // 2
            if numbers[start + middle] == first + middle:
                low = middle + 1
            else:
                high = middle
        return first + low if first + low <= last else None

    def names_on(self, address: IPAddress) -> frozenset[Name]:
        """Return the VIPs that hold or claim an address."""
        return frozenset(self._by_address.get(address, ()))

    def served_by(self, address: IPAddress) -> Name | None:
        """Return a VIP that forwards to an address: as a VIP's, it would be taken from it."""
        return min(self._by_server.get(address, ()), default=None)

    def held_in(self, namespace: str, without: Name) -> frozenset[IPAddress]:
        """Return the addresses that VIPs of a namespace hold, one VIP left out."""
        names = self._by_namespace.get(namespace, set()) - {without}
        return frozenset(address for name in names for address in self._claims[name].held)

    def held_addresses(self) -> set[IPAddress]:
        """Return all addresses that VIPs hold."""
        claims = list(self._claims.values())  # metrics are computed in another thread
        return {address for claim in claims for address in claim.held}

"""Who holds or claims which address, kept current so that one VIP's decision never looks at all VIPs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from penstock_api import LoadBalancerVIP
from penstock_api.fields import IPAddress

from penstock_operator.plan.facts import Name, parse_address, parse_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Claim:
    """What one VIP has and wants, as rivals see it."""

    name: Name
    uid: str
    created: datetime
    data_plane: str
    pool: str  # that its addresses must lie in, "" for any
    ports: frozenset[tuple[int, str]]
    held: frozenset[IPAddress]
    wanted: frozenset[IPAddress]
    decided: bool  # the operator has seen this generation of its spec
    readable: bool = True  # else its ports are unknown, and it shares with nobody

    @classmethod
    def of(cls, vip: LoadBalancerVIP) -> Claim:
        """Read a VIP."""
        return cls(
            name=(vip.metadata.namespace, vip.metadata.name),
            uid=vip.metadata.uid,
            created=vip.metadata.creation_timestamp or _EPOCH,
            data_plane=vip.status.data_plane_name or vip.spec.data_plane_name or "",
            pool=vip.spec.address_pool or "",
            ports=frozenset((port.port, str(port.protocol)) for port in vip.spec.ports),
            held=frozenset(vip.status.addresses),
            # What is paused or on its way out asks for nothing new, and stands in nobody's way.
            wanted=frozenset(() if vip.paused or vip.deleting else vip.spec.addresses or ()),
            decided=vip.status.observed_generation == vip.metadata.generation,
        )

    @classmethod
    def of_unreadable(cls, raw: Mapping[str, Any]) -> Claim:
        """Read what a VIP holds that this version can't read: another version gave it, and it stays."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        held = (parse_address(text) for text in status.get("addresses") or ())
        return cls(
            name=(metadata["namespace"], metadata["name"]),
            uid=metadata.get("uid", ""),
            created=parse_time(metadata.get("creationTimestamp")) or _EPOCH,
            data_plane=str(status.get("dataPlaneName") or ""),
            pool="",
            ports=frozenset(),
            held=frozenset(address for address in held if address is not None),
            wanted=frozenset(),
            decided=True,
            readable=False,
        )

    def rank(self, address: IPAddress) -> tuple[int, datetime, str]:
        """Order of precedence for an address: holders before claimants, then age, then UID.

        A holder whose spec was edited since we looked comes after other holders: its ports may be news, theirs aren't.
        """
        if address in self.held:
            return (0 if self.decided else 1), self.created, self.uid
        return 2, self.created, self.uid

    def competes(self, address: IPAddress) -> bool:
        """Tell whether it has a say on an address; a claim that was refused has none until it is looked at anew."""
        return address in self.held or (address in self.wanted and not self.decided)

    def leaves(self, address: IPAddress) -> bool:
        """Tell whether it holds an address and asks for others instead."""
        return address in self.held and bool(self.wanted) and address not in self.wanted

    def excludes(self, other: Claim) -> bool:
        """Tell whether both can't have one address: only VIPs of one namespace and DataPlane share, by port."""
        if not self.readable or not other.readable:
            return True
        same_owner = self.name[0] == other.name[0] and (
            not self.data_plane or not other.data_plane or self.data_plane == other.data_plane
        )
        return not same_owner or bool(self.ports & other.ports)


class Ledger:
    """Claims of all VIPs, by address."""

    def __init__(self) -> None:
        self._claims: dict[Name, Claim] = {}
        self._by_address: dict[IPAddress, set[Name]] = {}
        self._held: dict[int, list[int]] = {4: [], 6: []}  # held addresses as numbers, sorted, by IP version

    def put(self, claim: Claim) -> None:
        """Enter or replace a VIP's claim."""
        self.remove(claim.name)
        for address in claim.held:
            if not self.is_held(address):
                insort(self._held[address.version], int(address))
        self._claims[claim.name] = claim
        for address in claim.held | claim.wanted:
            self._by_address.setdefault(address, set()).add(claim.name)

    def remove(self, name: Name) -> None:
        """Strike a VIP out."""
        claim = self._claims.pop(name, None)
        if claim is None:
            return
        for address in claim.held | claim.wanted:
            names = self._by_address[address]
            names.discard(name)
            if not names:
                del self._by_address[address]
        for address in claim.held:
            if not self.is_held(address):
                numbers = self._held[address.version]
                del numbers[bisect_left(numbers, int(address))]

    def rivals(self, claim: Claim, address: IPAddress) -> list[Claim]:
        """Return the VIPs that stand before `claim` on an address and leave no room for it, the first of them first."""
        mine = claim.rank(address)
        before = [
            other
            for other in self.excluded_by(claim, address)
            if other.competes(address) and other.rank(address) < mine
        ]
        return sorted(before, key=lambda other: other.rank(address))

    def excluded_by(self, claim: Claim, address: IPAddress) -> list[Claim]:
        """Return the VIPs that hold or want an address and could not have it together with `claim`."""
        others = (self._claims[name] for name in self._by_address.get(address, ()) if name != claim.name)
        return [other for other in others if other.excludes(claim)]

    def is_free(self, address: IPAddress) -> bool:
        """Tell whether no VIP holds an address or has a say on it."""
        return not any(self._claims[name].competes(address) for name in self._by_address.get(address, ()))

    def is_held(self, address: IPAddress) -> bool:
        """Tell whether a VIP holds an address."""
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

    def held_addresses(self) -> set[IPAddress]:
        """Return all addresses that VIPs hold."""
        return {address for claim in self._claims.values() for address in claim.held}

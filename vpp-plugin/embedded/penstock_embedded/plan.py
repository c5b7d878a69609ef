"""What has to change for a data plane to be as desired. Computation only.

VIPs are compared as wholes: the core takes a VIP's complete configuration and finds the difference itself,
so that each VIP changes whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock_embedded.messages import (
    Announcement,
    BackendState,
    DesiredState,
    Error,
    NatSource,
    SchedulerType,
    Vip,
)
from penstock_embedded.refusals import UNBOUNDED, Bounds, places, refusals, source_refusals
from penstock_embedded.state import State


@dataclass(frozen=True)
class SetNode:
    """Set what all nodes of a DataPlane share: the key of the Maglev tables and their number."""

    scheduler_key: str
    nodes: int


@dataclass(frozen=True)
class SetSources:
    """Set the complete NAT sources."""

    sources: tuple[NatSource, ...]


@dataclass(frozen=True)
class RemoveVip:
    """Drain a VIP, then remove it."""

    id: str


@dataclass(frozen=True)
class SetVip:
    """Add a VIP or change it."""

    vip: Vip


Change = SetNode | SetSources | RemoveVip | SetVip


@dataclass(frozen=True)
class Plan:
    """Changes in the order in which they are to be made, and what cannot be: VIPs, and things of the node."""

    changes: tuple[Change, ...]
    refused: Mapping[str, Error]
    errors: tuple[Error, ...] = ()


def plan(
    desired: DesiredState,
    actual: State,
    found: Iterable[str] = (),
    bounds: Bounds = UNBOUNDED,
) -> Plan:
    """Return what turns `actual` into `desired`; no changes when it is so already.

    `found` are VIPs that the core has but `actual` does not: an arena outlived the state. `bounds` hold for addresses
    that VIPs do not have yet. Removals come first: what they free may be what another VIP takes. For the same reason
    VIPs that give up an address are changed before those that take it.
    """
    wanted = {vip.id: vip for vip in desired.vips}
    changed = {vip.id for vip in desired.vips if actual.vips.get(vip.id) != vip}
    refused = refusals(desired, actual, changed, bounds)
    changes: list[Change] = [RemoveVip(known) for known in sorted({*actual.vips, *found}) if known not in wanted]
    if (desired.scheduler_key, desired.nodes) != (actual.scheduler_key, actual.nodes):
        changes.append(SetNode(desired.scheduler_key, desired.nodes))
    errors = tuple(source_refusals(desired, actual, refused))
    if desired.nat_sources != actual.nat_sources and not errors:
        changes.append(SetSources(desired.nat_sources))
    changes += _in_order((vip for vip in wanted.values() if vip.id in changed and vip.id not in refused), actual)
    return Plan(tuple(changes), refused, errors)


def _in_order(vips: Iterable[Vip], actual: State) -> Iterator[Change]:
    """Set VIPs so that nothing is taken before it is given up.

    In a ring of VIPs that exchange their addresses nobody can be first: one of them is removed for the moment until it
    is set, which keeps the flows of addresses that stay.
    """
    waiting = {vip.id: vip for vip in vips}
    held = {known: places(vip) for known, vip in actual.vips.items() if known in waiting}
    holders = {place: known for known, those in held.items() for place in those}

    def give_up(known: str) -> None:
        for place in held.pop(known, ()):
            holders.pop(place, None)

    while waiting:
        free = [vip for vip in waiting.values() if all(holders.get(place, vip.id) == vip.id for place in places(vip))]
        if not free:
            ring = next(iter(waiting))
            yield RemoveVip(ring)
            give_up(ring)
        for vip in free:
            yield SetVip(waiting.pop(vip.id))
            give_up(vip.id)


def announceable(desired: DesiredState, actual: State) -> tuple[Announcement, tuple[Error, ...]]:
    """Return what may be announced of what is wanted: addresses of VIPs that are in force or drain.

    An address that no VIP asks for is an error: it may be another machine's. One whose VIP is refused waits for it.
    """
    wanted = desired.announcement
    in_force = actual.addresses()
    asked_for = in_force | {address for vip in desired.vips for address in vip.addresses}
    errors = tuple(
        Error(
            code="invalid",
            field=f"announcement.addresses.{place}",
            message=f"{address} is no VIP's address",
            fix="announce addresses of VIPs alone",
        )
        for place, address in enumerate(wanted.addresses)
        if address not in asked_for
    )
    allowed = tuple(address for address in wanted.addresses if address in in_force)
    return wanted.model_copy(update={"addresses": allowed}), errors


def warnings(vip: Vip) -> tuple[str, ...]:
    """Return what is accepted but will not be as written: weights finer than a Maglev table is."""
    if vip.scheduler.type is not SchedulerType.MAGLEV:
        return ()
    active = [backend for backend in vip.backends if backend.state is BackendState.ACTIVE and backend.weight > 0]
    total = sum(backend.weight for backend in active)
    size = vip.scheduler.table_size
    poor = [backend.id for backend in active if backend.weight / total * size < 1]
    if not poor:
        return ()
    need = max(total / backend.weight for backend in active)
    names = ", ".join(poor[:3]) + (f" and {len(poor) - 3} more" if len(poor) > 3 else "")
    return (
        f"scheduler.table_size: {size} entries are too few for the weight of {names}; use a prime above {need:.0f}",
    )

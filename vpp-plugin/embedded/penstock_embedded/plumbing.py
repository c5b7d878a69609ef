"""What the data plane asks of its node: routes to VIPs, steering of NAT ports, the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from penstock_node import (
    ApplyError,
    Change,
    CreateTun,
    CreateVeth,
    DesiredNode,
    NodeError,
    Tun,
    Veth,
    occupied_addresses,
    reconcile,
    what_blocks_forwarding,
)
from penstock_node import NatSource as NodeSource

from penstock_embedded.messages import Address, DesiredState, Error, NatSource
from penstock_embedded.settings import Settings
from penstock_embedded.state import State

log = structlog.get_logger()


@dataclass(frozen=True)
class Plumbed:
    """What came of reconciling the node."""

    changed: bool
    new_device: bool  # descriptors of an earlier device are dead
    errors: tuple[Error, ...]
    blocked: tuple[str, ...] = ()  # firewall chains that drop what is forwarded, each with its remedy


def tun_of(settings: Settings) -> Tun:
    """Return the device that the settings ask for."""
    return Tun(name=settings.device, queues=settings.queues)


def occupied(desired: DesiredState, actual: State) -> dict[Address, str]:
    """Return addresses that no VIP may take on this node; none where they cannot be read, or no VIP takes a new one."""
    if {address for vip in desired.vips for address in vip.addresses} <= actual.addresses():
        return {}
    try:
        return occupied_addresses()
    except NodeError as error:
        log.warning("VIPs are not compared with the node's addresses", error=str(error))
        return {}


def plumb(settings: Settings, addresses: Iterable[Address], sources: Iterable[NatSource]) -> Plumbed:
    """Make the node attract these VIP addresses and NAT ports; blocking. What fails is reported, not raised."""
    return plumb_device(
        tun_of(settings), addresses, sources, interfaces=settings.interfaces, shortcut=settings.shortcut
    )


def plumb_device(
    device: Tun | Veth,
    addresses: Iterable[Address],
    sources: Iterable[NatSource],
    *,
    interfaces: tuple[str, ...] = (),
    shortcut: bool = False,
) -> Plumbed:
    """Make the node lead these VIP addresses and NAT ports to a device; as `plumb`, for any make of data plane."""
    try:
        desired = DesiredNode(
            tun=device,
            vips=frozenset(addresses),
            nat_sources=frozenset(NodeSource(each.address, each.port_first, each.port_last) for each in sources),
            interfaces=interfaces,
            shortcut=shortcut,
        )
        changes = reconcile(desired)
    except ApplyError as error:
        errors = tuple(
            Error(code="internal", field="node", message=f"{change}: {reason}", fix="make the node allow this command")
            for change, reason in error.failures
        )
        return Plumbed(changed=True, new_device=_has_new_device(error.made), errors=errors)
    except (NodeError, ValueError, OSError) as error:
        fix = "run `penstock dataplane --preflight` for what the node lacks"
        return Plumbed(
            changed=False, new_device=False, errors=(Error(code="internal", field="node", message=str(error), fix=fix),)
        )
    for change in changes:
        log.info("node changed", change=str(change))
    return Plumbed(bool(changes), _has_new_device(changes), (), _what_blocks(desired))


def _what_blocks(desired: DesiredNode) -> tuple[str, ...]:
    """Return what a user should know of firewalls: health checks are packets of the node itself and pass them."""
    try:
        found = what_blocks_forwarding(desired)
    except (NodeError, OSError) as error:
        log.warning("firewall cannot be read", error=str(error))
        return ()
    return tuple(f"{each.message}; run `{' && '.join(each.remedy)}` on the node" for each in found)


def _has_new_device(changes: Iterable[Change]) -> bool:
    return any(isinstance(change, CreateTun | CreateVeth) for change in changes)

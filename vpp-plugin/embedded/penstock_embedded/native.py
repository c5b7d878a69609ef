"""Messages in the core's numbers, and the core's numbers as messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from penstock_embedded.messages import (
    Address,
    Backend,
    BackendState,
    BackendStatus,
    FeatureLevel,
    Forwarding,
    NatSource,
    Protocol,
    Refusal,
    SchedulerLoad,
    SchedulerType,
    Timeouts,
    Vip,
    VipStatus,
)

PROTOCOLS = {Protocol.TCP: 6, Protocol.UDP: 17}
SCHEDULERS = {
    SchedulerType.MAGLEV: 0,
    SchedulerType.SED: 1,
    SchedulerType.LSQ: 2,
    SchedulerType.ALIAS: 3,
    SchedulerType.P2C: 4,
}
LOADS = {SchedulerLoad.OPEN: 0, SchedulerLoad.ACTIVE: 1}
LEVELS = {FeatureLevel.OFF: 0, FeatureLevel.BASIC: 1, FeatureLevel.FULL: 2}
FORWARDING = {Forwarding.NAT: 0, Forwarding.GRE: 1, Forwarding.L3DSR: 2}
REFUSALS = {Refusal.REJECT: 0, Refusal.DROP: 1}
STATES = {BackendState.ACTIVE: 1, BackendState.DRAINING: 2, BackendState.FAILED: 3, BackendState.UNREADY: 4}
STATES_BACK = {number: state for state, number in STATES.items()}


def vip_number(identifier: str) -> int:
    """Return the core's id of a VIP: its 16 hexadecimal digits."""
    return int(identifier, 16)


def vip_identifier(number: int) -> str:
    """Return the id of a VIP from the core's."""
    return f"{number:016x}"


def backend_number(identifier: str) -> int:
    """Return the core's id of a backend: 64 bits of a hash of its name, never 0."""
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "big") or 1


def address_bytes(address: Address) -> bytes:
    """Return 16 bytes, IPv4 mapped into IPv6."""
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def address_of(packed: bytes) -> Address:
    """Return the address that 16 bytes stand for."""
    address = IPv6Address(packed)
    return IPv4Address(packed[12:]) if address.ipv4_mapped is not None else address


def source(value: NatSource) -> tuple[bytes, int, int]:
    """Return a NAT source as `EmbeddedDataplane.set_sources` takes it."""
    return address_bytes(value.address), value.port_first, value.port_last


def vip_arguments(vip: Vip) -> dict[str, Any]:
    """Return the keyword arguments of `EmbeddedDataplane.set_vip`."""
    return {
        "addresses": [address_bytes(address) for address in vip.addresses],
        "port": vip.port,
        "protocol": PROTOCOLS[vip.protocol],
        "client_affinity": vip.client_affinity,
        "when_no_backends": REFUSALS[vip.when_no_backends],
        "when_no_flow": REFUSALS[vip.when_no_flow],
        "scheduler": SCHEDULERS[vip.scheduler.type],
        "load": LOADS[vip.scheduler.load],
        "table_size": vip.scheduler.table_size,
        "level": LEVELS[vip.features],
        "forwarding": FORWARDING[vip.forwarding],
        "dscp": vip.dscp,
        "tunnel_mtu": vip.tunnel_mtu if vip.forwarding is Forwarding.GRE else 0,
        "timeouts_ms": _milliseconds(vip.timeouts),
        "drain_ms": round(vip.drain_timeout * 1000),
        "backends": [_backend(backend) for backend in vip.backends],
    }


def vip_status(status: Mapping[str, Any], key: str, names: Mapping[int, str]) -> VipStatus:
    """Return the status of a VIP from `EmbeddedDataplane.vip_status`."""
    backends = tuple(_backend_status(row, names) for row in status["backends"])
    return VipStatus(
        id=vip_identifier(status["id"]),
        key=key,
        frames="/" + status["frames"],
        actions="/" + status["actions"],
        slots=status["slots"],
        backends=backends,
    )


def _backend(backend: Backend) -> tuple[int, bytes, int, int, float]:
    number, address = backend_number(backend.id), address_bytes(backend.address)
    return number, address, backend.port, STATES[backend.state], backend.weight


def _backend_status(row: Mapping[str, Any], names: Mapping[int, str]) -> BackendStatus:
    return BackendStatus(
        id=names.get(row["id"], f"{row['id']:016x}"),
        slot=row["slot"],
        address=address_of(row["address"]),
        port=row["port"],
        state=STATES_BACK[row["state"]],
        weight=row["weight"],
        base=row["base"],
        open_flows=row["open_flows"],
        flows=row["flows"],
        packets=row["packets"],
        bytes=row["bytes"],
    )


def _milliseconds(timeouts: Timeouts) -> list[int]:
    # The core's order is that of the message's fields.
    return [max(1, round(getattr(timeouts, name) * 1000)) for name in Timeouts.model_fields]

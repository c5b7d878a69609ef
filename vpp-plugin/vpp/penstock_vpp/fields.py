"""Messages as fields of the plugin's API, and its details as messages. Computation only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock_embedded import native
from penstock_embedded.messages import BackendStatus, Forwarding, NatSource, Timeouts, Vip, VipStatus

ADDRESSES_MAX = 8


def source(value: NatSource) -> dict[str, Any]:
    """Return a NAT source."""
    return {"address": value.address, "port_first": value.port_first, "port_last": value.port_last}


def vip(value: Vip) -> dict[str, Any]:
    """Return a VIP's complete configuration."""
    backends = [
        {
            "id": native.backend_number(backend.id),
            "address": backend.address,
            "port": backend.port,
            "state": native.STATES[backend.state],
            "weight": backend.weight,
        }
        for backend in value.backends
    ]
    return {
        "id": native.vip_number(value.id),
        "protocol": native.PROTOCOLS[value.protocol],
        "port": value.port,
        "client_affinity": value.client_affinity,
        "when_no_backends": native.REFUSALS[value.when_no_backends],
        "when_no_flow": native.REFUSALS[value.when_no_flow],
        "scheduler": native.SCHEDULERS[value.scheduler.type],
        "load": native.LOADS[value.scheduler.load],
        "forwarding": native.FORWARDING[value.forwarding],
        "dscp": value.dscp,
        "mtu": value.tunnel_mtu if value.forwarding is Forwarding.GRE else 0,
        "feature_level": native.LEVELS[value.features],
        "table_size": value.scheduler.table_size,
        "drain_timeout": round(value.drain_timeout * 1000),
        "timeouts": {name: max(1, round(getattr(value.timeouts, name) * 1000)) for name in Timeouts.model_fields},
        "address_count": len(value.addresses),
        "addresses": [*value.addresses, *[value.addresses[0]] * (ADDRESSES_MAX - len(value.addresses))],
        "count": len(backends),
        "backends": backends,
    }


def vip_status(details: Any, backends: Iterable[Any], key: str, names: Mapping[int, str]) -> VipStatus:
    """Return the status of a VIP from its details and its backends'."""
    return VipStatus(
        id=native.vip_identifier(details.id),
        key=key,
        frames="/" + details.frames,
        actions="/" + details.actions,
        slots=details.slots,
        backends=tuple(_backend_status(each, names) for each in backends),
    )


def _backend_status(details: Any, names: Mapping[int, str]) -> BackendStatus:
    backend = details.backend
    return BackendStatus(
        id=names.get(backend.id, f"{backend.id:016x}"),
        slot=details.slot,
        address=backend.address,
        port=backend.port,
        state=native.STATES_BACK[int(backend.state)],
        weight=backend.weight,
        base=getattr(details, "base", 0.0),  # a plugin of API version 1.3 has none
        open_flows=details.open_flows,
        flows=details.flows,
        packets=details.packets,
        bytes=details.bytes,
    )


def dropped(reply: Any) -> dict[str, int]:
    """Return drops by reason from the reply to `lb_rl_stats_get`."""
    return {each.reason: each.packets for each in reply.dropped if each.reason != "none"}

"""From EndpointSlices and static endpoints to the backends of one port of a VIP. Computation only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from penstock_api.fields import is_unicast
from penstock_api.vip import Endpoint as StaticEndpoint
from penstock_embedded.messages import Backend, BackendState

Address = IPv4Address | IPv6Address

LARGEST_WEIGHT = 1e6  # of messages.Backend
SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class SlicePort:
    """A port of a slice, by the name that the Service gives it."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """A server of a slice; conditions with Kubernetes' defaults filled in."""

    address: Address
    uid: str  # of the pod; "" for what is no pod
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """What is kept of an EndpointSlice."""

    service: str
    ports: tuple[SlicePort, ...]
    endpoints: tuple[SliceEndpoint, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Backends of one port and family, and what was wrong with the rest."""

    backends: tuple[Backend, ...]
    problems: tuple[str, ...]


def prune_slice(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep of a slice what `read_slice` reads: a tenth of it, where there are thousands."""
    metadata = raw["metadata"]
    # Slices of names (addressType FQDN) are for others: a packet needs an address.
    endpoints = raw.get("endpoints") or () if raw.get("addressType") in ("IPv4", "IPv6") else ()
    return {
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
        "service": (metadata.get("labels") or {}).get(SERVICE_LABEL, ""),
        "ports": [
            {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
            for port in raw.get("ports") or ()
            if port.get("port")
        ],
        "endpoints": [_prune_endpoint(endpoint) for endpoint in endpoints if endpoint["addresses"]],
    }


def _prune_endpoint(raw: dict[str, Any]) -> list[Any]:
    # The addresses of one endpoint are interchangeable by contract, so the first stands for all.
    conditions = raw.get("conditions") or {}
    ready = conditions.get("ready") is not False  # absent means ready
    serving = conditions.get("serving")
    return [
        raw["addresses"][0],
        (raw.get("targetRef") or {}).get("uid") or "",
        ready,
        ready if serving is None else serving,
        conditions.get("terminating") is True,
    ]


def read_slice(pruned: Mapping[str, Any]) -> Slice:
    """Turn what `prune_slice` kept into a value."""
    return Slice(
        service=pruned["service"],
        ports=tuple(SlicePort(**port) for port in pruned["ports"]),
        endpoints=tuple(SliceEndpoint(_address(text), *rest) for text, *rest in pruned["endpoints"]),
    )


def _address(text: str) -> Address:
    # Some write IPv4 addresses as IPv6; the API server lets them stand in slices.
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def from_slices(
    slices: Iterable[Slice], target: int | str, protocol: str, version: int, vip_addresses: Collection[Address]
) -> Resolved:
    """Resolve a Service's endpoints of one IP version for a target port, by number or by the Service's name for it.

    Ready endpoints are active, terminating ones drain, others are not ready and keep what is open. Where none is ready,
    terminating ones that still serve are active, as kube-proxy has it: a late answer is better than none. An endpoint
    found in several slices (they overlap while a controller moves it) counts once, in its best state.
    """
    ready: dict[str, Backend] = {}
    leaving: dict[str, Backend] = {}
    idle: dict[str, Backend] = {}
    problems: list[str] = []
    named = False
    for piece in slices:
        port = _port_of(piece, target, protocol)
        if port is None:
            continue
        named = True
        for endpoint in piece.endpoints:
            address = endpoint.address
            if address.version != version:
                continue
            if refusal := _refusal(address, vip_addresses):
                problems.append(refusal)
            elif endpoint.ready and not endpoint.terminating:
                backend = _backend(endpoint.uid, address, port, BackendState.ACTIVE)
                ready[backend.id] = backend
            else:
                state = BackendState.DRAINING if endpoint.terminating else BackendState.UNREADY
                backend = _backend(endpoint.uid, address, port, state)
                (leaving if endpoint.terminating and endpoint.serving else idle)[backend.id] = backend
    if not named and any(piece.endpoints for piece in slices):
        problems.append(
            f"ports: targetPort {target!r}: the Service has no {protocol} port of this name; "
            "use a name from its spec.ports, or the number of the pods' port"
        )
    if not ready:
        ready = {key: backend.model_copy(update={"state": BackendState.ACTIVE}) for key, backend in leaving.items()}
    return Resolved(_sorted({**idle, **leaving, **ready}.values()), tuple(dict.fromkeys(problems)))


def from_static(
    endpoints: Iterable[StaticEndpoint], target: int, version: int, vip_addresses: Collection[Address]
) -> Resolved:
    """Take endpoints that a user listed, of one IP version; a port of their own goes before the VIP's targetPort."""
    backends: dict[str, Backend] = {}
    problems: list[str] = []
    for endpoint in endpoints:
        if endpoint.address.version != version:
            continue
        if refusal := _refusal(endpoint.address, vip_addresses):
            problems.append(refusal)
            continue
        backend = _backend("", endpoint.address, endpoint.port or target, BackendState.ACTIVE, endpoint.weight)
        if backend.id in backends:
            # With port 0 and the same port spelled out, one server may be listed twice: it counts once.
            weight = min(backend.weight + backends[backend.id].weight, LARGEST_WEIGHT)
            backend = backend.model_copy(update={"weight": weight})
        backends[backend.id] = backend
    return Resolved(_sorted(backends.values()), tuple(problems))


def _port_of(piece: Slice, target: int | str, protocol: str) -> int | None:
    if isinstance(target, int):
        return target
    return next((p.port for p in piece.ports if p.name == target and p.protocol == protocol), None)


def _backend(uid: str, address: Address, port: int, state: BackendState, weight: float = 1.0) -> Backend:
    if not uid:
        uid = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    return Backend(id=uid, address=address, port=port, state=state, weight=weight)


def _sorted(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    return tuple(sorted(backends, key=lambda backend: backend.id))


# A plan looks at every endpoint again, and nearly all of them it has seen before.
_is_unicast = lru_cache(maxsize=65_536)(is_unicast)


def _refusal(address: Address, vip_addresses: Collection[Address]) -> str:
    if not _is_unicast(address):
        return f"endpoint {address}: loopback, link-local and other special addresses are refused; use a routable one"
    if address in vip_addresses:
        return f"endpoint {address}: is the address of a VIP, which would be a loop; use the server's own address"
    return ""

"""EndpointSlices and Services as they are read from the API server: what is usable of them, and what is not.

The API server accepts ports and addresses that no packet can be sent to. Whatever it accepts is read here without an
exception: what cannot be used is left out and named. Computation only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

Address = IPv4Address | IPv6Address

SERVICE_LABEL = "kubernetes.io/service-name"
FAULTS_LIMIT = 8  # of one slice that are named
VALUE_LIMIT = 64  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class SlicePort:
    """A port of a slice, by the name that the Service gives it."""

    name: str
    protocol: str
    port: int | None  # None: every port. Any other number as it was written: a slice may have 70000

    @property
    def usable(self) -> bool:
        """Whether packets can be sent to it."""
        return self.port is not None and 1 <= self.port <= 65535


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """A server of a slice; conditions with Kubernetes' defaults filled in."""

    address: Address
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """What is kept of an EndpointSlice."""

    name: str
    service: str
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()
    faults: tuple[str, ...] = ()  # endpoints that cannot be used: field, value and fix
    named: bool = False  # its endpoints are names (addressType FQDN), not addresses


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service and where it leads: a number, or the name of a port of the pods."""

    name: str
    protocol: str
    port: int
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """What is kept of a Service."""

    external: bool = False  # type ExternalName: it has no endpoints
    ports: tuple[ServicePort, ...] = ()


def read_slice(raw: Mapping[str, Any]) -> Slice:
    """Keep of a slice what is needed: a tenth of it, where there are thousands."""
    metadata = _mapping(raw.get("metadata"))
    # Slices of names (addressType FQDN) are for others: a packet needs an address.
    of_addresses = raw.get("addressType") in ("IPv4", "IPv6")
    endpoints: list[SliceEndpoint] = []
    faults: list[str] = []
    for index, endpoint in enumerate(_mappings(raw.get("endpoints")) if of_addresses else ()):
        found = _endpoint(index, endpoint)
        if isinstance(found, SliceEndpoint):
            endpoints.append(found)
        elif found:
            faults.append(found)
    return Slice(
        name=_text(metadata.get("name")),
        service=_text(_mapping(metadata.get("labels")).get(SERVICE_LABEL)),
        ports=tuple(_ports(raw)),
        endpoints=tuple(endpoints),
        faults=_some(faults),
        named=not of_addresses and bool(raw.get("endpoints")),
    )


def _ports(raw: Mapping[str, Any]) -> Iterator[SlicePort]:
    for port in _mappings(raw.get("ports")):
        yield SlicePort(_text(port.get("name")), _text(port.get("protocol")) or "TCP", _number(port.get("port")))


def _endpoint(index: int, raw: Mapping[str, Any]) -> SliceEndpoint | str:
    """Read an endpoint, or return why it cannot be used; "" for one without addresses."""
    # The addresses of one endpoint are interchangeable by contract, so the first stands for all.
    addresses = raw.get("addresses")
    if not isinstance(addresses, Sequence) or isinstance(addresses, str) or not addresses:
        return ""
    address = parse_address(addresses[0])
    if address is None:
        return f"endpoints[{index}].addresses[0]: {show(addresses[0])} is no IP address in its usual form"
    conditions = _mapping(raw.get("conditions"))
    ready = conditions.get("ready") is not False  # absent means ready
    serving = conditions.get("serving")
    terminating = conditions.get("terminating") is True
    return SliceEndpoint(address, ready, ready if serving is None else bool(serving), terminating)


def parse_address(text: object) -> Address | None:
    """Read an address; None for what is none, or none that a packet can be sent to from here."""
    try:
        address = ip_address(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return address
    # Some write IPv4 addresses as IPv6; the API server lets them stand in slices.
    return address.ipv4_mapped or (address if address.scope_id is None else None)


def read_service(raw: Mapping[str, Any]) -> Service:
    """Keep of a Service its ports, and whether it has endpoints at all."""
    spec = _mapping(raw.get("spec"))
    ports = []
    for port in _mappings(spec.get("ports")):
        number, target = _number(port.get("port")), port.get("targetPort")
        if number is not None:
            name, protocol = _text(port.get("name")), _text(port.get("protocol")) or "TCP"
            ports.append(ServicePort(name, protocol, number, target if isinstance(target, int | str) else number))
    return Service(external=spec.get("type") == "ExternalName", ports=tuple(ports))


def show(value: object) -> str:
    """Return a value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= VALUE_LIMIT else f"{text[: VALUE_LIMIT - 3]}..."


def _some(faults: Sequence[str]) -> tuple[str, ...]:
    if len(faults) <= FAULTS_LIMIT:
        return tuple(faults)
    return (*faults[:FAULTS_LIMIT], f"{len(faults) - FAULTS_LIMIT} more endpoints cannot be used")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    return (_mapping(item) for item in value) if isinstance(value, list | tuple) else iter(())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

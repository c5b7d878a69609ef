"""From EndpointSlices and static endpoints to the backends of one port of a VIP. Computation only.

A server is its address and port, whatever pod or object has it: a pod that takes over the address and port of another
one takes over its flows. The id of a backend is its address alone where that has one port, so that the ports of a VIP
have the same ids and `ClientIP` leads a client to the same server on all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from penstock_api.dataplanenodereport import FINDING_TEXT_LIMIT, Finding, FindingReason
from penstock_api.fields import is_unicast
from penstock_api.vip import Endpoint as StaticEndpoint
from penstock_embedded.messages import Backend, BackendState

from penstock_agent.slices import Address, Service, Slice, SliceEndpoint, SlicePort, show

LARGEST_WEIGHT = 1e6  # of messages.Backend
NAMES_SHOWN = 8  # of ports and addresses in a message
FIELD_LIMIT = 256  # of penstock_api's Finding
PROTOCOLS = ("TCP", "UDP", "SCTP")

UNRESOLVABLE = frozenset(
    {
        FindingReason.SERVICE_NOT_FOUND,
        FindingReason.EXTERNAL_NAME,
        FindingReason.PORT_NOT_FOUND,
        FindingReason.PROTOCOL_MISMATCH,
    }
)
"""Reasons by which a spec leads nowhere, so that the last backends are kept. A Service without pods leads to none."""

# Of the states that one server has in several slices, the best first.
_PREFERENCE = (BackendState.ACTIVE, BackendState.DRAINING, BackendState.UNREADY)

Server = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which endpoints of a Service one port of a VIP asks for, in one IP version."""

    service: str  # namespace/name
    field: str  # of the VIP's port: spec.ports[0]
    port: int
    protocol: str
    target: int | str | None  # None: what the Service's port of this number leads to, else the number itself
    version: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """Backends of one port and family."""

    backends: tuple[Backend, ...]
    shortfall: Finding | None = None  # why no backend takes new flows
    notes: tuple[Finding, ...] = ()  # what was left out

    @property
    def leads_nowhere(self) -> bool:
        """Whether the spec names a Service or port that does not exist."""
        return self.shortfall is not None and self.shortfall.reason in UNRESOLVABLE


def finding(reason: FindingReason, message: str, field: str = "") -> Finding:
    """Return a finding whose texts fit the object that it is reported in."""
    cut = message if len(message) <= FINDING_TEXT_LIMIT else f"{message[: FINDING_TEXT_LIMIT - 3]}..."
    return Finding(reason=str(reason), field=field[:FIELD_LIMIT], message=cut)


def from_slices(
    slices: Sequence[Slice], service: Service | None, wanted: Wanted, forbidden: Collection[Address]
) -> Resolved:
    """Resolve the endpoints of a Service (None: it does not exist) for a port of a VIP.

    Ready endpoints are active, terminating ones drain, others are not ready and keep what is open. Where none is ready,
    terminating ones that still serve are active, as kube-proxy has it: a late answer is better than none. A server
    found several times (slices overlap while a controller moves it) counts once, in its best state.
    """
    search = _Search(wanted, forbidden)
    for piece in slices:
        search.add(piece, service)
    states = search.states
    notes = [*search.notes, *_refused(search.refused)]
    if search.serving and BackendState.ACTIVE not in states.values():
        notes.append(_only_terminating(len(search.serving), wanted))
        states |= dict.fromkeys(search.serving, BackendState.ACTIVE)
    backends = [(server, state, 1.0) for server, state in states.items()]
    shortfall = None if BackendState.ACTIVE in states.values() else _shortfall(slices, service, search)
    return Resolved(_identified(backends), shortfall, tuple(notes))


@dataclass
class _Search:
    """What slices have for a port of a VIP."""

    wanted: Wanted
    forbidden: Collection[Address]
    states: dict[Server, BackendState] = field(default_factory=dict)
    serving: set[Server] = field(default_factory=set)  # of those that drain
    refused: dict[Address, str] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    matched: bool = False  # some slice with endpoints has the port
    versions: set[int] = field(default_factory=set)  # of the endpoints of such slices

    def add(self, piece: Slice, service: Service | None) -> None:
        """Take the endpoints of a slice that has the port."""
        self.notes += [_unusable(self.wanted, piece, fault) for fault in piece.faults]
        port = _matching(piece, service, self.wanted)
        if port is None:
            return
        self.matched |= bool(piece.endpoints)
        if port.port is None or not port.usable:
            fix = "use a number from 1 to 65535; its endpoints are left out"
            fault = f"ports[{piece.ports.index(port)}].port: {show(port.port)} is no port; {fix}"
            self.notes.append(_unusable(self.wanted, piece, fault))
            return
        for endpoint in piece.endpoints:
            self._add_endpoint(endpoint, port.port)

    def _add_endpoint(self, endpoint: SliceEndpoint, port: int) -> None:
        address = endpoint.address
        self.versions.add(address.version)
        if address.version != self.wanted.version:
            return
        if refusal := _refusal(address, self.forbidden):
            self.refused[address] = refusal
            return
        state = _state(endpoint)
        if state is BackendState.DRAINING and endpoint.serving:
            self.serving.add((address, port))
        known = self.states.get((address, port), state)
        self.states[address, port] = min(known, state, key=_PREFERENCE.index)


def _state(endpoint: SliceEndpoint) -> BackendState:
    """Return what an endpoint's conditions mean for its flows."""
    if endpoint.terminating:
        return BackendState.DRAINING
    return BackendState.ACTIVE if endpoint.ready else BackendState.UNREADY


def _matching(piece: Slice, service: Service | None, wanted: Wanted) -> SlicePort | None:
    """Return the port of a slice that a VIP's port leads to."""
    ports = [port for port in piece.ports if port.protocol == wanted.protocol]
    name = _port_name(service, wanted)
    if name is not None:
        found = next((port for port in ports if port.name == name), None)
        if found is not None or wanted.target is None:
            return found
    if isinstance(wanted.target, str):
        # A Service with one port need not name it; any name is that of the only port then.
        return ports[0] if len(piece.ports) == 1 and ports and not ports[0].name else None
    number = wanted.port if wanted.target is None else wanted.target
    if any(port.port is None for port in ports):  # by contract: every port
        return SlicePort("", wanted.protocol, number)
    return next((port for port in ports if port.port == number), None)


def _port_name(service: Service | None, wanted: Wanted) -> str | None:
    """Return the name that slices have for the Service's port which a VIP's port means, None if it means a number."""
    ports = [port for port in service.ports if port.protocol == wanted.protocol] if service else []
    if wanted.target is None:
        return next((port.name for port in ports if port.port == wanted.port), None)
    if isinstance(wanted.target, int):
        return None
    if any(port.name == wanted.target for port in ports):
        return wanted.target
    # As in a Service, the name may be that of the pods' port.
    return next((port.name for port in ports if port.target == wanted.target), wanted.target)


def _shortfall(slices: Sequence[Slice], service: Service | None, search: _Search) -> Finding:
    """Say why no endpoint takes new flows: the first of the reasons that holds."""
    wanted = search.wanted
    named = f"Service {wanted.service}"
    if service is not None and service.external:
        message = f"spec.backends.service.name: {named} is of type ExternalName, which has no endpoints"
        fix = "use a Service with a selector, or list spec.backends.endpoints"
        return finding(FindingReason.EXTERNAL_NAME, f"{message}; {fix}", "spec.backends.service.name")
    if not any(piece.endpoints for piece in slices):
        return _no_endpoints(slices, service, search)
    if not search.matched:
        return _no_port(slices, service, wanted)
    if search.versions and wanted.version not in search.versions:
        message = (
            f"spec.addressFamilies: {named} has no IPv{wanted.version} endpoint; give it the family, or leave it out"
        )
        return finding(FindingReason.FAMILY_MISMATCH, message, "spec.addressFamilies")
    if search.refused or not search.versions:
        return next(iter([*_refused(search.refused), *search.notes]))
    message = f"{named}: none of its endpoints is ready; check its pods' readiness"
    return finding(FindingReason.NO_READY_ENDPOINTS, message, "spec.backends.service.name")


def _no_endpoints(slices: Sequence[Slice], service: Service | None, search: _Search) -> Finding:
    where, named = "spec.backends.service.name", f"Service {search.wanted.service}"
    if service is None:
        message = f"{where}: {named} does not exist; create it or correct the name"
        return finding(FindingReason.SERVICE_NOT_FOUND, message, where)
    if search.notes:
        return search.notes[0]
    names = [piece.name for piece in slices if piece.named]
    if names:
        message = (
            f"EndpointSlice {_namespace(search.wanted)}/{names[0]}: addressType: it lists names instead of addresses"
        )
        return finding(
            FindingReason.ENDPOINT_INVALID, f"{message}; use a Service whose endpoints have addresses", where
        )
    message = f"{named} has no endpoints; check its selector and that its pods run"
    return finding(FindingReason.NO_ENDPOINT_SLICES, message, where)


def _no_port(slices: Sequence[Slice], service: Service | None, wanted: Wanted) -> Finding:
    where = f"{wanted.field}.{'port' if wanted.target is None else 'targetPort'}"
    value = wanted.port if wanted.target is None else show(wanted.target)
    for protocol in PROTOCOLS:
        other = Wanted(wanted.service, wanted.field, wanted.port, protocol, wanted.target, wanted.version)
        if any(piece.endpoints and _matching(piece, service, other) for piece in slices):
            message = f"{wanted.field}.protocol: the VIP's port is {wanted.protocol}, port {value} of Service "
            message += f"{wanted.service} is {protocol}; change either protocol"
            return finding(FindingReason.PROTOCOL_MISMATCH, message, f"{wanted.field}.protocol")
    message = f"{where}: no endpoint of Service {wanted.service} has {wanted.protocol} port {value}"
    fix = f"set {wanted.field}.targetPort to one that it has: {_ports_shown(slices)}"
    if isinstance(wanted.target, str) and wanted.target.isdigit():
        fix += f"; if the number is meant, write {wanted.target} without quotes"
    return finding(FindingReason.PORT_NOT_FOUND, f"{message}; {fix}", where)


def _ports_shown(slices: Sequence[Slice]) -> str:
    ports = {port: None for piece in slices for port in piece.ports}
    shown = [_port_shown(port) for port in ports]

    return listed(shown) or "none"


def _port_shown(port: SlicePort) -> str:
    number = "any" if port.port is None else port.port
    return f"{port.name} ({number}/{port.protocol})" if port.name else f"{number}/{port.protocol}"


def listed(shown: Sequence[str]) -> str:
    """Return the first few of some words, and how many more there are."""
    more = f" and {len(shown) - NAMES_SHOWN} more" if len(shown) > NAMES_SHOWN else ""
    return f"{', '.join(shown[:NAMES_SHOWN])}{more}"


def _namespace(wanted: Wanted) -> str:
    return wanted.service.partition("/")[0]


def _unusable(wanted: Wanted, piece: Slice, fault: str) -> Finding:
    return finding(FindingReason.ENDPOINT_INVALID, f"EndpointSlice {_namespace(wanted)}/{piece.name}: {fault}")


def _only_terminating(count: int, wanted: Wanted) -> Finding:
    message = f"Service {wanted.service}: no endpoint is ready; {count} that are terminating but still serve are used"
    return finding(FindingReason.ONLY_TERMINATING, message)


def _refused(refused: Mapping[Address, str]) -> list[Finding]:
    found = [finding(FindingReason.ENDPOINT_NOT_ALLOWED, text) for text in list(refused.values())[:NAMES_SHOWN]]
    if len(refused) > NAMES_SHOWN:
        message = f"{len(refused) - NAMES_SHOWN} more endpoints are refused for their addresses"
        found.append(finding(FindingReason.ENDPOINT_NOT_ALLOWED, message))
    return found


def keep(before: Iterable[Backend], slices: Iterable[Slice], forbidden: Collection[Address]) -> tuple[Backend, ...]:
    """Return the backends of before that are still endpoints of their Service, whatever its ports are called now."""
    states: dict[Address, BackendState] = {}
    for piece in slices:
        for endpoint in piece.endpoints:
            if endpoint.address in forbidden:
                continue
            state = _state(endpoint)
            states[endpoint.address] = min(states.get(endpoint.address, state), state, key=_PREFERENCE.index)
    return _identified([((b.address, b.port), states[b.address], b.weight) for b in before if b.address in states])


def from_static(
    endpoints: Iterable[tuple[int, StaticEndpoint]], target: int, version: int, forbidden: Collection[Address]
) -> Resolved:
    """Take endpoints that a user listed, with their places, of one IP version.

    A port of their own goes before the VIP's target port.
    """
    weights: dict[Server, float] = {}
    notes: list[Finding] = []
    for index, endpoint in endpoints:
        if endpoint.address.version != version:
            continue
        if refusal := _refusal(endpoint.address, forbidden):
            where = f"spec.backends.endpoints[{index}].address"
            notes.append(finding(FindingReason.ENDPOINT_NOT_ALLOWED, f"{where}: {refusal}", where))
            continue
        # With port 0 and the same port spelled out, one server may be listed twice: it counts once.
        server = endpoint.address, endpoint.port or target
        weights[server] = min(weights.get(server, 0.0) + endpoint.weight, LARGEST_WEIGHT)
    backends = _identified([(server, BackendState.ACTIVE, weight) for server, weight in weights.items()])
    return Resolved(backends, _no_weight(backends, version) if not any(weights.values()) else None, tuple(notes))


def _no_weight(backends: Sequence[Backend], version: int) -> Finding:
    where = "spec.backends.endpoints"
    if backends:
        message = f"{where}: all {len(backends)} IPv{version} endpoints have weight 0; give one a weight above 0"
        return finding(FindingReason.ALL_WEIGHTS_ZERO, message, where)
    message = f"{where}: no IPv{version} endpoint can be used; add one, or leave the family out of spec.addressFamilies"
    return finding(FindingReason.FAMILY_MISMATCH, message, where)


def _identified(found: Iterable[tuple[Server, BackendState, float]]) -> tuple[Backend, ...]:
    """Give servers their ids: the address, with the port where the address has several."""
    found = list(found)
    ports: defaultdict[Address, set[int]] = defaultdict(set)
    for (address, port), _, _ in found:
        ports[address].add(port)
    backends = (
        Backend(
            id=str(address) if len(ports[address]) == 1 else f"{_in_brackets(address)}:{port}",
            address=address,
            port=port,
            state=state,
            weight=weight,
        )
        for (address, port), state, weight in found
    )
    return tuple(sorted(backends, key=lambda backend: backend.id))


def _in_brackets(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


# A plan looks at every endpoint again, and nearly all of them it has seen before.
_is_unicast = lru_cache(maxsize=65_536)(is_unicast)


def _refusal(address: Address, forbidden: Collection[Address]) -> str:
    if not _is_unicast(address):
        return f"endpoint {address}: loopback, link-local and other special addresses are refused; use a routable one"
    return _loop(address) if address in forbidden else ""


def _loop(address: Address) -> str:
    return f"endpoint {address}: is the address of a VIP, which would be a loop; use the server's own address"


def without_loops(
    backends: Sequence[Backend], forbidden: Collection[Address]
) -> tuple[tuple[Backend, ...], tuple[Finding, ...]]:
    """Return the backends that are not at a forbidden address, and why the others are left out."""
    left = tuple(backend for backend in backends if backend.address not in forbidden)
    looping = {backend.address: _loop(backend.address) for backend in backends if backend.address in forbidden}
    return left, tuple(_refused(looping))

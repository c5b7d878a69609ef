"""Whether a VIP is accepted: its DataPlane, addresses, endpoints, Service and policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_api import DataPlane, HeldPort, LoadBalancerVIP, Reason, RLPolicy
from penstock_api.fields import IPAddress
from penstock_api.names import DEFAULT_ANNOTATION

from penstock_operator.plan.allocation import Problem, World, assign
from penstock_operator.plan.ledger import Claim


@dataclass(frozen=True)
class Neighbours:
    """Objects that a VIP refers to."""

    data_planes: Mapping[str, DataPlane]
    service_exists: bool = True
    policy: RLPolicy | None = None
    policy_names: tuple[str, ...] = ()  # of the VIP's namespace


@dataclass(frozen=True)
class Verdict:
    """What becomes of a VIP; with a `problem` it is not accepted, `warnings` are for accepted ones too."""

    data_plane: DataPlane | None
    addresses: tuple[IPAddress, ...]
    problem: Problem | None = None
    warnings: tuple[Problem, ...] = ()
    ports: tuple[HeldPort, ...] = ()  # that it holds on its addresses
    address_pool: str | None = None  # that its addresses were given for

    @property
    def accepted(self) -> bool:
        """Whether the spec is in force."""
        return self.problem is None


def judge(vip: LoadBalancerVIP, neighbours: Neighbours, world: World) -> Verdict:
    """Decide on a VIP. Addresses are decided on even if something else is wrong, so that they are not lost."""
    data_plane, problem = choose_data_plane(vip, neighbours.data_planes)
    if data_plane is not None:
        problem = _sharing_problem(vip, data_plane, world)
    if data_plane is None or problem is not None:
        return Verdict(None, vip.status.addresses, problem, (), vip.status.ports, vip.status.address_pool)
    assignment = assign(vip, world, data_plane.metadata.name)
    problem = (
        assignment.problem
        or _endpoint_problem(vip, data_plane, world)
        or (None if neighbours.service_exists else _service_problem(vip))
    )
    warnings = (*assignment.warnings, *_policy_warnings(vip, neighbours))
    if assignment.problem:
        return Verdict(data_plane, assignment.addresses, problem, warnings, vip.status.ports, vip.status.address_pool)
    ports = tuple(HeldPort(port=port.port, protocol=port.protocol) for port in vip.spec.ports)
    return Verdict(data_plane, assignment.addresses, problem, warnings, ports, vip.spec.address_pool)


def _sharing_problem(vip: LoadBalancerVIP, data_plane: DataPlane, world: World) -> Problem | None:
    """Return which VIP keeps this one from another DataPlane than the one that it leaves.

    It shares an address with that VIP, which two DataPlanes cannot serve; it keeps the address and is not served.
    """
    name = data_plane.metadata.name
    if not vip.status.addresses or vip.status.data_plane_name == name:
        return None
    claim = Claim.of(vip, name)
    for address in vip.status.addresses:
        other = world.ledger.other_holder(claim, address)
        if other is not None and other.name[0] == claim.name[0]:
            message = (
                f"{address} is shared with VIP {'/'.join(other.name)}, which DataPlane {other.data_plane} serves; "
                f"set spec.dataPlaneName of the VIPs to one DataPlane, or choose another address"
            )
            return Problem(Reason.ADDRESS_CONFLICT, message)
    return None


def choose_data_plane(
    vip: LoadBalancerVIP, data_planes: Mapping[str, DataPlane]
) -> tuple[DataPlane | None, Problem | None]:
    """Find the DataPlane of a VIP: the named one, the one that serves it already, or the only default."""
    name = vip.spec.data_plane_name
    if name is None:
        return _default_data_plane(vip, data_planes)
    found = data_planes.get(name)
    if found is None or found.deleting:
        have = ", ".join(n for n, other in sorted(data_planes.items()) if not other.deleting) or "none"
        state = "is being deleted" if found else "does not exist"
        message = f"spec.dataPlaneName: DataPlane {name} {state} (there is: {have}); create it, or recreate the VIP"
        return None, Problem(Reason.DATAPLANE_NOT_FOUND, message)
    return found, None


def _default_data_plane(
    vip: LoadBalancerVIP, data_planes: Mapping[str, DataPlane]
) -> tuple[DataPlane | None, Problem | None]:
    # A VIP in service stays where it is: moving the annotation must not move traffic.
    current = data_planes.get(vip.status.data_plane_name or "")
    if current is not None and not current.deleting and vip.status.addresses:
        return current, None
    defaults = [
        data_plane
        for _, data_plane in sorted(data_planes.items())
        if data_plane.metadata.annotations.get(DEFAULT_ANNOTATION) == "true" and not data_plane.deleting
    ]
    if len(defaults) == 1:
        return defaults[0], None
    annotation = f'{DEFAULT_ANNOTATION}: "true"'
    if defaults:
        names = ", ".join(data_plane.metadata.name for data_plane in defaults)
        message = f"several DataPlanes are annotated {annotation} ({names}); leave one, or set spec.dataPlaneName"
    else:
        message = f"no DataPlane is annotated {annotation}; annotate one, or set spec.dataPlaneName"
    return None, Problem(Reason.DATAPLANE_NOT_FOUND, message)


def _endpoint_problem(vip: LoadBalancerVIP, data_plane: DataPlane, world: World) -> Problem | None:
    for index, endpoint in enumerate(vip.spec.backends.endpoints or ()):
        field = f"spec.backends.endpoints[{index}]"
        if not data_plane.spec.allows_endpoint(endpoint.address):
            allowed = ", ".join(map(str, data_plane.spec.static_endpoint_cidrs)) or "none"
            message = (
                f"{field}: {endpoint.address} is outside spec.staticEndpointCIDRs of DataPlane "
                f"{data_plane.metadata.name} (allowed: {allowed}); have its network added there, or use a Service"
            )
            return Problem(Reason.ENDPOINT_NOT_ALLOWED, message)
        if world.ledger.is_held(endpoint.address):
            message = f"{field}: {endpoint.address} is an address of a VIP, which makes a loop; use the server's own"
            return Problem(Reason.ENDPOINT_NOT_ALLOWED, message)
    return None


def _service_problem(vip: LoadBalancerVIP) -> Problem:
    service = vip.spec.backends.service
    name = service.name if service else ""
    message = f"spec.backends.service: Service {vip.metadata.namespace}/{name} does not exist; create it"
    return Problem(Reason.SERVICE_NOT_FOUND, message)


def _policy_warnings(vip: LoadBalancerVIP, neighbours: Neighbours) -> tuple[Problem, ...]:
    name = vip.spec.policy_name
    if not name or neighbours.policy is not None:
        return ()
    have = ", ".join(sorted(neighbours.policy_names)) or "none"
    message = (
        f"spec.policyName: RLPolicy {vip.metadata.namespace}/{name} does not exist (there is: {have}); "
        "lsq is used; create it or name another one"
    )
    return (Problem(Reason.POLICY_NOT_FOUND, message),)

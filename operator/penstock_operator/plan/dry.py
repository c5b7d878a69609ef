"""The operator's plan without a cluster: what would be accepted, and with which addresses.

The same functions decide as in the operator; only the order of events is made up: objects come in the order of
their files, and what is not in the files (`Surroundings`) is as told, or assumed to be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from penstock_api import (
    AddressPool,
    DataPlane,
    KubeObject,
    LoadBalancerVIP,
    Reason,
    RLPolicy,
    VipStatus,
)
from penstock_api.fields import IPNetwork
from penstock_api.vip import VipPort

from penstock_operator.plan import nodes as plan_nodes
from penstock_operator.plan.acceptance import Neighbours, Verdict, judge
from penstock_operator.plan.allocation import World
from penstock_operator.plan.facts import Name, NodeFacts, ServiceFacts, ServicePort
from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools
from penstock_operator.plan.reserved import Reserved

_START = datetime(2000, 1, 1, tzinfo=UTC)

K = TypeVar("K", bound=KubeObject)


@dataclass(frozen=True)
class Surroundings:
    """What is known of the cluster; by default nothing, and then nothing of it is checked."""

    nodes: Sequence[NodeFacts] = ()
    services: Sequence[ServiceFacts] | None = None  # None: every Service is taken to exist
    service_networks: Sequence[IPNetwork] = ()
    existing: Sequence[KubeObject] = ()  # objects of ours that are there already; those in files replace them


@dataclass(frozen=True)
class Outcome:
    """What would become of one object."""

    kind: str
    name: str
    accepted: bool
    reason: str
    message: str
    addresses: tuple[str, ...] = ()
    data_plane: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Outcomes in the order of the files."""

    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        """Whether everything would be accepted."""
        return all(outcome.accepted for outcome in self.outcomes)


def dry_run(objects: Iterable[KubeObject], surroundings: Surroundings | None = None) -> Report:
    """Decide on objects as the operator would."""
    found = surroundings or Surroundings()
    given = [_dated(obj, order) for order, obj in enumerate(objects)]
    names = {(obj.info.kind, obj.key) for obj in given}
    everything = [obj for obj in found.existing if (obj.info.kind, obj.key) not in names] + given
    reserved = Reserved(found.nodes, found.services or (), found.service_networks)
    pools = Pools(_of(everything, AddressPool), reserved)
    world = World(pools, reserved, Ledger())
    for vip in _of(everything, LoadBalancerVIP):
        world.ledger.put(Claim.of(vip))
    outcomes = []
    for obj in given:
        if isinstance(obj, LoadBalancerVIP):
            outcomes.append(_vip(obj, everything, found, world))
        elif isinstance(obj, AddressPool):
            verdict = pools.verdicts[obj.metadata.name]
            outcomes.append(_outcome(obj, verdict.usable, verdict.reason, verdict.message))
        elif isinstance(obj, DataPlane):
            outcomes.append(_data_plane(obj, _of(everything, DataPlane), found))
        else:
            outcomes.append(_outcome(obj, True, Reason.ACCEPTED, "the spec is valid"))
    return Report(tuple(outcomes))


def _vip(vip: LoadBalancerVIP, objects: Sequence[KubeObject], found: Surroundings, world: World) -> Outcome:
    verdict = judge(vip, _neighbours(vip, objects, found), world)
    if verdict.accepted:
        generation = vip.metadata.generation
        status = VipStatus(observed_generation=generation, addresses=verdict.addresses, ports=verdict.ports)
        world.ledger.put(Claim.of(vip.model_copy(update={"status": status})))
    else:
        world.ledger.remove((vip.metadata.namespace, vip.metadata.name))
    return _vip_outcome(vip, verdict, tuple(_port_warnings(vip, found.services or ())))


def _port_warnings(vip: LoadBalancerVIP, services: Sequence[ServiceFacts]) -> Iterator[str]:
    """Say which ports of a VIP its Service has not: they would have no backends."""
    backend = vip.spec.backends.service
    name = (vip.metadata.namespace, backend.name if backend else "")
    service = next((each for each in services if each.name == name), None)
    if service is None:
        return
    if service.external_name:
        yield f"spec.backends.service: {backend and backend.name} is an ExternalName and has no endpoints; use another"
        return
    for index, port in enumerate(vip.spec.ports):
        if not any(_serves(each, port) for each in service.ports):
            have = ", ".join(map(str, service.ports)) or "none"
            wanted = f"{port.target_port or port.port}/{port.protocol}"
            yield f"spec.ports[{index}]: Service {backend and backend.name} has no port for {wanted} (it has: {have})"


def _serves(service: ServicePort, port: VipPort) -> bool:
    """Tell whether a VIP's port may find endpoints by a Service's: by its name, its target, or its number."""
    if service.protocol != str(port.protocol):
        return False
    if isinstance(port.target_port, str):
        return service.name == port.target_port
    wanted = port.target_port or port.port
    by_number = port.target_port is None and service.port == wanted
    return by_number or service.target == wanted or isinstance(service.target, str)


def _neighbours(vip: LoadBalancerVIP, objects: Sequence[KubeObject], found: Surroundings) -> Neighbours:
    namespace, service = vip.metadata.namespace, vip.spec.backends.service
    services: set[Name] | None = None if found.services is None else {facts.name for facts in found.services}
    policies = {(p.metadata.namespace, p.metadata.name): p for p in _of(objects, RLPolicy)}
    return Neighbours(
        data_planes={obj.metadata.name: obj for obj in _of(objects, DataPlane)},
        service_exists=service is None or services is None or (namespace, service.name) in services,
        policy=policies.get((namespace, vip.spec.policy_name or "")),
        policy_names=tuple(policy for where, policy in policies if where == namespace),
    )


def _vip_outcome(vip: LoadBalancerVIP, verdict: Verdict, more: tuple[str, ...]) -> Outcome:
    problem = verdict.problem
    return Outcome(
        kind=vip.info.kind,
        name=vip.key,
        accepted=verdict.accepted,
        reason=str(problem.reason if problem else Reason.ACCEPTED),
        message=problem.message if problem else "the spec is valid and its addresses are free",
        addresses=tuple(map(str, verdict.addresses)),
        data_plane=verdict.data_plane.metadata.name if verdict.data_plane else "",
        warnings=(*(warning.message for warning in verdict.warnings), *more),
    )


def _data_plane(data_plane: DataPlane, data_planes: Sequence[DataPlane], found: Surroundings) -> Outcome:
    if not found.nodes:
        return _outcome(data_plane, True, Reason.ACCEPTED, "the spec is valid; its nodes were not checked")
    selection = plan_nodes.select(data_plane, data_planes, found.nodes)
    if selection.lost:
        node, holder = next(iter(sorted(selection.lost.items())))
        message = f"spec.nodeSelector: {node} belongs to DataPlane {holder}; narrow one of the selectors"
        return _outcome(data_plane, False, Reason.NODE_CONFLICT, message)
    if not selection.own:
        message = "spec.nodeSelector and tolerations select no node; label a node"
        return _outcome(data_plane, True, Reason.NO_NODES_SELECTED, message)
    names = ", ".join(node.name for node in selection.own)
    return _outcome(data_plane, True, Reason.ACCEPTED, f"the spec is valid; it selects {names}")


def _outcome(obj: KubeObject, accepted: bool, reason: Reason, message: str) -> Outcome:
    return Outcome(obj.info.kind, obj.key, accepted, str(reason), message)


def _of(objects: Sequence[KubeObject], kind: type[K]) -> list[K]:
    return [obj for obj in objects if isinstance(obj, kind)]


def _dated(obj: KubeObject, order: int) -> KubeObject:
    """Give an object of a file what the API server would give it."""
    metadata = obj.metadata
    if metadata.uid:
        return obj
    made = {
        "uid": f"file-{order:06}",
        "generation": 1,
        # Younger than what is in a cluster already, in the order of the files.
        "creation_timestamp": _START + timedelta(days=36500, seconds=order),
    }
    return obj.model_copy(update={"metadata": metadata.model_copy(update=made)})

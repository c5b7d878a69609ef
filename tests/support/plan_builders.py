"""Objects for tables of plan tests: short to write, complete to the models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from penstock_api import AddressPool, DataPlane, DataPlaneNode, LoadBalancerVIP, RLPolicy, parse
from penstock_api.names import DATAPLANE_LABEL
from penstock_operator.plan import daemonsets
from penstock_operator.plan.allocation import World
from penstock_operator.plan.dataplane import DataPlanePlan, plan_data_plane
from penstock_operator.plan.facts import NodeFacts, PodFacts, Taint
from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools
from penstock_operator.plan.reserved import Reserved
from penstock_operator.plan.view import DataPlaneView

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def _metadata(name: str, age: int, namespace: str = "", **more: Any) -> dict[str, Any]:
    """`age` counts seconds since the object was made."""
    made = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "uid": f"uid-{namespace}-{name}", "generation": 1, "creationTimestamp": made, **more}
    return metadata | ({"namespace": namespace} if namespace else {})


def vip(
    name: str = "web", namespace: str = "shop", *, age: int = 60, held: Any = (), seen: int = 1, **spec: Any
) -> LoadBalancerVIP:
    annotations = spec.pop("annotations", {})
    generation = spec.pop("generation", 1)
    data_plane = spec.pop("servedBy", None)
    given_for = spec.pop("givenFor", None)
    held_ports = spec.pop("heldPorts", None)
    spec.setdefault("ports", [{"port": 80}])
    spec.setdefault("backends", {"service": {"name": "web"}})
    status: dict[str, Any] = {"observedGeneration": seen if held or seen != 1 else -1, "addresses": list(held)}
    if held_ports is None:
        held_ports = [(each["port"], each.get("protocol", "TCP")) for each in spec["ports"]] if held else []
    else:
        held_ports = [(port, "TCP") for port in held_ports]
    status["ports"] = [{"port": port, "protocol": protocol} for port, protocol in held_ports]
    status["addressPool"] = given_for
    if data_plane:
        status["dataPlaneName"] = data_plane
    metadata = _metadata(name, age, namespace, annotations=annotations) | {"generation": generation}
    return parse(LoadBalancerVIP, {"metadata": metadata, "spec": spec, "status": status})


def pool(*addresses: str, name: str = "public", age: int = 100, **spec: Any) -> AddressPool:
    return parse(AddressPool, {"metadata": _metadata(name, age), "spec": {"addresses": list(addresses), **spec}})


def data_plane(
    name: str = "edge", *, age: int = 100, default: bool = True, deleting: bool = False, **spec: Any
) -> DataPlane:
    more: dict[str, Any] = {"annotations": {"penstock.dev/default": "true"} if default else {}}
    if deleting:
        more["deletionTimestamp"] = "2026-06-01T12:00:00Z"
    status = spec.pop("status", {})
    return parse(DataPlane, {"metadata": _metadata(name, age, **more), "spec": spec, "status": status})


def policy(name: str = "web", namespace: str = "shop") -> RLPolicy:
    return parse(RLPolicy, {"metadata": _metadata(name, 5, namespace), "spec": {"heuristic": "little"}})


def node(name: str = "lb-1", address: str = "192.0.2.1", **more: Any) -> NodeFacts:
    networks = tuple(ip_network(text) for text in more.pop("pods", ()))
    taints = tuple(Taint(*taint) for taint in more.pop("taints", ()))
    values: dict[str, Any] = {"labels": {"role": "lb"}, "ready": True, **more}
    addresses = (ip_address(address),) if address else ()
    return NodeFacts(
        name, f"uid-{name}", addresses=addresses, internal=addresses, pod_networks=networks, taints=taints, **values
    )


def data_plane_node(
    node_name: str,
    *,
    ready: bool = True,
    overloaded: bool | None = None,
    instance: str = "run-1",
    draining: bool = False,
    message: str = "",
    reason: str = "Ready",
    age: int = 500,
    **more: Any,
) -> DataPlaneNode:
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [{"type": "Ready", "status": str(ready), "reason": reason, "message": message, **since}]
    if overloaded is not None:
        reason = "NATPortsExhausted" if overloaded else "Sufficient"
        told = {"status": str(overloaded), "reason": reason, "message": "widen natSource"}
        conditions.append({"type": "Overloaded", **told, **since})
    metadata = _metadata(f"edge.{node_name}", age, **more)
    spec = {
        "dataPlaneName": "edge",
        "nodeName": node_name,
        "schedulerKey": "0" * 32,
        "natSource": {"addresses": ["192.0.2.1"]},
        "draining": draining,
    }
    status = {"instanceId": instance, "conditions": conditions}
    return parse(DataPlaneNode, {"metadata": metadata, "spec": spec, "status": status})


def pod(
    node_name: str,
    template_hash: str = "new",
    *,
    forwards: bool = True,
    ready: bool = True,
    deleting: bool = False,
    trouble: str = "",
    age: int = 500,
) -> PodFacts:
    return PodFacts(
        ("penstock-system", f"pod-{node_name}"),
        *(f"uid-{node_name}", node_name, "edge", forwards, template_hash, ready, deleting),
        trouble,
        NOW - timedelta(seconds=age),
    )


INSTALLATION = daemonsets.Installation("penstock-system", "penstock/dataplane:1", "penstock/agent:1")
LABELLED = {"role": "lb", DATAPLANE_LABEL: "edge"}


def data_plane_view(plane: Any, facts: Any = (), existing: Any = (), **more: Any) -> DataPlaneView:
    values: dict[str, Any] = {"others": (), "pods": (), "daemon_sets": frozenset(), "reports": {}, **more}
    return DataPlaneView(
        name="edge",
        data_plane=plane,
        nodes={each.name: each for each in facts},
        data_plane_nodes={each.spec.node_name: each for each in existing},
        **values,
    )


def data_plane_plan(*arguments: Any, **more: Any) -> DataPlanePlan:
    return plan_data_plane(data_plane_view(*arguments, **more), INSTALLATION, NOW, draw_key=lambda: "f" * 32)


def world(*vips: Any, pools: Any = None, **reserved: Any) -> World:
    """What addresses are given out from: VIPs with what they hold, pools, and what is reserved."""
    found = Reserved(**reserved)
    ledger = Ledger()
    for each in vips:
        ledger.put(Claim.of(each))
    return World(Pools([pool("203.0.113.10-203.0.113.12")] if pools is None else pools, found), found, ledger)


def addresses(found: Any) -> list[str]:
    return [str(address) for address in found.addresses]

"""A DataPlane and an AddressPool that fit a cluster, to begin with: `penstock init`.

`gather` reads the cluster, `propose` decides; what could not be known is said in notes for the user to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import yaml
from penstock_api import API_VERSION, AddressPool, DataPlane, KubeObject, parse
from penstock_api.names import DEFAULT_ANNOTATION
from penstock_kube import NODES, SERVICE_CIDRS, SERVICES, KubeClient, NotFound

from penstock_operator import kinds
from penstock_operator.plan.dry import Surroundings
from penstock_operator.plan.facts import NodeFacts, ServiceFacts, parse_networks
from penstock_operator.plan.nodes import ALWAYS_TOLERATED, matches
from penstock_operator.plan.reserved import Reserved

LOAD_BALANCER_LABEL = "penstock.dev/load-balancer"
"""Set to `"true"` on nodes, it is what a proposal selects by."""

POOL_SIZE = 16
NODE_NETWORK = 24  # prefix length that a network of nodes is taken to have: Nodes don't say
EVERY_NODE = {"kubernetes.io/os": "linux"}
EXAMPLE_POOL = "203.0.113.0/28"


@dataclass(frozen=True)
class Proposal:
    """Objects to apply, and what to check before."""

    data_plane: Mapping[str, Any]
    pool: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_yaml(self) -> str:
        """Return the objects as YAML, the notes as comments above."""
        comments = "".join(f"# {note}\n" for note in self.notes)
        return comments + yaml.safe_dump_all([dict(self.data_plane), dict(self.pool)], sort_keys=False)

    def objects(self) -> tuple[DataPlane, AddressPool]:
        """Return the objects as models."""
        return parse(DataPlane, self.data_plane), parse(AddressPool, self.pool)


class InitError(ValueError):
    """Nothing can be proposed; the message says what is missing."""


async def gather(client: KubeClient) -> Surroundings:
    """Read what a proposal, or a dry plan, needs to know of a cluster."""
    nodes, _ = await client.list(NODES)
    services, _ = await client.list(SERVICES)
    try:
        cidrs, _ = await client.list(SERVICE_CIDRS)
    except NotFound:
        cidrs = []  # older than Kubernetes 1.33
    return Surroundings(
        nodes=[NodeFacts.from_raw(node) for node in nodes],
        services=[ServiceFacts.from_raw(service) for service in services],
        service_networks=[n for cidr in cidrs for n in parse_networks((cidr.get("spec") or {}).get("cidrs") or ())],
        existing=await _existing(client),
    )


async def _existing(client: KubeClient) -> list[KubeObject]:
    found: list[KubeObject] = []
    for res, model in kinds.USER_KINDS.items():
        try:
            items, _ = await client.list(res)
        except NotFound:
            continue  # the kinds are not installed yet
        found += [parse(model, item) for item in items]
    return found


def propose(
    surroundings: Surroundings, *, name: str = "edge", pool: str = "public", selector: Mapping[str, str] | None = None
) -> Proposal:
    """Propose a DataPlane on fitting nodes, and a pool of free addresses beside theirs."""
    notes: list[str] = []
    chosen = dict(selector) if selector else _selector(surroundings.nodes, notes)
    data_plane = _data_plane(name, chosen, surroundings, notes)
    selected = [node for node in surroundings.nodes if matches(parse(DataPlane, data_plane), node)]
    if not selected:
        wanted = ", ".join(f"{key}={value}" for key, value in chosen.items())
        raise InitError(
            f"no node has the labels {wanted} and no taint against new pods; "
            f"label one by `kubectl label node NODE {next(iter(wanted.split(', ')))}`, or name labels by --selector"
        )
    notes.append(f"Load-balancing nodes: {', '.join(node.name for node in selected)}.")
    block = _free_block(surroundings, selected)
    if block is None:
        notes.append("Announcement: None. The nodes' addresses are not of one network, so routes must lead to them.")
        notes.append(f"Addresses: {EXAMPLE_POOL} is an example from documentation. Put addresses of yours here.")
    else:
        data_plane["spec"]["announcement"] = {"type": "L2"}
        notes.append(f"Addresses: {block} are no addresses of this cluster. Check that nothing else uses them (DHCP!).")
    body = {"addresses": [block or EXAMPLE_POOL]}
    pool_object = {"apiVersion": API_VERSION, "kind": "AddressPool", "metadata": {"name": pool}, "spec": body}
    return Proposal(data_plane, pool_object, tuple(notes))


def _selector(nodes: Sequence[NodeFacts], notes: list[str]) -> dict[str, str]:
    if any(node.labels.get(LOAD_BALANCER_LABEL) == "true" for node in nodes):
        return {LOAD_BALANCER_LABEL: "true"}
    notes.append("Every Linux node without taints balances. To choose some, label them and run init again:")
    notes.append(f"  kubectl label node NAME {LOAD_BALANCER_LABEL}=true")
    return dict(EVERY_NODE)


def _data_plane(name: str, selector: Mapping[str, str], surroundings: Surroundings, notes: list[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    existing = [obj.metadata for obj in surroundings.existing if isinstance(obj, DataPlane)]
    default = next((m.name for m in existing if m.annotations.get(DEFAULT_ANNOTATION) == "true" and m.name != name), "")
    if default:
        notes.append(f"DataPlane {default} is the default already: VIPs that are to use this one must name it.")
    else:
        metadata["annotations"] = {DEFAULT_ANNOTATION: "true"}
    spec: dict[str, Any] = {"type": "embedded", "nodeSelector": dict(selector)}
    if selector != EVERY_NODE and (tolerations := _tolerations(selector, surroundings.nodes)):
        spec["tolerations"] = tolerations
    return {"apiVersion": API_VERSION, "kind": "DataPlane", "metadata": metadata, "spec": spec}


def _tolerations(selector: Mapping[str, str], nodes: Sequence[NodeFacts]) -> list[dict[str, str]]:
    """Tolerate what keeps pods off nodes that were chosen on purpose."""
    taints = {
        (taint.key, taint.value, taint.effect)
        for node in nodes
        if selector.items() <= node.labels.items()
        for taint in node.taints
        if taint.effect in ("NoSchedule", "NoExecute") and taint.key not in ALWAYS_TOLERATED
    }
    return [
        {"key": key, "operator": "Equal", "value": value, "effect": effect}
        if value
        else {"key": key, "operator": "Exists", "effect": effect}
        for key, value, effect in sorted(taints)
    ]


def _free_block(surroundings: Surroundings, selected: Sequence[NodeFacts]) -> str | None:
    """Find free addresses in the nodes' network, from its upper end: routers and DHCP tend to begin below."""
    internal = [address for node in selected for address in node.internal if isinstance(address, IPv4Address)]
    networks = {IPv4Network((address, NODE_NETWORK), strict=False) for address in internal}
    if len(networks) != 1:
        return None
    network = networks.pop()
    reserved = Reserved(surroundings.nodes, surroundings.services or (), surroundings.service_networks)
    pools = [obj for obj in surroundings.existing if isinstance(obj, AddressPool)]
    # In steps of the pool's size, the last of the network left out with its broadcast address.
    for last in range(int(network[-1]) - POOL_SIZE, int(network[0]) + POOL_SIZE, -POOL_SIZE):
        block = [IPv4Address(number) for number in range(last - POOL_SIZE + 1, last + 1)]
        free = all(reserved.owner(a) is None and not any(pool.spec.contains(a) for pool in pools) for a in block)
        if free:
            return f"{block[0]}-{block[-1]}"
    return None

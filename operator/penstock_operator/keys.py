"""From a change to the keys of the objects that it may concern."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from penstock_api import (
    AddressPool,
    DataPlane,
    DataPlaneNode,
    DataPlaneNodeReport,
    LoadBalancerVIP,
    VipReport,
    get_condition,
    is_true,
)
from penstock_api.conditions import ConditionType
from penstock_api.names import AGENT_ACCOUNT
from penstock_kube import DAEMON_SETS, NODES, PODS, SERVICE_ACCOUNTS, SERVICE_CIDRS, SERVICES

from penstock_operator import kinds
from penstock_operator.plan.facts import Name, NodeFacts
from penstock_operator.store import Change, Store, data_plane_of


class Subject(StrEnum):
    """What a key asks to be looked at."""

    VIP = "vip"
    POLICY = "policy"
    POOL = "pool"
    DATA_PLANE = "dataplane"


class WorkKey(NamedTuple):
    """One object to bring to its desired state."""

    subject: Subject
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.subject}/{self.namespace}/{self.name}" if self.namespace else f"{self.subject}/{self.name}"


SUMMING = frozenset({Subject.POLICY, Subject.POOL})
"""Subjects that only sum others up: they may wait a moment, so that many changes cost one look."""


def affected(store: Store, change: Change) -> set[WorkKey]:
    """Return what must be looked at after a change (already in the store)."""
    return set(_affected(store, change))


def everything(store: Store) -> set[WorkKey]:
    """Return all there is: the first look after a start."""
    keys = {_vip(name) for name in store.uids(kinds.VIPS)}
    keys |= {WorkKey(Subject.POLICY, *name) for name in store.uids(kinds.POLICIES)}
    keys |= set(_pools(store)) | set(_data_planes(store))
    return keys | {_data_plane(node.spec.data_plane_name) for node in store.all(kinds.DATA_PLANE_NODES).values()}


def beats_changed(store: Store, names: frozenset[str]) -> set[WorkKey]:
    """Return what must be looked at after agents fell silent or live again; `names` are of DataPlaneNodes."""
    nodes = store.all(kinds.DATA_PLANE_NODES)
    data_planes = {nodes["", name].spec.data_plane_name for name in names if ("", name) in nodes}
    return {*map(_data_plane, data_planes), *_vips_of(store, data_planes)}


def _affected(store: Store, change: Change) -> Iterator[WorkKey]:
    resource = change.resource
    if resource == kinds.VIPS:
        yield from _vip_changed(store, change)
    elif resource == kinds.POLICIES:
        yield WorkKey(Subject.POLICY, *change.key)
        yield from map(_vip, store.users_of("policy", change.key))
        if change.before is None or change.after is None:
            yield from _lacking_a_policy(store, change.key[0])
    elif resource == SERVICES:
        yield from map(_vip, store.users_of("service", change.key))
        yield from _addresses_changed(store, change)
    elif resource in (kinds.POOLS, SERVICE_CIDRS):
        if _spec_changed(change):
            yield from _all_vips(store)
            yield from _data_planes(store)  # which are told of pools
        yield from _pools(store)
    else:
        yield from _nodes_affected(store, change)


def _nodes_affected(store: Store, change: Change) -> Iterator[WorkKey]:
    resource = change.resource
    if resource == kinds.DATA_PLANES:
        yield from _data_plane_changed(store, change)
    elif resource == NODES:
        yield from _data_planes(store)
        yield from _node_changed(store, change)
    elif resource == kinds.DATA_PLANE_NODES:
        yield from _data_plane_node_changed(store, change)
    elif resource == kinds.REPORTS:
        yield from _report_changed(change)
    elif resource == PODS:
        yield from {_data_plane(pod.data_plane) for pod in (change.before, change.after) if pod}
    elif resource == SERVICE_ACCOUNTS:
        if change.key[1] == AGENT_ACCOUNT:
            yield from _data_planes(store)
    elif resource == DAEMON_SETS:
        present = change.after or change.before
        yield _data_plane(data_plane_of(present["metadata"].get("labels")))


def _vip(name: Name) -> WorkKey:
    return WorkKey(Subject.VIP, *name)


def _data_plane(name: str) -> WorkKey:
    return WorkKey(Subject.DATA_PLANE, "", name)


def _all_vips(store: Store) -> Iterator[WorkKey]:
    yield from map(_vip, store.uids(kinds.VIPS))


def _pools(store: Store) -> Iterator[WorkKey]:
    for _, name in store.uids(kinds.POOLS):
        yield WorkKey(Subject.POOL, "", name)


def _data_planes(store: Store) -> Iterator[WorkKey]:
    for _, name in store.uids(kinds.DATA_PLANES):
        yield _data_plane(name)


def _vip_changed(store: Store, change: Change) -> Iterator[WorkKey]:
    before, after = change.before, change.after
    yield _vip(change.key)
    held_before = before.status.addresses if isinstance(before, LoadBalancerVIP) else ()
    held_after = after.status.addresses if isinstance(after, LoadBalancerVIP) else ()
    ports_before = before.spec.ports if isinstance(before, LoadBalancerVIP) else ()
    ports_after = after.spec.ports if isinstance(after, LoadBalancerVIP) else ()
    if held_before != held_after:
        yield from _pools(store)
    moved = _served_by(before) != _served_by(after) and held_before
    if moved or set(held_before) - set(held_after) or (held_before and ports_before != ports_after):
        yield from _waiting_vips(store)  # what was given up may be what they wait for
    for vip in (before, after):
        if isinstance(vip, LoadBalancerVIP) and vip.spec.policy_name:
            yield WorkKey(Subject.POLICY, vip.metadata.namespace, vip.spec.policy_name)


def _served_by(vip: Any) -> str:
    """Return the DataPlane that a VIP is served by."""
    return (vip.status.data_plane_name or "") if isinstance(vip, LoadBalancerVIP) else ""


def _waiting_vips(store: Store) -> Iterator[WorkKey]:
    for name, vip in store.all(kinds.VIPS).items():
        if not is_true(vip.status.conditions, ConditionType.ACCEPTED):
            yield _vip(name)


def _lacking_a_policy(store: Store, namespace: str) -> Iterator[WorkKey]:
    """Return the VIPs whose status lists the policies of their namespace."""
    for (where, _), vip in store.all(kinds.VIPS).items():
        name = (where, vip.spec.policy_name or "")
        if where == namespace and name[1] and store.get(kinds.POLICIES, name) is None:
            yield _vip((where, vip.metadata.name))


def _addresses_changed(store: Store, change: Change) -> Iterator[WorkKey]:
    before = set(change.before.addresses) if change.before else set()
    after = set(change.after.addresses) if change.after else set()
    for address in after ^ before:
        yield from map(_vip, store.ledger.names_on(address))
    if before - after:
        yield from _waiting_vips(store)


def _node_changed(store: Store, change: Change) -> Iterator[WorkKey]:
    yield from _addresses_changed(store, change)
    before, after = change.before, change.after
    was, is_ = (node.ready if isinstance(node, NodeFacts) else False for node in (before, after))
    if was != is_:
        names = {node.owner for node in (before, after) if node}
        yield from _vips_of(store, names)
    if _pod_networks(before) != _pod_networks(after):
        yield from _all_vips(store)
        yield from _pools(store)


def _pod_networks(node: NodeFacts | None) -> tuple[Any, ...]:
    return node.pod_networks if node else ()


def _vips_of(store: Store, data_planes: set[str]) -> Iterator[WorkKey]:
    for name, vip in store.all(kinds.VIPS).items():
        if vip.status.data_plane_name in data_planes:
            yield _vip(name)


def _data_plane_changed(store: Store, change: Change) -> Iterator[WorkKey]:
    yield from _data_planes(store)
    yield _data_plane(change.key[1])
    if _spec_changed(change):
        yield from _all_vips(store)
    elif _readiness(change.before) != _readiness(change.after):
        yield from _vips_of(store, {change.key[1]})


def _data_plane_node_changed(store: Store, change: Change) -> Iterator[WorkKey]:
    sides = [side for side in (change.before, change.after) if isinstance(side, DataPlaneNode)]
    names = {side.spec.data_plane_name for side in sides}
    yield from map(_data_plane, names)
    before, after = change.before, change.after
    same = isinstance(before, DataPlaneNode) and isinstance(after, DataPlaneNode)
    if not same or before.ready != after.ready or before.deleting != after.deleting:
        yield from _vips_of(store, names)


def _report_changed(change: Change) -> Iterator[WorkKey]:
    before, after = _entries(change.before), _entries(change.after)
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            yield _vip(name)
    side = change.after or change.before
    moved = any(_announced(before.get(name)) != _announced(after.get(name)) for name in before.keys() | after.keys())
    if (moved or change.before is None or change.after is None) and isinstance(side, DataPlaneNodeReport):
        yield _data_plane(side.report.data_plane_name)


def _announced(entry: VipReport | None) -> tuple[Any, ...]:
    return entry.announces if entry else ()


def _entries(report: object) -> dict[Name, VipReport]:
    if not isinstance(report, DataPlaneNodeReport):
        return {}
    return {(entry.namespace, entry.name): entry for entry in report.report.vips}


def _readiness(obj: Any) -> str:
    """Return the reason of the condition Ready."""
    condition = get_condition(obj.status.conditions, ConditionType.READY) if isinstance(obj, DataPlane) else None
    return condition.reason if condition else ""


def _spec_changed(change: Change) -> bool:
    """Tell whether more than a status changed."""
    return bool(_body(change.before) != _body(change.after))


def _body(obj: Any) -> Any:
    if not isinstance(obj, AddressPool | DataPlane):
        return obj
    return obj.spec, obj.metadata.annotations, obj.deleting

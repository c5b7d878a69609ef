"""What the operator knows of the cluster, pruned and parsed, with the indexes that decisions need.

Events and answers to our own writes fill it; nothing in it would be missed after a restart. kopf's own indices are
not used: they keep objects for ever whose deletion fell into a broken watch (see `sweep`).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import structlog
from penstock_api import (
    AddressPool,
    DataPlane,
    DataPlaneNode,
    DataPlaneNodeReport,
    InvalidObjectError,
    KubeObject,
    LoadBalancerVIP,
    RLPolicy,
    Source,
    VipReport,
    VipStatus,
    parse,
)
from penstock_api.names import DATAPLANE_LABEL
from penstock_kube import (
    DAEMON_SETS,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICE_CIDRS,
    SERVICES,
    Key,
    Object,
    Resource,
    version_of,
)
from pydantic import ValidationError

from penstock_operator import kinds
from penstock_operator.plan.facts import Name, NodeFacts, PodFacts, ServiceFacts, parse_networks
from penstock_operator.plan.heartbeats import NO_BEATS, Beats
from penstock_operator.plan.ledger import Claim, Ledger

log = structlog.get_logger(__name__)

GRAVES = 4096  # deleted objects remembered: more than can be deleted while one write is under way

Networks = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True)
class Unreadable:
    """An object of ours that this version can't read."""

    raw: Object
    message: str


@dataclass(frozen=True)
class Entry:
    """One object as it is kept."""

    uid: str
    version: int
    value: Any


@dataclass(frozen=True)
class Change:
    """What an event changed; None where there was, or is, nothing."""

    resource: Resource
    key: Key
    before: Any
    after: Any


def _parser(model: type[KubeObject]) -> Callable[[Object], Any]:
    def read(raw: Object) -> Any:
        raw["metadata"].pop("managedFields", None)
        try:
            return parse(model, raw)
        except InvalidObjectError as error:
            return Unreadable(raw, error.brief())

    return read


def _read_report(raw: Object) -> Any:
    """Read a report; entries that cannot be read are left out, because the others are of other VIPs."""
    found = _parser(DataPlaneNodeReport)(raw)
    entries = (raw.get("report") or {}).get("vips")
    if not isinstance(found, Unreadable) or not isinstance(entries, list):
        return found
    readable = [entry for entry in entries if _is_entry(entry)]
    log.warning("entries of a report not understood", report=raw["metadata"]["name"], error=found.message)
    return _parser(DataPlaneNodeReport)(raw | {"report": raw["report"] | {"vips": readable}})


def _is_entry(raw: object) -> bool:
    try:
        VipReport.model_validate_json(json.dumps(raw), strict=True, extra=Source.API_SERVER.extra)
    except ValidationError:
        return False
    return True


def _networks(raw: Object) -> Networks:
    return parse_networks((raw.get("spec") or {}).get("cidrs") or ())


def _account(raw: Object) -> str:
    """Keep the UID of a ServiceAccount."""
    return str(raw["metadata"].get("uid", ""))


def _daemon_set(raw: Object) -> Object:
    metadata = raw["metadata"]
    kept = {name: metadata.get(name) for name in ("name", "namespace", "labels", "annotations")}
    return {"metadata": kept, "spec": raw["spec"], "deleting": "deletionTimestamp" in metadata}


READERS: Mapping[Resource, Callable[[Object], Any]] = {
    kinds.VIPS: _parser(LoadBalancerVIP),
    kinds.POLICIES: _parser(RLPolicy),
    kinds.POOLS: _parser(AddressPool),
    kinds.DATA_PLANES: _parser(DataPlane),
    kinds.DATA_PLANE_NODES: _parser(DataPlaneNode),
    kinds.REPORTS: _read_report,
    NODES: NodeFacts.from_raw,
    SERVICES: ServiceFacts.from_raw,
    PODS: PodFacts.from_raw,
    DAEMON_SETS: _daemon_set,
    SERVICE_ACCOUNTS: _account,
    SERVICE_CIDRS: _networks,
}
"""How each kind is pruned on arrival."""


@dataclass
class Store:
    """All known objects by kind and key."""

    ledger: Ledger = field(default_factory=Ledger)
    beats: Beats = NO_BEATS
    _entries: dict[Resource, dict[Key, Entry]] = field(default_factory=lambda: {res: {} for res in READERS})
    _decided: dict[str, VipStatus] = field(default_factory=dict)  # what VIPs hold by our last decision, by UID
    _reports: dict[str, dict[str, tuple[str, VipReport]]] = field(default_factory=dict)  # VIP UID -> object -> node
    _users: dict[tuple[str, Name], set[Name]] = field(default_factory=dict)  # ("service", name) -> VIPs
    _revision: int = 0
    _gone: OrderedDict[str, None] = field(default_factory=OrderedDict)  # UIDs of deleted objects

    @property
    def revision(self) -> int:
        """Counts changes of what addresses are decided by (pools, nodes, Services): derived values may be cached."""
        return self._revision

    def all(self, resource: Resource) -> dict[Key, Any]:
        """Return all readable objects of a kind."""
        entries = list(self._entries[resource].items())  # metrics are computed in another thread
        return {key: entry.value for key, entry in entries if not isinstance(entry.value, Unreadable)}

    def get(self, resource: Resource, key: Key) -> Any:
        """Return one object, an `Unreadable`, or None."""
        entry = self._entries[resource].get(key)
        return entry.value if entry else None

    def uids(self, resource: Resource) -> dict[Key, str]:
        """Return the UIDs of all objects of a kind."""
        return {key: entry.uid for key, entry in self._entries[resource].items()}

    def count(self, resource: Resource) -> int:
        """Return how many objects of a kind there are."""
        return len(self._entries[resource])

    def put(self, resource: Resource, raw: Object) -> Change | None:
        """Take in an object unless a newer version is known; None if nothing changed.

        The answer to a write of ours may arrive after the event of the object's deletion: it stays deleted.
        """
        metadata = raw["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        uid, version = metadata.get("uid", ""), version_of(raw)
        known = self._entries[resource].get(key)
        if uid in self._gone or (known and known.uid == uid and version and known.version >= version):
            return None
        try:
            value = READERS[resource](raw)
        except Exception:  # one object's fault must not cost the others their turn; what was known of it stays
            log.exception("object cannot be read", kind=resource.kind, name="/".join(filter(None, key)))
            return None
        self._entries[resource][key] = Entry(uid, version, value)
        return self._changed(resource, key, known.value if known else None, value)

    def drop(self, resource: Resource, key: Key, uid: str = "") -> Change | None:
        """Forget an object; with `uid` only if it is still that one."""
        known = self._entries[resource].get(key)
        self._bury(uid or (known.uid if known else ""))
        if known is None or (uid and known.uid != uid):
            return None
        del self._entries[resource][key]
        return self._changed(resource, key, known.value, None)

    def _bury(self, uid: str) -> None:
        if uid:
            self._gone[uid] = None
            while len(self._gone) > GRAVES:
                self._gone.popitem(last=False)

    def reports_of(self, uid: str) -> Mapping[str, VipReport]:
        """Return what nodes report of a VIP, by node name."""
        # A VIP that moves between a node's objects is in both for a moment: the newer entry counts.
        entries = sorted(self._reports.get(uid, {}).values(), key=lambda found: found[1].generation)
        return dict(entries)

    def users_of(self, what: str, name: Name) -> frozenset[Name]:
        """Return the VIPs that refer to a `service` or `policy`."""
        return frozenset(self._users.get((what, name), ()))

    def decide(self, vip: LoadBalancerVIP, status: VipStatus | None) -> VipStatus | None:
        """Note what a VIP holds by a decision of ours, until the next; returns what it was before."""
        before = self._decided.pop(vip.metadata.uid, None)
        if status is not None:
            self._decided[vip.metadata.uid] = status
        return before

    def as_decided(self, vip: LoadBalancerVIP) -> LoadBalancerVIP:
        """Return a VIP with what it holds by our last decision: whoever else writes its status decides nothing.

        After a restart the status is all there is.
        """
        decided = self._decided.get(vip.metadata.uid)
        if decided is None:
            return vip
        holdings = {name: getattr(decided, name) for name in ("addresses", "ports", "address_pool", "data_plane_name")}
        return vip.model_copy(update={"status": vip.status.model_copy(update=holdings)})

    def _changed(self, resource: Resource, key: Key, before: Any, after: Any) -> Change | None:
        if before == after and not isinstance(after, KubeObject):
            return None
        if resource == kinds.VIPS:
            self._index_vip(before, after)
        elif resource == kinds.REPORTS:
            self._index_report(before, after)
        elif resource in (NODES, SERVICES, SERVICE_CIDRS, kinds.POOLS):
            self._revision += 1
        return Change(resource, key, before, after)

    def _index_vip(self, before: Any, after: Any) -> None:
        if isinstance(before, LoadBalancerVIP):
            for reference in _references(before):
                self._users[reference].discard(name_of(before))
                if not self._users[reference]:
                    del self._users[reference]
            self.ledger.remove(name_of(before))
            if after is None:
                self._decided.pop(before.metadata.uid, None)
        elif isinstance(before, Unreadable):
            self.ledger.remove(Claim.of_unreadable(before.raw).name)
        if isinstance(after, LoadBalancerVIP):
            for reference in _references(after):
                self._users.setdefault(reference, set()).add(name_of(after))
            self.ledger.put(Claim.of(self.as_decided(after)))
        elif isinstance(after, Unreadable):
            self.ledger.put(Claim.of_unreadable(after.raw))

    def _index_report(self, before: Any, after: Any) -> None:
        if isinstance(before, DataPlaneNodeReport):
            for entry in before.report.vips:
                by_object = self._reports.get(entry.uid, {})
                by_object.pop(before.metadata.name, None)
                if not by_object:
                    self._reports.pop(entry.uid, None)
        if isinstance(after, DataPlaneNodeReport):
            for entry in after.report.vips:
                found = (after.report.node_name, entry)
                self._reports.setdefault(entry.uid, {})[after.metadata.name] = found


def name_of(obj: KubeObject) -> Name:
    """Return namespace and name."""
    return obj.metadata.namespace, obj.metadata.name


def data_plane_of(raw_labels: Mapping[str, str] | None) -> str:
    """Return the DataPlane that an object of ours belongs to, by its label."""
    return (raw_labels or {}).get(DATAPLANE_LABEL, "")


def _references(vip: LoadBalancerVIP) -> list[tuple[str, Name]]:
    namespace = vip.metadata.namespace
    references = []
    if vip.spec.backends.service:
        references.append(("service", (namespace, vip.spec.backends.service.name)))
    if vip.spec.policy_name:
        references.append(("policy", (namespace, vip.spec.policy_name)))
    return references

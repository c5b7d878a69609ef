"""Source `kubernetes`: watches of VIPs, RLPolicies, DataPlaneNodes, Services and EndpointSlices.

Slices are pruned on arrival and kept only where one of our VIPs refers to their Service. Of the others a stub
stays, so that their Service can be taken into use without listing the whole cluster again: its few slices are
asked for by name.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import structlog
from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.errors import KindError
from penstock_api.names import DATAPLANE_LABEL
from penstock_api.objects import KubeObject
from penstock_api.reading import parse
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP
from penstock_kube import (
    ENDPOINT_SLICES,
    SERVICES,
    ApiError,
    Forbidden,
    Key,
    KubeClient,
    Object,
    Reflector,
    Resource,
    key_of,
)

from penstock_agent.desired import Address, Name, Served, Snapshot
from penstock_agent.slices import SERVICE_LABEL, Slice, parse_address, read_service, read_slice

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
Kind = TypeVar("Kind", bound=KubeObject)


class KubernetesSource:
    """Follows the API server; the last known state stays while it is away."""

    def __init__(self, client: KubeClient, on_change: Callable[[], None], *, dataplane: str, node_name: str) -> None:
        self._client = client
        self._notify = on_change
        self._dataplane = dataplane
        self._node_name = node_name
        self._snapshot: Snapshot | None = None
        self._stale = True
        self._wanted: set[Name] = set()  # Services that our VIPs refer to, and those followed
        self._followed: frozenset[Name] = frozenset()
        self._missing: set[Name] = set()  # of these, the ones whose slices are still to be asked for
        self._more = asyncio.Event()
        self._listing = False  # slices began to arrive: those of Services wanted later may have been pruned already
        self._slices: dict[Key, Slice] = {}
        self._vips = _Parsed(LoadBalancerVIP)
        self._policies = _Parsed(RLPolicy, keeps_last=True)
        self._nodes = _Parsed(DataPlaneNode, keeps_last=True)
        label = f"{DATAPLANE_LABEL}={dataplane}"
        self._watches = {
            "dataplanenodes": self._reflect(DataPlaneNode, self._nodes, self._changed, label_selector=label),
            "loadbalancervips": self._reflect(LoadBalancerVIP, self._vips, self._vips_changed),
            "rlpolicies": self._reflect(RLPolicy, self._policies, self._changed),
            "services": Reflector(
                client, SERVICES, prune=lambda raw: {"service": read_service(raw)}, on_change=self._service_changed
            ),
            "endpointslices": Reflector(
                client,
                ENDPOINT_SLICES,
                label_selector=SERVICE_LABEL,
                prune=self._prune_slice,
                on_change=self._slice_changed,
            ),
        }

    @property
    def node(self) -> DataPlaneNode | None:
        """This node's object; None where the operator has not made it, or it is gone."""
        return next((node for node in self.nodes if node.spec.node_name == self._node_name), None)

    @property
    def nodes(self) -> list[DataPlaneNode]:
        """All nodes of the DataPlane."""
        return list(self._nodes.objects.values())

    @property
    def lists(self) -> int:
        """How often this DataPlane's nodes were listed."""
        return self._watches["dataplanenodes"].relists

    @property
    def snapshot(self) -> Snapshot | None:
        """What users want; None until all is known, and while this node is not (or no longer) to serve."""
        if self._stale or self._snapshot is None:  # what it waited for may have come, or may never come
            self._stale = False
            self._snapshot = self._build()
        return self._snapshot

    @property
    def error(self) -> str:
        """Why there is nothing to serve."""
        if self._watches["dataplanenodes"].synced.is_set() and self.node is None:
            if unreadable := self._nodes.unreadable:
                key, message = next(iter(unreadable.items()))
                return f"DataPlaneNode {key[1]} cannot be read: {message}; update the agent, or correct the object"
            return (
                f"there is no DataPlaneNode of node {self._node_name} and DataPlane {self._dataplane}; "
                "check that the DataPlane's nodeSelector has this node and that the operator runs"
            )
        if self._services_forbidden:
            return (
                "Services cannot be read, so ports without targetPort mean their own number; give the agent the right"
            )
        return ""

    @property
    def _services_forbidden(self) -> bool:
        return isinstance(self._watches["services"].last_error, Forbidden)

    def follow(self, services: frozenset[Name]) -> None:
        """Keep the slices of these Services, whether or not a VIP still names them."""
        if services != self._followed:
            self._followed = services
            self._choose_services()
            self._stale = True

    def ages(self) -> dict[str, float]:
        """Seconds since each watch was last known to be current."""
        return {name: watch.age_seconds() for name, watch in self._watches.items()}

    async def run(self) -> None:
        """Watch until cancelled; slices last, for VIPs say which of them matter."""
        async with asyncio.TaskGroup() as group:
            for name in ("dataplanenodes", "loadbalancervips", "rlpolicies", "services"):
                group.create_task(self._watches[name].run())
            await self._watches["loadbalancervips"].synced.wait()
            self._listing = True
            group.create_task(self._watches["endpointslices"].run())
            await self._watches["endpointslices"].synced.wait()
            self._changed()
            while True:
                await self._more.wait()
                self._more.clear()
                await self._fetch_missing()

    def _reflect(
        self, kind: type[KubeObject], parsed: _Parsed[Any], changed: Callable[[], None], *, label_selector: str = ""
    ) -> Reflector:
        def on_change(key: Key, obj: Object | None) -> None:
            parsed.update(key, obj)
            changed()

        resource = Resource(*kind.resource())
        return Reflector(self._client, resource, label_selector=label_selector, on_change=on_change)

    def _changed(self) -> None:
        self._stale = True
        self._notify()

    def _vips_changed(self) -> None:
        self._choose_services()
        self._changed()

    def _choose_services(self) -> None:
        """Find out whose slices matter; those that did not matter so far are to be asked for."""
        wanted = {
            (vip.metadata.namespace, vip.spec.backends.service.name)
            for vip in self._ours()
            if vip.spec.backends.service is not None
        } | self._followed
        if new := wanted - self._wanted:
            if self._listing:
                self._missing |= new
            self._more.set()
        for key, piece in list(self._slices.items()):
            if (key[0], piece.service) not in wanted:
                del self._slices[key]
        self._wanted = wanted
        self._missing &= wanted

    def _ours(self) -> list[LoadBalancerVIP]:
        return [v for v in self._vips.objects.values() if v.status.data_plane_name == self._dataplane]

    def _prune_slice(self, raw: Object) -> Object:
        service = (raw["metadata"].get("labels") or {}).get(SERVICE_LABEL, "")
        wanted = (key_of(raw)[0], service) in self._wanted
        return {"service": service, "slice": read_slice(raw) if wanted else None}

    def _slice_changed(self, key: Key, pruned: Object | None) -> None:
        piece = pruned["slice"] if pruned else None
        if piece is None:  # gone, or moved to a Service of no interest
            if self._slices.pop(key, None) is None:
                return
        else:
            self._slices[key] = piece
        self._changed()

    def _service_changed(self, key: Key, pruned: Object | None) -> None:
        if key in self._wanted:
            self._changed()

    async def _fetch_missing(self) -> None:
        """Ask for the slices of Services that were of no interest when they arrived."""
        known = self._watches["endpointslices"].cache
        for namespace, service in sorted(self._missing):
            selector = f"{SERVICE_LABEL}={service}"
            try:
                found, _ = await self._client.list(ENDPOINT_SLICES, namespace, label_selector=selector)
            except ApiError as error:
                log.warning("slices not read, trying again", service=f"{namespace}/{service}", error=str(error))
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._more.set)
                return
            for raw in found:
                key = key_of(raw)
                # One that the watch does not know is either gone again or still to arrive there; what it has
                # delivered since is not older than this answer for long.
                is_current = key in known and known[key]["service"] == service and key not in self._slices
                if is_current and (namespace, service) in self._wanted:
                    self._slices[key] = read_slice(raw)
            self._missing.discard((namespace, service))
        self._changed()

    def _build(self) -> Snapshot | None:
        node = self.node
        if node is None or node.deleting or self._missing:
            return None
        waiting = {name for name, watch in self._watches.items() if not watch.synced.is_set()}
        if waiting - {"services"} or (waiting and not self._services_forbidden):
            return None
        slices: defaultdict[Name, list[Slice]] = defaultdict(list)
        for key, piece in sorted(self._slices.items(), key=lambda item: item[0]):
            slices[key[0], piece.service].append(piece)
        services = self._watches["services"].cache
        return Snapshot(
            node=node.spec,
            vips=tuple(Served(vip, vip.status.addresses) for vip in self._ours() if vip.status.addresses),
            policies={key: policy.spec for key, policy in self._policies.objects.items()},
            slices={name: tuple(pieces) for name, pieces in slices.items()},
            services=None
            if waiting
            else {name: services[name]["service"] for name in self._wanted if name in services},
            vip_addresses=frozenset[Address](a for vip in self._vips.objects.values() for a in vip.status.addresses)
            | frozenset(self._vips.addresses_of_unreadable()),
            unreadable=dict(self._vips.unreadable),
            unreadable_policies=dict(self._policies.unreadable),
        )


class _Parsed(Generic[Kind]):
    """Objects of one kind, read as they arrive.

    With `keeps_last`, an object that cannot be read any more stays as it was when it could be.
    """

    def __init__(self, kind: type[Kind], *, keeps_last: bool = False) -> None:
        self._kind = kind
        self._keeps_last = keeps_last
        self._raw: dict[Key, Object] = {}  # of unreadable ones
        self.objects: dict[Key, Kind] = {}
        self.unreadable: dict[Key, str] = {}

    def update(self, key: Key, raw: Object | None) -> None:
        """Take in an object; None: it is gone."""
        self.unreadable.pop(key, None)
        self._raw.pop(key, None)
        if raw is None:
            self.objects.pop(key, None)
            return
        try:
            self.objects[key] = parse(self._kind, raw)
        except KindError as error:
            # Of a newer schema, or from before a rule: what is programmed stays.
            if not self._keeps_last:
                self.objects.pop(key, None)
            self.unreadable[key] = str(error)
            self._raw[key] = raw
            log.warning("object not understood", kind=self._kind.info.kind, key="/".join(key), error=str(error))

    def addresses_of_unreadable(self) -> Iterator[Address]:
        """Yield addresses that unreadable VIPs hold: no backend may have them either."""
        for raw in self._raw.values():
            status = raw.get("status")
            texts = status.get("addresses") if isinstance(status, dict) else None
            for text in texts if isinstance(texts, list) else ():
                if (address := parse_address(text)) is not None:
                    yield address

"""Source `kubernetes`: watches of VIPs, RLPolicies, DataPlaneNodes and EndpointSlices.

Slices are pruned on arrival and kept only where one of our VIPs refers to their Service. Of the others a stub
stays, so that their Service can be taken into use without listing the whole cluster again: its few slices are
asked for by name.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog
from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.errors import KindError
from penstock_api.names import DATAPLANE_LABEL
from penstock_api.objects import KubeObject
from penstock_api.reading import parse
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP
from penstock_kube import ENDPOINT_SLICES, ApiError, Key, KubeClient, Object, Reflector, Resource

from penstock_agent.desired import Address, Name, Served, Snapshot
from penstock_agent.endpoints import SERVICE_LABEL, Slice, prune_slice, read_slice

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
        self._wanted: set[Name] = set()  # Services that our VIPs refer to
        self._missing: set[Name] = set()  # of these, the ones whose slices are still to be asked for
        self._more = asyncio.Event()
        self._listing = False  # slices began to arrive: those of Services wanted later may have been pruned already
        self._slices: dict[Key, tuple[int, Slice]] = {}  # with the version, so that late answers are known as such
        self._vips = _Parsed(LoadBalancerVIP)
        self._policies = _Parsed(RLPolicy)
        self._nodes = _Parsed(DataPlaneNode)
        label = f"{DATAPLANE_LABEL}={dataplane}"
        self._watches = {
            "dataplanenodes": self._reflect(DataPlaneNode, self._nodes, self._changed, label_selector=label),
            "loadbalancervips": self._reflect(LoadBalancerVIP, self._vips, self._vips_changed),
            "rlpolicies": self._reflect(RLPolicy, self._policies, self._changed),
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
    def snapshot(self) -> Snapshot | None:
        """What users want; None until all is known, and while this node is not (or no longer) to serve."""
        if self._stale:
            self._stale = False
            self._snapshot = self._build()
        return self._snapshot

    @property
    def error(self) -> str:
        """Why there is nothing to serve."""
        if self._watches["dataplanenodes"].synced.is_set() and self.node is None:
            return (
                f"there is no DataPlaneNode of node {self._node_name} and DataPlane {self._dataplane}; "
                "check that the DataPlane's nodeSelector has this node and that the operator runs"
            )
        return ""

    def ages(self) -> dict[str, float]:
        """Seconds since each watch was last known to be current."""
        return {name: watch.age_seconds() for name, watch in self._watches.items()}

    async def run(self) -> None:
        """Watch until cancelled; slices last, for VIPs say which of them matter."""
        async with asyncio.TaskGroup() as group:
            for name in ("dataplanenodes", "loadbalancervips", "rlpolicies"):
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
        wanted = {
            (vip.metadata.namespace, vip.spec.backends.service.name)
            for vip in self._ours()
            if vip.spec.backends.service is not None
        }
        if new := wanted - self._wanted:
            if self._listing:
                self._missing |= new
            self._more.set()
        for key, (_, piece) in list(self._slices.items()):
            if (key[0], piece.service) not in wanted:
                del self._slices[key]
        self._wanted = wanted
        self._missing &= wanted
        self._changed()

    def _ours(self) -> list[LoadBalancerVIP]:
        return [v for v in self._vips.objects.values() if v.status.data_plane_name == self._dataplane]

    def _prune_slice(self, raw: Object) -> Object:
        metadata = raw["metadata"]
        service = metadata["labels"][SERVICE_LABEL]
        if (metadata["namespace"], service) in self._wanted:
            return {**prune_slice(raw), "version": int(metadata["resourceVersion"])}
        return {"metadata": {"namespace": metadata["namespace"], "name": metadata["name"]}, "service": service}

    def _slice_changed(self, key: Key, pruned: Object | None) -> None:
        if pruned is None:
            self._slices.pop(key, None)
        elif "version" in pruned:
            self._keep(key, pruned)
        self._changed()

    def _keep(self, key: Key, pruned: Object) -> None:
        if key not in self._slices or self._slices[key][0] < pruned["version"]:
            self._slices[key] = pruned["version"], read_slice(pruned)

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
                key = (namespace, raw["metadata"]["name"])
                # One that the watch does not know is either gone again or still to arrive there.
                if key in known and (namespace, service) in self._wanted:
                    self._keep(key, {**prune_slice(raw), "version": int(raw["metadata"]["resourceVersion"])})
            self._missing.discard((namespace, service))
        self._changed()

    def _build(self) -> Snapshot | None:
        node = self.node
        if node is None or node.deleting or self._missing:
            return None
        if not all(watch.synced.is_set() for watch in self._watches.values()):
            return None
        slices: defaultdict[Name, list[Slice]] = defaultdict(list)
        for key, (_, piece) in sorted(self._slices.items()):
            slices[key[0], piece.service].append(piece)
        return Snapshot(
            node=node.spec,
            vips=tuple(Served(vip, vip.status.addresses) for vip in self._ours() if vip.status.addresses),
            policies={key: policy.spec for key, policy in self._policies.objects.items()},
            slices={name: tuple(pieces) for name, pieces in slices.items()},
            vip_addresses=frozenset[Address](a for vip in self._vips.objects.values() for a in vip.status.addresses),
            unreadable=dict(self._vips.unreadable),
        )


class _Parsed(Generic[Kind]):
    """Objects of one kind, read as they arrive."""

    def __init__(self, kind: type[Kind]) -> None:
        self._kind = kind
        self.objects: dict[Key, Kind] = {}
        self.unreadable: dict[Key, str] = {}

    def update(self, key: Key, raw: Object | None) -> None:
        self.unreadable.pop(key, None)
        if raw is None:
            self.objects.pop(key, None)
            return
        try:
            self.objects[key] = parse(self._kind, raw)
        except KindError as error:
            # Of a newer schema, or from before a rule: what is programmed stays.
            self.objects.pop(key, None)
            self.unreadable[key] = str(error)
            log.warning("object not understood", kind=self._kind.info.kind, key="/".join(key), error=str(error))

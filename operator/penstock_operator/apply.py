"""All writes of the operator: server-side apply, one field manager, nothing that is right already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from penstock_api import Condition, DataPlane, DataPlaneNode, KubeObject, Status
from penstock_api.names import (
    DATAPLANE_FINALIZER,
    DATAPLANE_LABEL,
    NODE_FINALIZER,
    OPERATOR_MANAGER,
    node_lease_name,
)
from penstock_kube import (
    CONFIG_MAPS,
    DAEMON_SETS,
    LEASES,
    NODES,
    PODS,
    KubeClient,
    LeaseLostError,
    NotFound,
    Object,
    Resource,
)

from penstock_operator import kinds
from penstock_operator.plan.daemonsets import HASH_ANNOTATION, digest
from penstock_operator.plan.dataplane import DataPlanePlan, NodeChange
from penstock_operator.plan.facts import NodeFacts, PodFacts
from penstock_operator.plan.nodes import node_labels
from penstock_operator.plan.pods import ALLOWED_ANNOTATION, Manifest
from penstock_operator.plan.rollout import REPLACED_ANNOTATION
from penstock_operator.store import Store

log = structlog.get_logger(__name__)

Learn = Callable[[Resource, Object], None]


class Writer:
    """Applies plans and learns from the answers, so that the next plan sees what this one did.

    `may_write` is asked before every write: a leader that lost its lease must not write any more.
    """

    def __init__(self, client: KubeClient, store: Store, learn: Learn, may_write: Callable[[], bool]) -> None:
        self._client = client
        self._store = store
        self._learn = learn
        self._may_write = may_write
        self.writes = 0
        self._allowed: dict[str, Object] = {}  # what ConfigMaps say, by name

    async def status(self, res: Resource, obj: KubeObject, status: Status) -> bool:
        """Write a status; return whether it needed writing."""
        if getattr(obj, "status", None) == status:
            return False
        return await self.raw_status(res, kinds.identity(obj), status)

    async def raw_status(self, res: Resource, metadata: Object, status: Status) -> bool:
        """Write the status of an object that may not be readable; False if it is gone."""
        try:
            await self._apply(res, {"metadata": metadata, "status": status.to_dict()}, subresource="status")
        except NotFound:
            return False
        return True

    async def data_plane(self, name: str, obj: DataPlane | None, plan: DataPlanePlan, namespace: str) -> None:
        """Carry out the plan of a DataPlane, in the order that makes every interruption harmless."""
        if obj is not None and plan.finalizer is True:
            await self._finalizer(obj, wanted=True)
        if obj is not None and plan.status is not None:
            await self.status(kinds.DATA_PLANES, obj, plan.status)
        await self._nodes(plan)
        for silent, condition in plan.silent:
            await self._silent(silent, condition)
        for manifest in plan.daemon_sets:
            await self._daemon_set(manifest)
        for node in plan.label_nodes:
            await self._label(node, {DATAPLANE_LABEL: name})
        if plan.replace_pod is not None:
            await self._replace(plan.replace_pod)
        await self._departures(plan, namespace)
        if obj is not None and plan.finalizer is False:
            await self._finalizer(obj, wanted=False)

    async def allowed(self, manifest: Manifest, pods: Iterable[PodFacts]) -> None:
        """Tell data planes which addresses VIPs may have; `pods` are those that have the ConfigMap."""
        metadata = manifest["metadata"]
        if self._allowed.get(metadata["name"]) == manifest["data"]:
            return
        try:
            known = await self._client.get(CONFIG_MAPS, metadata["name"], metadata["namespace"])
        except NotFound:
            known = {}
        if known.get("data") != manifest["data"]:
            self._check()
            await self._client.apply(CONFIG_MAPS, manifest, field_manager=OPERATOR_MANAGER)
            self.writes += 1
            for pod in pods:
                await self._refresh(pod, digest(manifest["data"]))
        self._allowed[metadata["name"]] = manifest["data"]

    async def _refresh(self, pod: PodFacts, version: str) -> None:
        """Have the kubelet bring a pod's volumes up to date now; by itself it takes up to two minutes."""
        self._check()
        annotations = {ALLOWED_ANNOTATION: version}
        try:
            await self._client.patch(PODS, pod.name[1], {"metadata": {"annotations": annotations}}, pod.name[0])
        except NotFound:
            return
        self.writes += 1

    async def _nodes(self, plan: DataPlanePlan) -> None:
        for change in plan.nodes:
            await self._node(change)

    async def _departures(self, plan: DataPlanePlan, namespace: str) -> None:
        for dropped in plan.drop_nodes:
            await self._drop(dropped, namespace)
        for leaving in plan.delete_nodes:
            await self._delete(kinds.DATA_PLANE_NODES, leaving.metadata.name, uid=leaving.metadata.uid)
        for report in plan.delete_reports:
            await self._delete(kinds.REPORTS, report)
        for node in plan.unlabel_nodes:
            await self._label(node, {})
        for daemon_set in plan.delete_daemon_sets:
            await self._delete(DAEMON_SETS, daemon_set, namespace)

    async def _finalizer(self, obj: DataPlane, *, wanted: bool) -> None:
        if (DATAPLANE_FINALIZER in obj.metadata.finalizers) == wanted:
            return
        metadata = kinds.identity(obj) | ({"finalizers": [DATAPLANE_FINALIZER]} if wanted else {})
        await self._apply(kinds.DATA_PLANES, {"metadata": metadata})

    async def _node(self, change: NodeChange) -> None:
        known = self._store.get(kinds.DATA_PLANE_NODES, ("", change.name))
        labels = node_labels(change.spec.data_plane_name, change.spec.node_name)
        annotations = {REPLACED_ANNOTATION: change.replaced_instance} if change.replaced_instance else {}
        if isinstance(known, DataPlaneNode):
            metadata = known.metadata
            right = (
                known.spec == change.spec
                and labels.items() <= metadata.labels.items()
                and metadata.annotations.get(REPLACED_ANNOTATION) == change.replaced_instance
            )
            if right:
                return
        body = {
            "metadata": {"name": change.name, "labels": labels, "annotations": annotations},
            "spec": change.spec.to_dict(),
        }
        await self._apply(kinds.DATA_PLANE_NODES, body)

    async def _silent(self, node: DataPlaneNode, condition: Condition) -> None:
        """Write of a node what its agent cannot; the rest of the status is the agent's."""
        log.warning("agent is silent", node=node.spec.node_name, data_plane=node.spec.data_plane_name)
        body = {"metadata": kinds.identity(node), "status": {"conditions": [condition.to_dict()]}}
        await self._apply(kinds.DATA_PLANE_NODES, body, subresource="status")

    async def _daemon_set(self, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        known = self._store.get(DAEMON_SETS, (metadata["namespace"], metadata["name"]))
        if known is not None:
            same = (known["metadata"].get("annotations") or {}).get(HASH_ANNOTATION) == _hash_of(manifest)
            if known["deleting"] or (same and contains(known["spec"], manifest["spec"])):
                return
        await self._apply(DAEMON_SETS, manifest)

    async def _label(self, node: NodeFacts, labels: Mapping[str, str]) -> None:
        body = {"metadata": {"name": node.name, "uid": node.uid, "labels": dict(labels)}}
        try:
            await self._apply(NODES, body)
        except NotFound:
            log.info("node is gone", node=node.name)

    async def _replace(self, pod: PodFacts) -> None:
        log.info("replacing data-plane pod", pod=pod.name[1], node=pod.node)
        await self._delete(PODS, pod.name[1], pod.name[0], uid=pod.uid)

    async def _drop(self, node: DataPlaneNode, namespace: str) -> None:
        """Do for a lost node what its agent can't: release the object, and the lease that others look at."""
        log.warning("node is lost, dropping it", node=node.spec.node_name, data_plane=node.spec.data_plane_name)
        await self._delete(LEASES, node_lease_name(node.metadata.name), namespace)
        keep = [finalizer for finalizer in node.metadata.finalizers if finalizer != NODE_FINALIZER]
        patch = {"metadata": {"resourceVersion": node.metadata.resource_version, "finalizers": keep}}
        self._check()
        try:
            self._learn(
                kinds.DATA_PLANE_NODES, await self._client.patch(kinds.DATA_PLANE_NODES, node.metadata.name, patch)
            )
        except NotFound:
            log.debug("node object is gone already", node=node.metadata.name)
        self.writes += 1

    async def _apply(self, res: Resource, body: Object, *, subresource: str | None = None) -> None:
        self._check()
        answer = await self._client.apply(res, body, field_manager=OPERATOR_MANAGER, subresource=subresource)
        self.writes += 1
        self._learn(res, answer)

    async def _delete(self, res: Resource, name: str, namespace: str | None = None, *, uid: str | None = None) -> None:
        self._check()
        await self._client.delete(res, name, namespace, uid=uid)
        self.writes += 1

    def _check(self) -> None:
        if not self._may_write():
            raise LeaseLostError("the lease could not be renewed in time: nothing is written any more")


def contains(actual: Any, desired: Any) -> bool:
    """Tell whether an object says what we want of it; what the API server filled in beside that doesn't matter."""
    if isinstance(desired, Mapping):
        return isinstance(actual, Mapping) and all(
            contains(actual.get(key), value) for key, value in desired.items() if value or key in actual
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return (
            isinstance(actual, Sequence)
            and len(actual) == len(desired)
            and all(contains(a, d) for a, d in zip(actual, desired, strict=True))
        )
    return bool(actual == desired)


def _hash_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["annotations"][HASH_ANNOTATION])

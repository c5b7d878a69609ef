"""A real operator in a thread of its own, objects that tests make, and an agent that only reports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from penstock_api.names import INSTALL_NAMESPACE, NODE_FINALIZER, node_object_name, report_name
from penstock_kube import (
    DAEMON_SETS,
    EVENTS,
    NODES,
    PODS,
    SERVICES,
    KubeClient,
    KubeConfigError,
    LeaseLostError,
    NotFound,
    Object,
)
from penstock_operator import kinds
from penstock_operator.main import Operator
from penstock_operator.settings import Settings

from tests.support.waiting import let_connections_go

MANIFESTS = Path(__file__).parents[2] / "crds" / "manifests"
AGENT = "penstock-agent"
OUR_KINDS = (
    kinds.VIPS,
    kinds.POLICIES,
    kinds.POOLS,
    kinds.DATA_PLANES,
    kinds.DATA_PLANE_NODES,
    kinds.REPORTS,
)


class RunningOperator:
    """An operator in a thread with a loop of its own: kopf cancels every task of its loop when it ends."""

    def __init__(self, settings: Settings) -> None:
        self.operator: Operator | None = None
        self.error: BaseException | None = None
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> RunningOperator:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except (LeaseLostError, KubeConfigError) as error:
            self.error = error
        finally:
            self._loop.run_until_complete(let_connections_go())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _main(self) -> None:
        self.operator = Operator(self._settings)
        self._started.set()
        await self.operator.run()

    @property
    def leading(self) -> bool:
        return self.operator is not None and self.operator.leading.is_set()

    @property
    def following(self) -> bool:
        return self.operator is not None and self.operator.following.is_set()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the operator's loop."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        if self._thread.is_alive() and self.operator is not None:
            self._loop.call_soon_threadsafe(self.operator.stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the operator did not stop"


async def wipe(client: KubeClient) -> None:
    """Delete all objects of ours and all nodes, finalizers or not: tests share one API server."""
    for res in (*OUR_KINDS, NODES, DAEMON_SETS, PODS):
        for item in (await client.list(res))[0]:
            name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
            if item["metadata"].get("finalizers"):
                await client.patch(res, name, {"metadata": {"finalizers": None}}, namespace)
            await client.delete(res, name, namespace)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds; the error is the condition's last word."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing of ours is told
            await asyncio.sleep(0.02)


class Cluster:
    """What tests make and look at."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    async def node(
        self, name: str, address: str, *, ready: bool = True, since: str | None = None, **labels: str
    ) -> None:
        labels = labels or {"role": "lb"}
        await self.client.apply(NODES, {"metadata": {"name": name, "labels": labels}}, field_manager="tests")
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": since or "2026-01-01T00:00:00Z",
            "reason": "Test",
            "message": "",
        }
        status = {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [condition]}
        body = {"metadata": {"name": name}, "status": status}
        await self.client.apply(NODES, body, field_manager="tests", subresource="status")

    async def data_plane(self, name: str = "edge", *, default: bool = True, **spec: Any) -> Object:
        annotations = {"penstock.dev/default": "true"} if default else {}
        spec.setdefault("nodeSelector", {"role": "lb"})
        return await self.client.create(
            kinds.DATA_PLANES, {"metadata": {"name": name, "annotations": annotations}, "spec": spec}
        )

    async def pool(self, *addresses: str, name: str = "public", **spec: Any) -> Object:
        return await self.client.create(
            kinds.POOLS, {"metadata": {"name": name}, "spec": {"addresses": list(addresses), **spec}}
        )

    async def service(self, name: str = "web") -> None:
        spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        await self.client.apply(SERVICES, body, field_manager="tests")

    async def vip(self, name: str = "web", *, namespace: str | None = None, **spec: Any) -> Object:
        spec.setdefault("ports", [{"port": 80}])
        spec.setdefault("backends", {"service": {"name": "web"}})
        body = {"metadata": {"name": name, "namespace": namespace or self.namespace}, "spec": spec}
        return await self.client.create(kinds.VIPS, body)

    async def get_vip(self, name: str = "web", namespace: str | None = None) -> Object:
        return await self.client.get(kinds.VIPS, name, namespace or self.namespace)

    async def wait(
        self, res: Any, name: str, condition: Callable[[Object], Any], *, namespaced: bool = False
    ) -> Object:
        """Wait until an object is as told; show it if it never is."""
        obj: Object = {}
        deadline = asyncio.get_running_loop().time() + 30
        while asyncio.get_running_loop().time() < deadline:
            try:
                obj = await self.client.get(res, name, self.namespace if namespaced else None)
                if condition(obj):
                    return obj
            except NotFound:
                obj = {"missing": name}
            await asyncio.sleep(0.03)
        raise AssertionError(f"never as expected:\n{yaml.safe_dump(obj.get('status', obj))}")

    async def wait_vip(self, condition: Callable[[Object], Any], name: str = "web") -> Object:
        return await self.wait(kinds.VIPS, name, condition, namespaced=True)

    async def daemon_set(self, name: str) -> Object:
        """Wait for a DaemonSet of the installation."""
        installation = Cluster(self.client, INSTALL_NAMESPACE)
        return await installation.wait(DAEMON_SETS, name, lambda obj: "spec" in obj, namespaced=True)

    async def gone(self, res: Any, name: str, namespace: str | None = None) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.client.get(res, name, namespace)
                except NotFound:
                    return
                await asyncio.sleep(0.03)

    async def events(self, *reasons: str, of: Object | None = None) -> dict[str, str]:
        """Wait until Events with these reasons were written; returns the types of all there are, or of one object's."""
        async with asyncio.timeout(30):
            while True:
                events, _ = await self.client.list(EVENTS, self.namespace)
                about = [e for e in events if of is None or e["regarding"].get("uid") == of["metadata"]["uid"]]
                types = {event["reason"]: event["type"] for event in about}
                if types.keys() >= set(reasons):
                    return types
                await asyncio.sleep(0.05)

    async def report(self, node: str, *entries: Object, data_plane: str = "edge") -> None:
        """Say what an agent would say of its node and its VIPs."""
        name = node_object_name(data_plane, node)
        await self.wait(kinds.DATA_PLANE_NODES, name, lambda obj: True)
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        body: Object = {"metadata": {"name": name, "finalizers": [NODE_FINALIZER]}}
        await self.client.apply(kinds.DATA_PLANE_NODES, body, field_manager=AGENT)
        status = {"instanceId": "run-1", "conditions": [ready], "observedGeneration": 1}
        body = {"metadata": {"name": name}, "status": status}
        await self.client.apply(kinds.DATA_PLANE_NODES, body, field_manager=AGENT, subresource="status")
        report = {"nodeName": node, "dataPlaneName": data_plane, "vips": list(entries)}
        body = {"metadata": {"name": report_name(name, 0)}, "report": report}
        await self.client.apply(kinds.REPORTS, body, field_manager=AGENT)

    async def leave(self, node: str, data_plane: str = "edge") -> None:
        """Do what an agent does when its DataPlaneNode is deleted."""
        name = node_object_name(data_plane, node)
        await self.wait(kinds.DATA_PLANE_NODES, name, lambda obj: "deletionTimestamp" in obj["metadata"])
        await self.client.delete(kinds.REPORTS, report_name(name, 0))
        await self.client.apply(kinds.DATA_PLANE_NODES, {"metadata": {"name": name}}, field_manager=AGENT)


def entry(vip: Object, **changes: Any) -> Object:
    """Return what an agent reports of a VIP."""
    metadata = vip["metadata"]
    found = {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata["generation"],
        "ready": 3,
        "total": 4,
        "policy": "little",
        "mode": "Active",
    }
    return found | changes


def condition(obj: Object, type_: str) -> Object:
    """Return a condition of an object, an empty one if it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next(
        (found for found in conditions if found["type"] == type_), {"status": "absent", "reason": "", "message": ""}
    )


def is_true(type_: str) -> Callable[[Object], bool]:
    return lambda obj: condition(obj, type_)["status"] == "True"


def refused(reason: str, type_: str = "Accepted") -> Callable[[Object], bool]:
    return lambda obj: condition(obj, type_)["status"] == "False" and condition(obj, type_)["reason"] == reason

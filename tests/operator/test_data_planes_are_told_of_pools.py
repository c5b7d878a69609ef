"""Which addresses VIPs may have, as data planes are told them: the ConfigMap, and how its change reaches pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from penstock_api.names import INSTALL_NAMESPACE
from penstock_kube import CONFIG_MAPS, PODS, SERVICE_ACCOUNTS, KubeClient, NotFound
from penstock_operator import kinds
from penstock_operator.plan import allowed, daemonsets

from tests.support.operator_rig import Cluster, RunningOperator
from tests.support.plan_builders import data_plane, pool, vip

INSTALLATION = daemonsets.Installation(INSTALL_NAMESPACE, "penstock/dataplane:1", "penstock/agent:1")


def blocks(config_map: dict[str, Any]) -> list[str]:
    content = json.loads(config_map["data"]["vips.json"])
    assert content["version"] == 1
    return list(content["blocks"])


def test_all_pools_and_what_is_held_beside_them() -> None:
    pools = [pool("203.0.113.0/28", "2001:db8::/64"), pool("198.51.100.1-198.51.100.3", name="other")]
    vips = [
        vip("a", held=["203.0.113.1"], servedBy="edge"),
        vip("b", held=["203.0.113.99"], servedBy="edge"),
        vip("c", held=["203.0.113.98"], servedBy="other"),
    ]
    found = allowed.config_map(data_plane(), pools, vips, "penstock-system")
    assert blocks(found) == ["198.51.100.1-198.51.100.3", "2001:db8::/64", "203.0.113.0/28", "203.0.113.99"]
    assert found["metadata"]["ownerReferences"][0]["kind"] == "DataPlane"


@pytest.mark.parametrize("kind", ["embedded", "vpp"])
def test_pods_find_the_file_and_no_agent_has_it(kind: str) -> None:
    spec = data_plane(type=kind)
    name = allowed.config_map(spec, [], [], INSTALL_NAMESPACE)["metadata"]["name"]
    pod = daemonsets.data_plane_daemon_set(spec, INSTALLATION)["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "allowed"]
    assert volume["configMap"] == {"name": name, "optional": True}
    (serving,) = [each for each in pod["containers"] if "--allowed-vips" in each.get("args", [])]
    path = serving["args"][serving["args"].index("--allowed-vips") + 1]
    (mount,) = [each for each in serving["volumeMounts"] if each["name"] == "allowed"]
    assert path == f"{mount['mountPath']}/vips.json"
    assert mount["readOnly"]
    agent = daemonsets.agent_daemon_set(spec, INSTALLATION)["spec"]["template"]["spec"]
    assert "allowed" not in {each["name"] for each in agent["volumes"]}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the API server is asked
            await asyncio.sleep(0.05)


@pytest.mark.apiserver
async def test_a_change_of_a_pool_reaches_the_pods(
    client: KubeClient, ready_cluster: Cluster, operator: RunningOperator
) -> None:
    def told(*expected: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            try:
                found = await client.get(CONFIG_MAPS, "penstock-edge-allowed", INSTALL_NAMESPACE)
            except NotFound:
                return False
            return blocks(found) == sorted(expected)

        return check

    async def refreshed() -> bool:
        found = await client.get(PODS, "forwarder", INSTALL_NAMESPACE)
        return "penstock.dev/allowed" in (found["metadata"].get("annotations") or {})

    await until(told("203.0.113.10-203.0.113.13"))
    labels = daemonsets.data_plane_daemon_set(data_plane(), INSTALLATION)["metadata"]["labels"]
    metadata = {"name": "forwarder", "namespace": INSTALL_NAMESPACE, "labels": labels}
    account = {"metadata": {"name": "forwarder", "namespace": INSTALL_NAMESPACE}}
    await client.apply(SERVICE_ACCOUNTS, account, field_manager="tests")
    spec = {
        "nodeName": "lb-1",
        "serviceAccountName": "forwarder",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "dataplane", "image": "none"}],
    }
    await client.create(PODS, {"metadata": metadata, "spec": spec})
    await asyncio.sleep(1)  # the operator learns of it
    await ready_cluster.pool("198.51.100.0/24", name="more")
    await until(told("203.0.113.10-203.0.113.13", "198.51.100.0/24"))
    await until(refreshed)
    await client.delete(kinds.POOLS, "more")
    await until(told("203.0.113.10-203.0.113.13"))
    await client.delete(PODS, "forwarder", INSTALL_NAMESPACE)

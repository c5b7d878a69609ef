"""Pods and processes of Penstock's components on the cluster: tests end them as a crash would."""

from __future__ import annotations

from e2e.installation import NAMESPACE as SYSTEM
from e2e.node_processes import node_processes
from e2e.shop import Shop


def kill_pod(shop: Shop, component: str, node: str = "") -> None:
    """End a component's pods at once, as a crash would; only those of a node if one is named."""
    cluster = shop.installation.cluster
    for pod in shop.installation.pods(component):
        placed = cluster.get("-n", SYSTEM, "pod", pod)["spec"]["nodeName"]
        if not node or placed == node:
            cluster.kubectl("-n", SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")


def ready_pods(shop: Shop, component: str, count: int) -> bool:
    """Say whether so many pods of a component are Ready."""
    cluster = shop.installation.cluster
    ready = 0
    for pod in shop.installation.pods(component):
        conditions = cluster.get("-n", SYSTEM, "pod", pod).get("status", {}).get("conditions", [])
        ready += any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready >= count


def data_plane_processes(shop: Shop, node: str) -> list[int]:
    """Return the data-plane processes of a node: the supervisor, then its child."""
    return node_processes(
        shop, node, lambda words: b"dataplane" in words and any(word.endswith(b"penstock") for word in words)
    )

"""Whether Kubernetes' own controllers act.

After the API server was away their watches wait for up to a minute before they are opened again, each by itself
(client-go's backoff of 30 s and its jitter). Until then no deleted pod is replaced.
"""

from __future__ import annotations

from e2e.cluster.local import LocalCluster
from e2e.cluster.processes import wait_until
from e2e.shop import MANIFESTS

_SELECTOR = "app=unscheduled"


def set_up(cluster: LocalCluster) -> None:
    """Make the pod by which `wait` finds out."""
    cluster.kubectl("apply", "-f", str(MANIFESTS / "unscheduled.yaml"))


def wait(cluster: LocalCluster, seconds: float) -> bool:
    """Delete a pod that does nothing and wait until another one takes its place; return whether it did in time."""
    before = _pods(cluster)
    cluster.kubectl("delete", "pods", "--selector", _SELECTOR)
    return wait_until(lambda: bool(_pods(cluster) - before), seconds, interval=0.5)


def _pods(cluster: LocalCluster) -> set[str]:
    return set(cluster.kubectl("get", "pods", "--selector", _SELECTOR, "-o", "name").split())

"""The providers by name."""

from __future__ import annotations

from e2e.cluster.current import CurrentCluster
from e2e.cluster.kind import KindCluster
from e2e.cluster.local import LocalCluster
from e2e.cluster.provider import Provider
from e2e.cluster.spec import DEFAULT_NAME

PROVIDERS = ("local", "kind", "current")


def find(provider: str, cluster: str = DEFAULT_NAME) -> Provider:
    """Return the cluster of this name at a provider, whether it is up or not."""
    if provider == "kind":
        return KindCluster(cluster)
    if provider == "current":
        return CurrentCluster()
    return LocalCluster(cluster)

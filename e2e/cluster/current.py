"""Provider `current`: whatever cluster kubectl's context names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e.cluster.errors import CommandError, StateError
from e2e.cluster.provider import Provider
from e2e.cluster.spec import DEFAULT_QUOTA_PERIOD, ClusterSpec
from e2e.cluster.steps import note


class CurrentCluster(Provider):
    """The cluster that kubectl talks to. It is neither made nor removed, and images are pulled."""

    name = "current"

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")

    def exists(self) -> bool:
        """Say whether the API server answers."""
        try:
            self.kubectl("version", timeout=20)
        except CommandError:
            return False
        return True

    def up(self, spec: ClusterSpec) -> None:
        """Check that the cluster has enough nodes."""
        if not self.exists():
            raise StateError(f"no API server answers for {self.kubeconfig}: set KUBECONFIG")
        self.wait_nodes_ready(len(spec.nodes), seconds=10)
        if any(node.quota_period != DEFAULT_QUOTA_PERIOD for node in spec.nodes):
            note("the kubelets' quota_period stays as it is: the cluster is not ours")

    def down(self) -> None:
        """Leave the cluster as it is: it is not ours."""

    def load_images(self, archives: Sequence[Path], nodes: Iterable[str] | None = None) -> None:
        """Refuse: only a registry brings images to nodes that are not ours."""
        names = ", ".join(archive.stem for archive in archives)
        raise StateError(f"provider current can't load {names}: push the images to a registry that its nodes reach")

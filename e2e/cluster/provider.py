"""What every kind of cluster offers to demonstrations and end-to-end tests."""

from __future__ import annotations

import json
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from e2e.cluster import binaries
from e2e.cluster.errors import CommandError, StateError
from e2e.cluster.processes import wait_until
from e2e.cluster.spec import ClusterSpec

NODES_READY_SECONDS = 180.0


class Provider(ABC):
    """A cluster: made, found again by a later process, used, removed."""

    name: str
    kubeconfig: Path

    @abstractmethod
    def up(self, spec: ClusterSpec) -> None:
        """Make the cluster and wait until all nodes are Ready."""

    @abstractmethod
    def down(self) -> None:
        """Remove everything that `up` made, also what a crash left half made. No effect where there is nothing."""

    @abstractmethod
    def exists(self) -> bool:
        """Say whether there is a cluster (or what is left of one)."""

    @abstractmethod
    def load_images(self, archives: Sequence[Path], nodes: Iterable[str] | None = None) -> None:
        """Make images (docker-archive files) known to the nodes; to all if none is named."""

    def tag_image(self, reference: str, name: str) -> None:
        """Give an image that the nodes have one more name; another image that had it loses it."""
        raise StateError(f"provider {self.name} can't name the image {reference} {name}")

    def node_command(self, node: str) -> list[str]:
        """Return what to put before a command so that it runs on a node, in its network."""
        raise StateError(f"provider {self.name} can't run commands on node {node!r}")

    def client_command(self) -> list[str]:
        """Return what to put before a command so that it runs on a machine beside the cluster, on the same network."""
        raise StateError(f"provider {self.name} has no client machine")

    def client_program(self, name: str) -> list[str]:
        """Return the command line that starts one of our tools there."""
        return [*self.client_command(), str(binaries.program(name))]

    def stop_apiserver(self) -> None:
        """Stop the API server; nodes and pods go on."""
        raise StateError(f"provider {self.name} can't stop its API server")

    def start_apiserver(self) -> None:
        """Start it again and wait until it is ready."""
        raise StateError(f"provider {self.name} can't start its API server")

    def kill_node(self, node: str) -> None:
        """Lose a node as in a power cut."""
        raise StateError(f"provider {self.name} can't kill node {node!r}")

    def start_node(self, node: str) -> None:
        """Start a lost node again, as after a boot."""
        raise StateError(f"provider {self.name} can't start node {node!r}")

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl against this cluster; return its output."""
        command = [str(binaries.program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode != 0:
            raise CommandError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return the parsed output of `kubectl get`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def ready_nodes(self) -> list[str]:
        """Return the names of all nodes that are Ready."""
        ready = []
        for node in self.get("nodes")["items"]:
            conditions = {item["type"]: item["status"] for item in node.get("status", {}).get("conditions", [])}
            if conditions.get("Ready") == "True":
                ready.append(node["metadata"]["name"])
        return ready

    def wait_nodes_ready(self, count: int, seconds: float = NODES_READY_SECONDS) -> None:
        """Wait until so many nodes are Ready."""

        def ready() -> bool:
            return len(self.ready_nodes()) >= count

        if not wait_until(ready, seconds, interval=0.5):
            raise StateError(f"after {seconds:.0f} s only {self.ready_nodes()} of {count} nodes are Ready")


def full_name(reference: str) -> str:
    """Return an image's name as containerd writes it: with the registry that a short name stands for."""
    return f"docker.io/{reference}"

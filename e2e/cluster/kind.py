"""Provider `kind`: Kubernetes in Docker, where there is an engine and the program `kind`."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from e2e.cluster import binaries
from e2e.cluster.errors import CommandError, StateError
from e2e.cluster.network import run
from e2e.cluster.node import STATIC_CPUS
from e2e.cluster.provider import Provider, full_name
from e2e.cluster.spec import DEFAULT_NAME, DEFAULT_QUOTA_PERIOD, ClusterSpec
from e2e.cluster.steps import step

_UP_SECONDS = 900
_LOAD_SECONDS = 300
_MANIFESTS = "/etc/kubernetes/manifests"
_CLIENT_IMAGE = "busybox:stable"  # runs our static tools: anything with a shell does


class KindCluster(Provider):
    """A cluster whose nodes are Docker containers; the client is one more container on their network."""

    name = "kind"

    def __init__(self, cluster: str = DEFAULT_NAME):
        self.cluster = cluster
        self.kubeconfig = binaries.cache_root() / f"kind-{cluster}.kubeconfig"

    def exists(self) -> bool:
        """Say whether kind knows a cluster of this name."""
        return shutil.which("kind") is not None and self.cluster in run("kind", "get", "clusters").split()

    def up(self, spec: ClusterSpec) -> None:
        """Make the cluster, its nodes named as kind names them, and a client container."""
        for program in ("kind", "docker"):
            if shutil.which(program) is None:
                raise StateError(f"provider kind needs {program}: install it, or use --provider local")
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        options = ["--name", self.cluster, "--kubeconfig", str(self.kubeconfig), "--config", "-", "--wait", "180s"]
        with step("kind cluster"):
            run("kind", "create", "cluster", *options, stdin=json.dumps(configuration(spec)), timeout=_UP_SECONDS)
        with step("client machine"):
            tools = binaries.program("loadgen").parent
            network = ["--network", "kind", "--cap-add", "NET_ADMIN"]
            volumes = [f"--volume={tools}:{tools}:ro", f"--volume={Path.cwd()}:{Path.cwd()}"]
            run("docker", "run", "--detach", "--name", self._client, *network, *volumes, _CLIENT_IMAGE, "sleep", "1d")
        self.wait_nodes_ready(len(spec.nodes) + 1)

    def down(self) -> None:
        """Delete the cluster and the client."""
        if shutil.which("kind") is None:
            return
        with contextlib.suppress(CommandError):  # some versions complain if there is none
            run("docker", "rm", "--force", self._client)
        run("kind", "delete", "cluster", "--name", self.cluster, timeout=_LOAD_SECONDS)
        self.kubeconfig.unlink(missing_ok=True)

    def load_images(self, archives: Sequence[Path], nodes: Iterable[str] | None = None) -> None:
        """Load image archives into the nodes."""
        chosen = ["--nodes", ",".join(nodes)] if nodes is not None else []
        for archive in archives:
            run("kind", "load", "image-archive", archive, "--name", self.cluster, *chosen, timeout=_LOAD_SECONDS)

    def tag_image(self, reference: str, name: str) -> None:
        """Give an image that the nodes have one more name."""
        for node in run("kind", "get", "nodes", "--name", self.cluster).split():
            command = ["ctr", "--namespace", "k8s.io", "images", "tag", "--force"]
            run("docker", "exec", node, *command, full_name(reference), full_name(name))

    def node_command(self, node: str) -> list[str]:
        """Return what to put before a command so that it runs in a node's container."""
        return ["docker", "exec", node]

    def client_command(self) -> list[str]:
        """Return what to put before a command so that it runs in the client's container."""
        return ["docker", "exec", self._client]

    def stop_apiserver(self) -> None:
        """Take the API server's manifest away: the control plane's kubelet stops it."""
        self._move_manifest(_MANIFESTS, "/root")

    def start_apiserver(self) -> None:
        """Give the manifest back and wait until the API server answers."""
        self._move_manifest("/root", _MANIFESTS)
        self.wait_nodes_ready(1)

    def kill_node(self, node: str) -> None:
        """Kill a node's container."""
        run("docker", "kill", node)

    def start_node(self, node: str) -> None:
        """Start a killed node's container."""
        run("docker", "start", node)

    @property
    def _client(self) -> str:
        return f"{self.cluster}-client"

    def _move_manifest(self, source: str, target: str) -> None:
        control = f"{self.cluster}-control-plane"
        run("docker", "exec", control, "mv", f"{source}/kube-apiserver.yaml", f"{target}/kube-apiserver.yaml")


def configuration(spec: ClusterSpec) -> dict[str, Any]:
    """Return kind's configuration: a control plane of its own, and a worker per node of the spec.

    Raises StateError for what kind can't do: kubelets that differ from each other.
    """
    workers = []
    for node in spec.nodes:
        worker: dict[str, object] = {"role": "worker", "labels": node.labels}
        if node.taints:
            patch = {"kind": "JoinConfiguration", "nodeRegistration": {"taints": node.taint_objects()}}
            worker["kubeadmConfigPatches"] = [json.dumps(patch)]
        workers.append(worker)
    found: dict[str, object] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane"}, *workers],
    }
    if settings := _kubelet_settings(spec):
        found["kubeadmConfigPatches"] = [json.dumps({"kind": "KubeletConfiguration", **settings})]
    return found


def _kubelet_settings(spec: ClusterSpec) -> dict[str, object]:
    periods = {node.quota_period for node in spec.nodes}
    if len(periods) > 1:
        raise StateError(f"provider kind has one quota_period for all nodes, not {', '.join(sorted(periods))}")
    settings: dict[str, object] = {}
    if periods != {DEFAULT_QUOTA_PERIOD}:
        settings |= {"cpuCFSQuotaPeriod": periods.pop(), "featureGates": {"CustomCPUCFSQuotaPeriod": True}}
    exclusive = {node.exclusive_cpus for node in spec.nodes}
    if len(exclusive) > 1:
        raise StateError("provider kind has one exclusive_cpus for all nodes")
    return settings | (STATIC_CPUS if exclusive == {True} else {})

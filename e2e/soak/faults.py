"""The faults of a soak run: what each does to the cluster, and which requests it may cost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from e2e.cluster.local import LocalCluster
from e2e.components import data_plane_processes, kill_pod
from e2e.node_processes import node_processes
from e2e.shop import MANIFESTS, Shop
from e2e.soak import controllers

BALANCERS = ("node-1", "node-2")
STATE = "/var/lib/penstock"
SHM = "/dev/shm"
CONTROLLERS_SECONDS = 120.0
SMALL_FILESYSTEMS = MappingProxyType({STATE: "16m", SHM: "256m"})


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    `inject` is entered when the fault begins and left when it ends, after `seconds`. `recovery_seconds` is the time
    that Penstock has afterwards to be as before. `loss_seconds`: for so long after its end requests that are under way
    may fail, because docs/explanation/limits.md says so; None: no request may fail.
    """

    inject: Callable[[Scene], AbstractContextManager[None]]
    seconds: float
    recovery_seconds: float = 60.0
    loss_seconds: float | None = None


@dataclass(frozen=True)
class Scene:
    """What a fault may use: the shop on its cluster and the randomness of this injection."""

    shop: Shop
    cluster: LocalCluster
    random: random.Random

    def balancer(self) -> str:
        """Return one of the nodes that balance load."""
        return self.random.choice(BALANCERS)

    def on_node(self, node: str, *command: str, check: bool = True) -> str:
        """Run a command on a node and return its output."""
        words = [*self.cluster.node_command(node), *command]
        return subprocess.run(words, capture_output=True, text=True, check=check, timeout=30).stdout


@contextmanager
def agent_killed(scene: Scene) -> Iterator[None]:
    """Kill the agent's process on one node."""
    node = scene.balancer()
    _kill(node_processes(scene.shop, node, lambda words: b"agent" in words and _is_penstock(words)))
    yield


@contextmanager
def agent_pods_deleted(scene: Scene) -> Iterator[None]:
    """Delete all agents without grace."""
    kill_pod(scene.shop, "agent")
    yield


@contextmanager
def operators_deleted(scene: Scene) -> Iterator[None]:
    """Delete all operators without grace."""
    kill_pod(scene.shop, "operator")
    yield


@contextmanager
def data_plane_killed(scene: Scene) -> Iterator[None]:
    """Kill the data plane on one node; its supervisor starts it again."""
    _kill(data_plane_processes(scene.shop, scene.balancer())[1:])
    yield


@contextmanager
def data_plane_killed_often(scene: Scene) -> Iterator[None]:
    """Kill the data plane on one node five times, two seconds apart."""
    node = scene.balancer()
    for _ in range(5):
        _kill(data_plane_processes(scene.shop, node)[1:])
        time.sleep(2)
    yield


@contextmanager
def data_plane_pod_deleted(scene: Scene) -> Iterator[None]:
    """Delete the data plane's pod on one node without grace."""
    kill_pod(scene.shop, "dataplane", scene.balancer())
    yield


@contextmanager
def data_plane_stopped(scene: Scene) -> Iterator[None]:
    """Stop the data plane's process (SIGSTOP) on one node and continue it after two seconds."""
    pids = data_plane_processes(scene.shop, scene.balancer())[1:]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2)
        yield
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    """Fill the file system of the agents' state on both nodes, restart one agent."""
    with _filled(scene, STATE), agent_killed(scene):
        yield


@contextmanager
def shared_memory_full(scene: Scene) -> Iterator[None]:
    """Fill /dev/shm on both nodes, then kill one data plane: it has to forward from the arena that is there."""
    with _filled(scene, SHM), data_plane_killed(scene):
        yield


@contextmanager
def link_down(scene: Scene) -> Iterator[None]:
    """Unplug one balancing node for three seconds."""
    node = scene.balancer()
    scene.cluster.disconnect_node(node)
    try:
        time.sleep(3)
    finally:
        scene.cluster.reconnect_node(node)
    yield


@contextmanager
def rules_removed(scene: Scene) -> Iterator[None]:
    """Remove on one node what forwards packets into the data plane: rules, routes, nft tables or IP forwarding."""
    scene.on_node(scene.balancer(), "sh", "-c", scene.random.choice(_REMOVALS))
    yield


@contextmanager
def api_server_stopped(scene: Scene) -> Iterator[None]:
    """Stop the API server for as long as the fault lasts; the next fault comes when Kubernetes can answer it."""
    scene.cluster.stop_apiserver()
    try:
        yield
    finally:
        scene.cluster.start_apiserver()
        controllers.wait(scene.cluster, CONTROLLERS_SECONDS)


@contextmanager
def hostile_slices(scene: Scene) -> Iterator[None]:
    """Apply EndpointSlices with impossible ports, addresses and names to the Services that are served; delete them."""
    manifest = (MANIFESTS / "hostile-slices.yaml").read_text()
    scene.cluster.kubectl("apply", "-f", "-", stdin=manifest)
    try:
        yield
    finally:
        scene.cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=manifest)


# What other programs on a node do: networkd and NetworkManager remove rules and routes that are not theirs, firewalls
# flush tables, a file of sysctls is applied again.
_REMOVALS = (
    "ip rule | grep -vE 'lookup (local|main|default)' | cut -d: -f1 | xargs -r -n 1 ip rule del pref",
    "ip -o link | grep -oE 'penstock[^:@ ]*' | sort -u | xargs -r -n 1 ip route flush table all dev",
    "nft list tables | grep penstock | cut -d' ' -f2- | xargs -r -L 1 nft delete table",
    "echo 0 > /proc/sys/net/ipv4/ip_forward",
)


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "agent killed": Fault(agent_killed, 2),
        "agents deleted": Fault(agent_pods_deleted, 2),
        "operators deleted": Fault(operators_deleted, 2),
        "data plane killed": Fault(data_plane_killed, 2),
        "data plane killed 5 times": Fault(data_plane_killed_often, 12),
        "data plane's pod deleted": Fault(data_plane_pod_deleted, 2),
        "data plane stopped 2 s": Fault(data_plane_stopped, 3),
        "disk full": Fault(disk_full, 15),
        "shared memory full": Fault(shared_memory_full, 15),
        # NAT state is the node's own: connections of the unplugged node that time out meanwhile are lost.
        "link down 3 s": Fault(link_down, 4, loss_seconds=15.0),
        "rules removed": Fault(rules_removed, 4),
        "API server stopped 20 s": Fault(api_server_stopped, 20, recovery_seconds=120.0),
        "hostile slices": Fault(hostile_slices, 8),
    }
)


def shrink_filesystems(cluster: LocalCluster) -> None:
    """Give the balancing nodes small file systems for state and shared memory, before Penstock is installed."""
    for node in BALANCERS:
        for path, size in SMALL_FILESYSTEMS.items():
            how = ["-o", f"remount,size={size}"] if path == SHM else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
            subprocess.run([*cluster.node_command(node), "mount", *how, path], check=True, timeout=30)


@contextmanager
def _filled(scene: Scene, path: str) -> Iterator[None]:
    """Leave no free byte in a file system of the balancing nodes while the block runs."""
    fill = f"{path}/filled-by-soak"
    try:
        for node in BALANCERS:
            scene.on_node(node, "dd", "if=/dev/zero", f"of={fill}", "bs=64k", check=False)  # ends with ENOSPC
        yield
    finally:
        for node in BALANCERS:
            scene.on_node(node, "rm", "-f", fill)


def _is_penstock(words: list[bytes]) -> bool:
    return any(word.endswith(b"penstock") for word in words)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # ended meanwhile

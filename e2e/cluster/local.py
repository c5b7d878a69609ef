"""Provider `local`: a whole Kubernetes in namespaces of one machine, from programs that the Go proxy alone provides.

Everything that is made is either below the state directory, in a namespace or control group whose name follows from the
recorded spec, or a process that sits in one of those namespaces. So `down` finds it all, also after a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import binaries, layout, network
from e2e.cluster.cgroups import Cgroups
from e2e.cluster.controlplane import ControlPlane, Ports, Settings
from e2e.cluster.errors import StateError
from e2e.cluster.layout import Layout
from e2e.cluster.node import PRIVATE_DIRECTORIES, Credentials, Node, node_object
from e2e.cluster.processes import Processes, wait_until
from e2e.cluster.provider import Provider, full_name
from e2e.cluster.spec import DEFAULT_NAME, ClusterSpec
from e2e.cluster.steps import step
from e2e.images.pause import write_pause_archive

STATE_ROOT = Path(os.environ.get("PENSTOCK_CLUSTER_DIR", "/var/lib/penstock-cluster"))
_FORWARDER = "forwarder"
_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "mount": "mount", "runc": "runc"}
_TOOLS |= {"nft": "nftables", "nice": "coreutils"}
_CONTAINERD_SECONDS = 60
_GIB = 1 << 30
_MEMORY_KEPT_FREE = 6 * _GIB
_MEMORY_PER_NODE = 3 * _GIB // 2


class LocalCluster(Provider):
    """A cluster whose nodes are namespaces of this machine."""

    name = "local"

    def __init__(self, cluster: str = DEFAULT_NAME, root: Path = STATE_ROOT):
        self.cluster = cluster
        self.directory = root / cluster
        self.kubeconfig = self.directory / "control" / "admin.kubeconfig"
        self.processes = Processes(self.directory / "processes")

    @property
    def spec(self) -> ClusterSpec:
        """The spec that the cluster was made from."""
        try:
            return ClusterSpec.from_json((self.directory / "spec.json").read_text())
        except FileNotFoundError:
            raise StateError(f"no cluster {self.cluster!r} is up: `python -m e2e.cluster up` makes one") from None

    @property
    def control_plane(self) -> ControlPlane:
        """The control plane, to stop and start or to get other users' credentials from."""
        recorded = json.loads((self.directory / "facts.json").read_text())
        return ControlPlane(self.directory / "control", _settings(self.cluster, recorded["public_port"]))

    def exists(self) -> bool:
        """Say whether there is a cluster of this name or what is left of one."""
        return self.directory.exists()

    def node(self, name: str) -> Node:
        """Return one node."""
        spec = self.spec.node(name)
        return Node(self.spec, spec, self.directory / "nodes" / name, self.processes)

    def nodes(self) -> list[Node]:
        """Return all nodes."""
        return [self.node(node.name) for node in self.spec.nodes]

    def up(self, spec: ClusterSpec) -> None:
        """Make the cluster and wait until all nodes are Ready."""
        _preflight()
        with step("programs"):
            binaries.programs(*binaries.LOCAL_PROGRAMS)
        with self._locked():
            if self.exists():
                raise StateError(f"cluster {self.cluster!r} is up (or half down): `python -m e2e.cluster down` first")
            self._record(spec)
            with step("networks"):
                network.create(spec)
            with step("control plane"):
                self._start_control_plane()
            with step(f"{len(spec.nodes)} nodes started"):
                self._start_nodes()
            with step(f"{len(spec.nodes)} nodes ready"):
                self.wait_nodes_ready(len(spec.nodes))

    def down(self) -> None:
        """Remove everything that `up` made."""
        with self._locked():
            if not self.exists():
                return
            if not (self.directory / "spec.json").exists():  # a crash before anything was made
                shutil.rmtree(self.directory)
                return
            spec = self.spec
            with step("processes ended"):
                self._end_processes(spec)
            with step("networks, control groups and files removed"):
                network.delete(spec)
                Cgroups.detect().delete(Layout(spec.name).cgroup)
                self._remove_directories()

    def load_images(self, archives: Sequence[Path], nodes: Iterable[str] | None = None) -> None:
        """Import image archives into nodes, a few nodes at a time."""
        names = list(nodes) if nodes is not None else [node.name for node in self.spec.nodes]
        chosen = [self.node(name) for name in names]

        def load(node: Node) -> None:
            for archive in archives:
                node.import_image(archive)

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(load, chosen))

    def tag_image(self, reference: str, name: str) -> None:
        """Give an image that the nodes have one more name."""
        for node in self.nodes():
            node.ctr("images", "tag", "--force", full_name(reference), full_name(name))

    def node_command(self, node: str) -> list[str]:
        """Return what to put before a command so that it runs on a node."""
        return self.node(node).enter()

    def client_command(self) -> list[str]:
        """Return what to put before a command so that it runs in the client's network."""
        return list(network.in_namespace(Layout(self.cluster).client_namespace))

    def stop_apiserver(self) -> None:
        """Stop the API server; nodes and pods go on."""
        self.control_plane.stop_apiserver()

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it is ready."""
        self.control_plane.start_apiserver()

    def kill_node(self, node: str) -> None:
        """End everything on a node at once and unplug it."""
        network.set_connected(self.spec, self.spec.node(node), connected=False)
        self.node(node).kill()

    def start_node(self, node: str) -> None:
        """Boot a killed node: its disk is what it was, its network is new."""
        spec = self.spec
        network.delete_node(spec, spec.node(node))
        network.create_node(spec, spec.node(node))
        self.node(node).start()

    def disconnect_node(self, node: str) -> None:
        """Pull a node's cable: it goes on, alone."""
        network.set_connected(self.spec, self.spec.node(node), connected=False)

    def reconnect_node(self, node: str) -> None:
        """Plug the cable in again."""
        network.set_connected(self.spec, self.spec.node(node), connected=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one command at a time change clusters of this machine."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        lock = self.directory.parent / ".lock"
        with lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _record(self, spec: ClusterSpec) -> None:
        """Write down what will be made, before any of it is."""
        self.directory.mkdir()
        (self.directory / "facts.json").write_text(json.dumps({"public_port": Ports.free().apiserver}))
        (self.directory / "spec.json").write_text(spec.to_json())
        missing = [str(directory) for directory in PRIVATE_DIRECTORIES if not directory.exists()]
        if missing:
            self._made_directories.write_text(json.dumps(missing))
        for directory in missing:
            Path(directory).mkdir(parents=True)
        disks = self.directory / "nodes"
        disks.mkdir()
        if available_memory() >= _MEMORY_KEPT_FREE + len(spec.nodes) * _MEMORY_PER_NODE:
            # Unpacking and removing images is a matter of tens of thousands of small files: much faster in memory.
            network.run(
                "mount", "-t", "tmpfs", "-o", f"mode=0755,size={len(spec.nodes) * _MEMORY_PER_NODE}", "tmpfs", disks
            )

    def _start_control_plane(self) -> None:
        plane = self.control_plane
        namespace = Path("/run/netns") / Layout(self.cluster).control_namespace
        target = [plane.settings.address, str(plane.settings.ports.apiserver)]
        root = Path(__file__).parents[2]
        self.processes.start(
            _FORWARDER,
            [sys.executable, "-m", "e2e.cluster.forwarder", str(plane.settings.public_port), namespace, *target],
            {"PYTHONPATH": str(root)},
        )
        plane.start()
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(_dns_service()))

    def _start_nodes(self) -> None:
        plane = self.control_plane
        groups = Cgroups.detect()
        proxy = plane.authority.issue("system:kube-proxy")
        documents = [node_object(node.spec) for node in self.nodes()]
        plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
        for node in self.nodes():
            groups.create(node.cgroup)
            user, hosts = f"system:node:{node.spec.name}", [layout.node_address(node.spec), node.spec.name]
            kubelet = plane.authority.issue(user, groups=["system:nodes"], hosts=hosts)
            node.prepare(Credentials(plane.endpoint(inside=True), kubelet, proxy))
            node.start()
        pause = write_pause_archive(self.directory / "pause.tar")
        for node in self.nodes():
            self.processes.wait_ready(node.spec.name, node.containerd_ready, _CONTAINERD_SECONDS)
            node.import_image(pause)

    def _end_processes(self, spec: ClusterSpec) -> None:
        for node in self.nodes():
            node.kill()
        if (self.directory / "control").exists():
            self.control_plane.stop()
        for name in self.processes.names():
            self.processes.stop(name, grace=0)

        def gone() -> bool:
            remaining = [pid for pid in network.members(spec) if pid != os.getpid()]
            for pid in remaining:
                os.kill(pid, signal.SIGKILL)
            return not remaining

        if not wait_until(gone, 20, interval=0.1):
            raise StateError(f"processes {network.members(spec)} in the cluster's networks survive SIGKILL")

    @property
    def _made_directories(self) -> Path:
        """Names the mount points that were made on this machine; they serve all of its clusters."""
        return self.directory.parent / "made-directories.json"

    def _remove_directories(self) -> None:
        for mount in _mounts_below(self.directory):
            network.run("umount", "--lazy", mount)
        shutil.rmtree(self.directory)
        others = [entry for entry in self.directory.parent.iterdir() if entry.is_dir()]
        if others or not self._made_directories.exists():
            return
        for directory in map(Path, json.loads(self._made_directories.read_text())):
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()
        self._made_directories.unlink()


def available_memory(meminfo: str | None = None) -> int:
    """Return the bytes that can be taken without swapping."""
    text = Path("/proc/meminfo").read_text() if meminfo is None else meminfo
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _settings(cluster: str, public_port: int) -> Settings:
    return Settings(
        address=layout.CONTROL_ADDRESS,
        service_cidr=layout.SERVICE_CIDR,
        service_address=layout.SERVICE_ADDRESS,
        launcher=network.in_namespace(Layout(cluster).control_namespace),
        controllers=True,
        public_port=public_port,
    )


def _preflight() -> None:
    if os.geteuid() != 0:
        raise StateError("provider local makes namespaces, mounts and control groups: run it as root")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None})
    if missing:
        raise StateError(f"programs are missing: `apt-get install {' '.join(missing)}`")
    Cgroups.detect()


def _mounts_below(directory: Path) -> list[str]:
    """Return the mount points below a directory, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


def _dns_service() -> dict[str, object]:
    """Return a Service for cluster DNS without endpoints: lookups are refused at once instead of timing out."""
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": layout.DNS_ADDRESS, "ports": ports},
    }

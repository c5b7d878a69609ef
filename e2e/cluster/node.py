"""One node of a local cluster: a machine in miniature.

It has a network, process, mount, IPC and host-name namespace of its own; its first process keeps containerd, kubelet
and kube-proxy running. When that process is killed, the kernel ends everything in the node and its mounts go too.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binaries, layout, network
from e2e.cluster.certificates import KeyPair
from e2e.cluster.errors import CommandError, StateError
from e2e.cluster.kubeconfig import Endpoint, write_kubeconfig
from e2e.cluster.layout import Layout
from e2e.cluster.network import run
from e2e.cluster.processes import Processes, start_ticks, wait_until
from e2e.cluster.spec import ClusterSpec, NodeSpec
from e2e.images.pause import PAUSE_IMAGE

# Folders of the machine that each node has to itself: what pods mount as hostPath and what CNI plugins remember.
PRIVATE_DIRECTORIES = (Path("/var/log"), Path("/var/lib/penstock"), Path("/var/lib/cni"))
# A kubelet's settings for whole processors. It wants something reserved, and counts that in whole processors too; half
# of one leaves room for other pods.
STATIC_CPUS: dict[str, object] = {"cpuManagerPolicy": "static", "systemReserved": {"cpu": "500m"}}
_NETWORK_PLUGINS = ("ptp", "portmap", "loopback", "host-local")
_IMPORT_SECONDS = 300


@dataclass(frozen=True)
class Credentials:
    """What a node proves itself with."""

    endpoint: Endpoint
    kubelet: KeyPair
    proxy: KeyPair


class Node:
    """A node that runs below `directory`; `processes` records its first process."""

    def __init__(self, cluster: ClusterSpec, spec: NodeSpec, directory: Path, processes: Processes):
        self.spec = spec
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self._cluster = cluster
        self._processes = processes

    @property
    def cgroup(self) -> str:
        """The node's control group, below the cluster's."""
        return f"{Layout(self._cluster.name).cgroup}/{self.spec.name}"

    @property
    def namespace(self) -> str:
        """The node's network namespace."""
        return Layout(self._cluster.name).node_namespace(self.spec)

    def prepare(self, credentials: Credentials) -> None:
        """Write everything that the node's programs read."""
        for name in ("logs", "containerd", "cni", "plugins", "kubelet", *map(_private_name, PRIVATE_DIRECTORIES)):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name in _NETWORK_PLUGINS:
            link = self.directory / "plugins" / name
            link.unlink(missing_ok=True)
            link.symlink_to(binaries.program(name))
        credentials.kubelet.write(self.directory, "kubelet")
        (self.directory / "ca.crt").write_bytes(credentials.endpoint.authority)
        user = f"system:node:{self.spec.name}"
        write_kubeconfig(self.directory / "kubelet.kubeconfig", credentials.endpoint, user, credentials.kubelet)
        write_kubeconfig(
            self.directory / "proxy.kubeconfig", credentials.endpoint, "system:kube-proxy", credentials.proxy
        )
        _write_json(self.directory / "cni" / "10-penstock.conflist", pod_network(self.spec))
        kubelet = kubelet_configuration(self.directory, self.cgroup, self.socket, self.spec)
        _write_json(self.directory / "kubelet.json", kubelet)
        (self.directory / "containerd.toml").write_text(containerd_configuration(self.directory, self.socket))
        (self.directory / "machine.sh").write_text(self._script())

    def start(self) -> None:
        """Start the node's first process."""
        self.socket.unlink(missing_ok=True)  # of an earlier life: its presence says that containerd runs
        isolate = ["unshare", "--mount", "--propagation=slave", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command = [*network.in_namespace(self.namespace), *isolate, "--mount-proc", "sh"]
        self._processes.start(self.spec.name, [*command, self.directory / "machine.sh"])

    def kill(self) -> None:
        """End every process of the node at once, as a power cut does."""
        pid = self.first_process()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            # The kernel ends all others before the first one's parent hears of its end.
            if not wait_until(lambda: not self._processes.running(self.spec.name), 30):
                raise StateError(f"{self.spec.name} does not end: see /proc/{pid}/stack")
        self._processes.stop(self.spec.name, grace=0)

    def first_process(self) -> int | None:
        """Return the pid (as this machine counts) of the node's first process; None if it does not run."""
        if not self._processes.running(self.spec.name):
            return None
        parent = self._processes.record(self.spec.name).pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        alive = [int(pid) for pid in children if start_ticks(int(pid)) is not None]
        return alive[0] if alive else None

    def enter(self) -> list[str]:
        """Return what to put before a command so that it runs as if logged in to the node."""
        pid = self.first_process()
        if pid is None:
            raise StateError(f"{self.spec.name} is not running")
        return ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--"]

    def containerd_ready(self) -> bool:
        """Ask containerd whether it serves."""
        try:
            self.ctr("version")
        except CommandError:
            return False
        return True

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client against this node."""
        options = ("--address", str(self.socket), "--namespace", "k8s.io")
        return run(binaries.program("ctr"), *options, *arguments, timeout=_IMPORT_SECONDS)

    def import_image(self, archive: Path) -> None:
        """Load an image archive into the node, once; it is unpacked there when the first pod needs it."""
        known = archive.stat()
        mark = self.directory / "imported" / f"{archive.name}.{known.st_size}.{known.st_mtime_ns}"
        if not mark.exists():
            self.ctr("images", "import", "--local", "--no-unpack", str(archive))
            mark.parent.mkdir(exist_ok=True)
            mark.touch()

    def log_ends(self) -> dict[str, Path]:
        """Return the log files of the node's programs."""
        return {path.stem: path for path in sorted((self.directory / "logs").glob("*.log"))}

    def _script(self) -> str:
        logs = self.directory / "logs"
        path = f"{binaries.program('containerd-shim-runc-v2').parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        containerd: list[str | Path] = [
            "env",
            f"PATH={path}",
            binaries.program("containerd"),
            "-c",
            self.directory / "containerd.toml",
        ]
        kubelet: list[str | Path] = [binaries.program("kubelet"), *self._kubelet_flags()]
        proxy: list[str | Path] = [binaries.program("kube-proxy"), *self._proxy_flags()]
        binds = [(self.directory / _private_name(target), target) for target in PRIVATE_DIRECTORIES]
        lines = [
            "set -eu",
            "mount --make-rshared /",
            "mount -t tmpfs -o mode=0755 tmpfs /run",
            "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
            *(f"mount --bind {_quote([source, target])}" for source, target in binds),
            f"hostname {self.spec.name}",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; fi",
            'keep() { log=$1; shift; while :; do "$@" >> "$log" 2>&1 || true; sleep 1; done; }',
            f"keep {_quote([logs / 'containerd.log', *containerd])} &",
            f"until [ -S {_quote([self.socket])} ]; do sleep 0.1; done",
            f"keep {_quote([logs / 'kubelet.log', *kubelet])} &",
            f"keep {_quote([logs / 'kube-proxy.log', *proxy])} &",
            f"exec {_quote([binaries.program('pause')])}",
        ]
        return "\n".join(lines) + "\n"

    def _kubelet_flags(self) -> list[str]:
        return [
            f"--config={self.directory / 'kubelet.json'}",
            f"--kubeconfig={self.directory / 'kubelet.kubeconfig'}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--cert-dir={self.directory / 'kubelet' / 'pki'}",
            f"--hostname-override={self.spec.name}",
            f"--node-ip={layout.node_address(self.spec)}",
        ]

    def _proxy_flags(self) -> list[str]:
        untouched = ("max-per-core", "min", "tcp-timeout-established", "tcp-timeout-close-wait")
        return [
            f"--kubeconfig={self.directory / 'proxy.kubeconfig'}",
            f"--hostname-override={self.spec.name}",
            "--proxy-mode=nftables",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            # These settings belong to the whole machine and can't be written from a node's namespace.
            *(f"--conntrack-{setting}=0" for setting in untouched),
        ]


def node_object(spec: NodeSpec) -> dict[str, object]:
    """Return the Node as it is created before its kubelet joins: with its pod network, labels and taints."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": {"kubernetes.io/hostname": spec.name, **spec.labels}},
        "spec": {
            "podCIDR": layout.pod_cidr(spec),
            "podCIDRs": [layout.pod_cidr(spec)],
            "taints": spec.taint_objects(),
        },
    }


def pod_network(spec: NodeSpec) -> dict[str, object]:
    """Return the CNI configuration of a node's pods: a routed point-to-point link each, no masquerade."""
    ranges = [[{"subnet": layout.pod_cidr(spec)}]]
    return {
        "cniVersion": "1.0.0",
        "name": "penstock",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_configuration(directory: Path, cgroup: str, socket: Path, spec: NodeSpec) -> dict[str, object]:
    """Return a kubelet's configuration for a node that shares its machine with others."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(directory / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(directory / "kubelet.crt"),
        "tlsPrivateKeyFile": str(directory / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{socket}",
        "featureGates": {"CustomCPUCFSQuotaPeriod": True},  # else no period but the default may be asked for
        "cpuCFSQuotaPeriod": spec.quota_period,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # images are imported and can't be pulled again
        "localStorageCapacityIsolation": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "nodeLeaseDurationSeconds": 20,
        "volumePluginDir": str(directory / "kubelet" / "plugins"),
        "clusterDNS": [layout.DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        **(STATIC_CPUS if spec.exclusive_cpus else {}),
    }


def containerd_configuration(directory: Path, socket: Path) -> str:
    """Return a containerd configuration with everything below the node's directory."""
    runc = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if runc is None:
        raise StateError("runc is not installed: `apt-get install runc`")
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""\
version = 3
root = '{directory / "containerd"}'
state = '/run/containerd'
[grpc]
address = '{socket}'
[plugins.'io.containerd.cri.v1.images']
snapshotter = '{snapshotter(directory)}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
[{runtime}]
restrict_oom_score_adj = true
disable_apparmor = true
[{runtime}.cni]
bin_dirs = ['{directory / "plugins"}']
conf_dir = '{directory / "cni"}'
[{runtime}.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[{runtime}.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'io.containerd.internal.v1.opt']
path = '{directory / "opt"}'
"""


def snapshotter(directory: Path) -> str:
    """Return the snapshotter that works here: an overlay on an overlay (a cluster in a container) does not."""
    kind = run("stat", "--file-system", "--format=%T", directory).strip()
    return "native" if kind == "overlayfs" else "overlayfs"


def _private_name(target: Path) -> str:
    return "private" + str(target).replace("/", "-")


def _quote(parts: Sequence[str | Path]) -> str:
    return shlex.join(str(part) for part in parts)


def _write_json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1))

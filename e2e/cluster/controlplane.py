"""etcd and kube-apiserver, with controller-manager and scheduler where there are nodes.

The same class serves tests (`control_plane()`: loopback, free ports, a directory of its own, nothing but API server and
etcd) and the local cluster (fixed ports in the cluster's network namespace).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import binaries
from e2e.cluster.certificates import Authority, signing_key, write_private
from e2e.cluster.errors import CommandError, StartError
from e2e.cluster.kubeconfig import Endpoint, write_kubeconfig
from e2e.cluster.processes import Processes

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
_READY_SECONDS = 60.0
_START_ATTEMPTS = 3
# Controllers give up when the API server goes away while they start; elsewhere a kubelet would start them again.
# The signal ends the program when the shell around it is killed.
_KEEP_RUNNING = ("sh", "-c", 'while :; do setpriv --pdeathsig KILL "$@"; sleep 1; done', "keep-running")


@dataclass(frozen=True)
class Ports:
    """TCP ports of the control plane."""

    apiserver: int = 6443
    etcd_clients: int = 2379
    etcd_peers: int = 2380
    controller_manager: int = 10257
    scheduler: int = 10259

    @classmethod
    def free(cls) -> Ports:
        """Choose ports that are free on loopback now."""
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.socket()) for _ in range(5)]
            for listener in held:
                listener.bind(("127.0.0.1", 0))
            return cls(*(listener.getsockname()[1] for listener in held))


@dataclass(frozen=True)
class Settings:
    """Where a control plane lives and what it serves."""

    address: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    service_cidr: str = "10.96.0.0/16"
    service_address: str = "10.96.0.1"
    launcher: tuple[str, ...] = ()  # put in front of each command, e.g. to enter a network namespace
    controllers: bool = False  # controller-manager and scheduler too
    public_port: int = 0  # where a forwarder on this machine's loopback leads to the API server; 0: there is none

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the API server."""
        return self.address.startswith("127.")


class ControlPlane:
    """A running control plane; `kubeconfig` is the administrator's."""

    def __init__(self, directory: Path, settings: Settings):
        self.directory = directory
        self.settings = settings
        self.processes = Processes(directory / "processes")
        self.kubeconfig = directory / "admin.kubeconfig"
        self._pki = directory / "pki"
        self._authority: Authority | None = None

    @property
    def url(self) -> str:
        """The API server's address as this machine reaches it."""
        if self.settings.public_port:
            return f"https://127.0.0.1:{self.settings.public_port}"
        return f"https://{self.settings.address}:{self.settings.ports.apiserver}"

    @property
    def authority(self) -> Authority:
        """The authority that signs all certificates of this cluster."""
        if self._authority is None:
            self._authority = Authority.load(self._pki)
        return self._authority

    def endpoint(self, *, inside: bool = False) -> Endpoint:
        """Return what a kubeconfig says about the server, to this machine or inside the cluster's own network."""
        url = f"https://{self.settings.address}:{self.settings.ports.apiserver}" if inside else self.url
        return Endpoint(url, self.authority.pem)

    def start(self) -> None:
        """Make certificates and start everything; return when the API server is ready."""
        self._write_secrets()
        etcd, apiserver = binaries.program(ETCD), binaries.program(APISERVER)
        self.processes.start(ETCD, [*self.settings.launcher, etcd, *self._etcd_flags()])
        self.processes.start(APISERVER, [*self.settings.launcher, apiserver, *self._apiserver_flags()])
        self.wait_ready()
        if self.settings.controllers:
            self._start_controllers()

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until the API server says that it is ready."""
        self.processes.wait_ready(APISERVER, self.ready, seconds)

    def ready(self) -> bool:
        """Ask the API server whether it is ready."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop_apiserver(self, *, grace: float = 3.0) -> None:
        """Stop the API server; etcd and its data stay. grace=0 kills it."""
        self.processes.stop(APISERVER, grace=grace)

    def start_apiserver(self) -> None:
        """Start the API server again on the same port and wait until it is ready."""
        self.processes.restart(APISERVER)
        self.wait_ready()

    def stop(self) -> None:
        """Stop all processes, in reverse order."""
        for name in (SCHEDULER, CONTROLLER_MANAGER, APISERVER, ETCD):
            self.processes.stop(name, grace=2.0 if name == APISERVER else 0.0)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> str:
        """Run the kubectl that fits this API server; return its output."""
        command = [str(binaries.program("kubectl")), "--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode != 0:
            raise CommandError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def issue(self, user: str, groups: Sequence[str] = (), *, inside: bool = False) -> Path:
        """Return a kubeconfig for a user with these groups; what it may do is up to RBAC."""
        path = self.directory / f"{_file_name(user)}.kubeconfig"
        credential = self.authority.issue(user, groups=groups)
        return write_kubeconfig(path, self.endpoint(inside=inside), user, credential)

    def token(self, namespace: str, service_account: str, *, node: str = "", pod: str = "", seconds: int = 3600) -> str:
        """Return a token of an existing service account, bound to an existing Node or Pod if one is named."""
        command = ["create", "token", service_account, "--namespace", namespace, f"--duration={seconds}s"]
        for kind, name in (("Node", node), ("Pod", pod)):
            if name:
                command += ["--bound-object-kind", kind, "--bound-object-name", name]
        return self.kubectl(*command).strip()

    def issue_service_account(self, namespace: str, service_account: str, *, node: str = "", pod: str = "") -> Path:
        """Return a kubeconfig that uses such a token."""
        token = self.token(namespace, service_account, node=node, pod=pod)
        path = self.directory / f"{_file_name(f'{namespace}-{service_account}-{node or pod}')}.kubeconfig"
        return write_kubeconfig(path, self.endpoint(), service_account, token, namespace=namespace)

    def _write_secrets(self) -> None:
        self._pki.mkdir(parents=True, exist_ok=True)
        authority = self._authority = Authority.create("penstock-cluster")
        authority.save(self._pki)
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        hosts = [*names, "127.0.0.1", self.settings.address, self.settings.service_address]
        authority.issue("kube-apiserver", hosts=hosts).write(self._pki, "apiserver")
        admin = authority.issue("penstock-admin", groups=["system:masters"])
        admin.write(self._pki, "admin")
        authority.issue("kube-apiserver-kubelet-client", groups=["system:masters"]).write(self._pki, "kubelet-client")
        write_private(self._pki / "tokens.key", signing_key())
        write_kubeconfig(self.kubeconfig, self.endpoint(), "penstock-admin", admin)

    def _etcd_flags(self) -> list[str]:
        clients = f"http://127.0.0.1:{self.settings.ports.etcd_clients}"
        peers = f"http://127.0.0.1:{self.settings.ports.etcd_peers}"
        return [
            "--name=penstock",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=penstock={peers}",
            "--unsafe-no-fsync",  # a cluster that lives for an hour may lose its data with the machine
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        settings, pki = self.settings, self._pki
        flags = [
            f"--etcd-servers=http://127.0.0.1:{settings.ports.etcd_clients}",
            f"--bind-address={settings.address}",
            f"--secure-port={settings.ports.apiserver}",
            f"--advertise-address={settings.address}",
            f"--service-cluster-ip-range={settings.service_cidr}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'tokens.key'}",
            f"--service-account-signing-key-file={pki / 'tokens.key'}",
            f"--requestheader-client-ca-file={pki / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--profiling=false",
        ]
        if settings.loopback:
            flags.append("--endpoint-reconciler-type=none")  # Endpoints may not hold a loopback address
        return flags

    def _start_controllers(self) -> None:
        for name, port, extra in (
            (CONTROLLER_MANAGER, self.settings.ports.controller_manager, self._controller_manager_flags()),
            (SCHEDULER, self.settings.ports.scheduler, []),
        ):
            kubeconfig = self.issue(f"system:{name}", inside=True)
            flags = [
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                "--leader-elect=false",
                *extra,
            ]
            self.processes.start(name, [*self.settings.launcher, *_KEEP_RUNNING, binaries.program(name), *flags])

    def _controller_manager_flags(self) -> list[str]:
        return [
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._pki / 'tokens.key'}",
            f"--root-ca-file={self._pki / 'ca.crt'}",
            "--allocate-node-cidrs=false",  # the nodes' pod networks are laid out before they join
            # After the only API server was away, watches come back one by one within half a minute. With the default of
            # 50 s nodes were judged by leases from before, and all pods were marked as not ready.
            "--node-monitor-grace-period=120s",
        ]


def _file_name(user: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in user).strip("-")


@contextlib.contextmanager
def control_plane(*, controller_manager: bool = False) -> Iterator[ControlPlane]:
    """Run API server and etcd on free loopback ports for the length of a `with` block, and leave nothing behind.

    Without a controller-manager no service account is made, nothing is garbage-collected and a deleted namespace stays
    Terminating: give each test a namespace of its own.
    """
    directory = Path(tempfile.mkdtemp(prefix="penstock-apiserver-"))
    with guard(directory):
        plane = _started(directory, controller_manager)
        try:
            yield plane
        finally:
            plane.stop()


def _started(directory: Path, controllers: bool) -> ControlPlane:
    """Start a control plane; choose other ports if somebody took one between the choice and the start."""
    for attempt in range(_START_ATTEMPTS):
        plane = ControlPlane(directory / str(attempt), Settings(ports=Ports.free(), controllers=controllers))
        try:
            plane.start()
        except StartError as error:
            plane.stop()
            if "address already in use" not in str(error) or attempt == _START_ATTEMPTS - 1:
                raise
        else:
            return plane
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def guard(directory: Path) -> Iterator[None]:
    """Remove a directory at the end; if this process is killed, a watcher stops what is recorded there and removes it.

    The watcher reads a pipe whose other end only this process holds: the kernel closes it, whatever ends us.
    """
    root = Path(__file__).parents[2]
    watcher = subprocess.Popen(
        [sys.executable, "-m", "e2e.cluster.watcher", str(directory)],
        stdin=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.communicate()
        shutil.rmtree(directory, ignore_errors=True)

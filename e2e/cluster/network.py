"""Namespaces, veths, addresses and routes of a local cluster; nothing is added to the machine's own network."""

from __future__ import annotations

import subprocess
from pathlib import Path

from e2e.cluster import layout
from e2e.cluster.errors import CommandError, StateError
from e2e.cluster.layout import Layout
from e2e.cluster.spec import ClusterSpec, NodeSpec

_NAMESPACES = Path("/run/netns")


def run(*command: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
    """Run a command; return its output, or raise an error that quotes what it complained about."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(arguments)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done.stdout


def in_namespace(namespace: str) -> tuple[str, ...]:
    """Return what to put before a command so that it runs in a network namespace.

    Not `ip netns exec`: that mounts another /sys, without control groups.
    """
    return ("nsenter", f"--net={_NAMESPACES / namespace}")


def namespaces(spec: ClusterSpec) -> list[str]:
    """Return the names of all network namespaces of a cluster."""
    names = Layout(spec.name)
    return [names.control_namespace, names.client_namespace, *(names.node_namespace(node) for node in spec.nodes)]


def create(spec: ClusterSpec) -> None:
    """Make the namespaces, the bridge that joins them, and routes to every node's pods."""
    for namespace in namespaces(spec):
        if (_NAMESPACES / namespace).exists():
            raise StateError(f"network namespace {namespace} exists already: `ip netns delete {namespace}` first")
    names = Layout(spec.name)
    run("ip", "netns", "add", names.control_namespace)
    _batch(
        names.control_namespace,
        "link set lo up",
        f"link add {layout.BRIDGE} type bridge forward_delay 0 stp_state 0",
        f"address add {layout.CONTROL_ADDRESS}/{layout.PREFIX_LENGTH} dev {layout.BRIDGE}",
        f"link set {layout.BRIDGE} up",
        *_pod_routes(spec),
    )
    run("ip", "netns", "add", names.client_namespace)
    _join(names, names.client_namespace, "client", layout.CLIENT_ADDRESS)
    _batch(names.client_namespace, *_pod_routes(spec))
    for node in spec.nodes:
        create_node(spec, node)


def create_node(spec: ClusterSpec, node: NodeSpec) -> None:
    """Make one node's namespace and connect it."""
    names = Layout(spec.name)
    namespace = names.node_namespace(node)
    run("ip", "netns", "add", namespace)
    _join(names, namespace, node.name, layout.node_address(node))
    _batch(namespace, *_pod_routes(spec, but=node))


def delete_node(spec: ClusterSpec, node: NodeSpec) -> None:
    """Delete one node's namespace and its cable (the kernel would remove that with the namespace, but later)."""
    names = Layout(spec.name)
    run("ip", "-netns", names.control_namespace, "link", "delete", node.name)
    run("ip", "netns", "delete", names.node_namespace(node))


def set_connected(spec: ClusterSpec, node: NodeSpec, connected: bool) -> None:
    """Plug a node's cable in or out."""
    state = "up" if connected else "down"
    run("ip", "-netns", Layout(spec.name).control_namespace, "link", "set", node.name, state)


def members(spec: ClusterSpec) -> list[int]:
    """Return the processes that are in one of the cluster's namespaces."""
    found = []
    for namespace in namespaces(spec):
        if (_NAMESPACES / namespace).exists():
            found += [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]
    return found


def delete(spec: ClusterSpec) -> None:
    """Delete the namespaces, and with them all that is in them. No effect where there are none."""
    for namespace in namespaces(spec):
        if (_NAMESPACES / namespace).exists():
            run("ip", "netns", "delete", namespace)


def _pod_routes(spec: ClusterSpec, but: NodeSpec | None = None) -> list[str]:
    others = [node for node in spec.nodes if node != but]
    return [f"route add {layout.pod_cidr(node)} via {layout.node_address(node)}" for node in others]


def _join(names: Layout, namespace: str, port: str, address: str) -> None:
    """Connect a namespace to the bridge. Both ends of the veth are made where they belong."""
    control = names.control_namespace
    run(
        *("ip", "link", "add", "name", port, "netns", control, "type", "veth"),
        *("peer", "name", layout.INTERFACE, "netns", namespace),
    )
    _batch(control, f"link set {port} master {layout.BRIDGE}", f"link set {port} up")
    _batch(
        namespace,
        "link set lo up",
        f"address add {address}/{layout.PREFIX_LENGTH} dev {layout.INTERFACE}",
        f"link set {layout.INTERFACE} up",
        *(f"route add {network} dev {layout.INTERFACE}" for network in layout.ON_LINK),
        f"route add default via {layout.CONTROL_ADDRESS}",
    )


def _batch(namespace: str, *commands: str) -> None:
    if commands:
        run("ip", "-netns", namespace, "-batch", "-", stdin="\n".join(commands) + "\n")

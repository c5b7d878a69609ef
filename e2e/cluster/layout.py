"""Addresses and names of a local cluster, all of them inside network namespaces of its own."""

from __future__ import annotations

from dataclasses import dataclass

from e2e.cluster.spec import NodeSpec

# One layer-2 network joins the nodes, the API server and the client; no address of it exists outside.
NETWORK = "10.89.0"
PREFIX_LENGTH = 24
CONTROL_ADDRESS = f"{NETWORK}.1"
CLIENT_ADDRESS = f"{NETWORK}.200"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
# Ranges reserved for documentation are on the link too: a pool of virtual addresses may use them, or a part of NETWORK
# from .224 on.
ON_LINK = ("203.0.113.0/24", "198.51.100.0/24")
BRIDGE = "bridge"
INTERFACE = "eth0"


@dataclass(frozen=True)
class Layout:
    """The names that belong to one cluster."""

    cluster: str

    @property
    def control_namespace(self) -> str:
        """Holds the bridge, etcd and the API server."""
        return f"{self.cluster}.control"

    @property
    def client_namespace(self) -> str:
        """A machine outside the cluster, on the same network."""
        return f"{self.cluster}.client"

    def node_namespace(self, node: NodeSpec) -> str:
        """One node's network."""
        return f"{self.cluster}.{node.name}"

    @property
    def cgroup(self) -> str:
        """The control group above those of all nodes."""
        return f"penstock-cluster.{self.cluster}"


def node_address(node: NodeSpec) -> str:
    """Return a node's address."""
    return f"{NETWORK}.{10 + node.index}"


def pod_cidr(node: NodeSpec) -> str:
    """Return the network of a node's pods."""
    return f"10.244.{node.index}.0/24"

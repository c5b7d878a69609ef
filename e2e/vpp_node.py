"""A node whose data plane is VPP: what tests do to it and see of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.cluster.processes import wait_until
from e2e.node_processes import node_processes
from e2e.shop import NAMESPACE, Shop

NODE = "node-4"
NAME = "web-vpp"
PROGRAM = "/usr/bin/vpp"


@contextmanager
def serving(shop: Shop, announcement: str = "L2", **vpp: object) -> Iterator[str]:
    """Have VPP serve a VIP on a node of its own; yield the VIP's address. At the end the node is as it was."""
    installation = shop.installation
    cluster = installation.cluster
    shop.apply("vpp.yaml.jinja", node=NODE, announcement=announcement, vpp=vpp)
    try:
        installation.wait_condition("dataplane", "fast", "Ready", seconds=180)
        installation.wait_condition("loadbalancervip", NAME, "Ready", namespace=NAMESPACE)
        yield installation.address(NAMESPACE, NAME)
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", "loadbalancervip", NAME)
        cluster.kubectl("delete", "dataplane", "fast", "--timeout=120s")
    assert wait_until(lambda: not processes(shop, PROGRAM), 60)
    left = on_node(shop, "ip -o link; nft list tables; ip rule; ls -R /dev/shm/penstock")
    assert "penstock" not in left.replace("/dev/shm/penstock", ""), left


def on_node(shop: Shop, script: str) -> str:
    """Run a script on the node; return what it prints."""
    command = [*shop.installation.cluster.node_command(NODE), "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


def on_client(shop: Shop, script: str) -> str:
    """Run a script on the machine beside the cluster; return what it prints."""
    command = [*shop.installation.cluster.client_command(), "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


def curl(shop: Shop, address: str) -> str:
    """Make one request on a new connection and return the answer's status."""
    return on_client(shop, f"curl -s -o /dev/null -m 2 -w '%{{http_code}}' http://{address}/healthz").strip()


def processes(shop: Shop, program: str) -> list[int]:
    """Return the processes of a program on the node."""
    return node_processes(shop, NODE, lambda words: words[0] == program.encode())

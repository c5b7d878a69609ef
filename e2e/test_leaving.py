"""A node is lost, comes back, and in the end everything is deleted and nothing of Penstock is left on any node."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from e2e.cluster.processes import wait_until
from e2e.installation import NAMESPACE as SYSTEM
from e2e.shop import NAMESPACE, Shop

BALANCERS = ("node-1", "node-2")
KINDS = ("loadbalancervips", "rlpolicies", "dataplanenodes", "dataplanenodereports", "dataplanes", "addresspools")


def on_node(shop: Shop, node: str, *command: str) -> str:
    """Run a command in a node's network and return what it prints."""
    done = subprocess.run(
        [*shop.installation.cluster.node_command(node), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout.strip()


def test_another_node_takes_over_the_address(shop: Shop) -> None:
    """New connections succeed again less than 5 s after the announcing node was lost."""
    cluster = shop.installation.cluster
    lost = shop.announcer()
    cluster.kill_node(lost)
    began = time.monotonic()
    # Three in a row, so that a stray answer of the old node does not count.
    answered = 0
    while answered < 3 and time.monotonic() - began < 30:
        answered = answered + 1 if shop.get(timeout=0.5) else 0
    took = time.monotonic() - began
    print(f"new connections succeeded again {took:.1f} s after {lost} was lost")
    assert took < 5.0
    cluster.start_node(lost)
    cluster.wait_nodes_ready(4)
    shop.installation.wait_condition("dataplane", "edge", "Ready", seconds=180)
    assert wait_until(shop.get, 30)


@pytest.mark.timeout(400)
def test_nothing_is_left(shop: Shop) -> None:
    cluster = shop.installation.cluster
    cluster.kubectl("-n", NAMESPACE, "delete", "loadbalancervip,rlpolicy", "--all")
    cluster.kubectl("delete", "dataplane,addresspool", "--all", "--timeout=120s")
    assert wait_until(lambda: not shop.installation.pods("dataplane") and not shop.installation.pods("agent"), 90)
    for kind in KINDS:
        assert cluster.get(kind, "-A")["items"] == [], f"{kind} are left"
    assert shop.installation.refusals() == []  # of the operator, whose logs go with it
    shop.installation.uninstall()
    assert wait_until(lambda: not cluster.get("-n", SYSTEM, "pods")["items"], 90)
    assert cluster.get("-n", SYSTEM, "leases")["items"] == []
    for node in BALANCERS:
        links = [link["ifname"] for link in json.loads(on_node(shop, node, "ip", "-j", "link"))]
        assert not [name for name in links if "penstock" in name], f"{node}: a device is left"
        assert "penstock" not in on_node(shop, node, "nft", "list", "tables"), f"{node}: an nft table is left"
        rules = json.loads(on_node(shop, node, "ip", "-j", "rule"))
        assert {rule["table"] for rule in rules} <= {"local", "main", "default"}, f"{node}: a rule is left: {rules}"
        routes = json.loads(on_node(shop, node, "ip", "-j", "route", "show", "table", "all"))
        places = {route["dst"] for route in routes if route["dst"].startswith("203.0.113.")}
        assert places <= {"203.0.113.0/24", "203.0.113.255"}, f"{node}: a route is left: {places}"
        left = on_node(shop, node, "find", "/dev/shm/penstock", "/run/penstock", "/var/lib/penstock", "-type", "f")
        assert left == "", f"{node}: files are left:\n{left}"

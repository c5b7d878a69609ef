"""A DataPlane of type vpp serves a VIP on a node of its own, beside the embedded one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.processes import wait_until
from e2e.conftest import NAMESPACE, REPORTS, Shop, assert_nothing_failed
from e2e.images import vpp
from e2e.load import Load, running

NODE = "node-4"
NAME = "web-vpp"

pytestmark = pytest.mark.skipif(bool(vpp.missing()), reason=vpp.missing() or "VPP is here")


def curl(shop: Shop, address: str) -> str:
    """Make one request on a new connection and return the answer's status."""
    command = ["curl", "-s", "-o", "/dev/null", "-m", "2", "-w", "%{http_code}", f"http://{address}/healthz"]
    done = subprocess.run(
        [*shop.installation.cluster.client_command(), *command], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout.strip()


def node_processes(shop: Shop, program: str) -> list[int]:
    """Return the processes of a program in the node's network."""
    inside = subprocess.run(
        [*shop.installation.cluster.node_command(NODE), "readlink", "/proc/self/ns/net"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            same_network = os.readlink(directory / "ns/net") == inside  # noqa: PTH115 - the target is no path
        except OSError:
            continue
        if same_network and words[0] == program.encode():
            found.append(int(directory.name))
    return found


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Address of a VIP that VPP serves; at the end the node is as it was."""
    installation = shop.installation
    shop.apply("vpp.yaml.jinja", node=NODE)
    installation.wait_condition("dataplane", "fast", "Ready", seconds=180)
    installation.wait_condition("loadbalancervip", NAME, "Ready", namespace=NAMESPACE)
    yield installation.address(NAMESPACE, NAME)
    cluster = installation.cluster
    cluster.kubectl("-n", NAMESPACE, "delete", "loadbalancervip", NAME)
    cluster.kubectl("delete", "dataplane", "fast", "--timeout=120s")
    assert wait_until(lambda: not node_processes(shop, "/usr/bin/vpp"), 60)
    left = subprocess.run(
        [*cluster.node_command(NODE), "sh", "-c", "ip -o link; nft list tables; ip rule; ls -R /dev/shm/penstock"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "penstock" not in left.replace("/dev/shm/penstock", ""), left


def test_both_data_planes_serve(shop: Shop, address: str) -> None:
    assert curl(shop, address) == "200"
    assert curl(shop, shop.address) == "200"
    assert address != shop.address


def test_requests_reach_all_servers_and_none_fails(shop: Shop, address: str) -> None:
    report = REPORTS / "vpp.jsonl"
    report.parent.mkdir(parents=True, exist_ok=True)
    program = shop.installation.cluster.client_program("loadgen")
    with running(program, Load(f"http://{address}/", 50.0, 10), report) as load:
        found = load.finish()
    assert_nothing_failed(found)
    assert len(found.summary.backends) == shop.replicas


def test_vpp_is_killed_and_connections_go_on(shop: Shop, address: str) -> None:
    program = shop.installation.cluster.client_program("loadgen")
    with running(program, Load(f"http://{address}/", 50.0, 15, new_share=0.2), REPORTS / "vpp-killed.jsonl") as load:
        assert wait_until(lambda: len(load.intervals()) >= 3, 20)
        (victim,) = node_processes(shop, "/usr/bin/vpp")
        os.kill(victim, signal.SIGKILL)
        found = load.finish()
    assert_nothing_failed(found)
    assert node_processes(shop, "/usr/bin/vpp") != [victim]

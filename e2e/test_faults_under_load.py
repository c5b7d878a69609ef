"""Parts of Penstock are killed and everything around it changes while clients keep asking: no request may fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from e2e.cluster.processes import wait_until
from e2e.components import data_plane_processes, kill_pod, ready_pods
from e2e.shop import NAMESPACE, Shop, assert_nothing_failed


def test_agents_are_killed(shop: Shop) -> None:
    with shop.load("agents-killed", 12) as load:
        kill_pod(shop, "agent")
        assert_nothing_failed(load.finish())
    assert wait_until(lambda: ready_pods(shop, "agent", 2), 60)


def test_operators_are_killed(shop: Shop) -> None:
    with shop.load("operators-killed", 12) as load:
        kill_pod(shop, "operator")
        assert_nothing_failed(load.finish())
    assert wait_until(lambda: ready_pods(shop, "operator", 2), 60)


def test_api_server_stops_for_30_seconds(shop: Shop) -> None:
    cluster = shop.installation.cluster
    address = shop.address
    with shop.load("apiserver-stopped", 40) as load:
        cluster.stop_apiserver()
        try:
            time.sleep(30)
        finally:
            cluster.start_apiserver()
        assert_nothing_failed(load.finish())
    cluster.wait_nodes_ready(4)
    assert shop.address == address
    # An API server that has just started knows no roles yet and may refuse anything: not our doing.
    shop.installation.refusals()


def test_data_plane_is_killed(shop: Shop) -> None:
    cluster = shop.installation.cluster
    node = shop.announcer()
    supervisor, child = data_plane_processes(shop, node)
    listener = subprocess.Popen(
        [*cluster.client_command(), sys.executable, "-m", "e2e.quiet", shop.address, "10"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline().strip() == "listening"
    with shop.load("dataplane-killed", 12) as load:
        os.kill(child, signal.SIGKILL)
        assert_nothing_failed(load.finish())
    heard, _ = listener.communicate(timeout=30)
    assert heard == "", "connections were broken during the pause"
    assert data_plane_processes(shop, node)[0] == supervisor, (
        "the pod was replaced; its supervisor should have sufficed"
    )


def test_backends_scale_up_and_down(shop: Shop) -> None:
    cluster = shop.installation.cluster
    with shop.load("scaling", 45) as load:
        for replicas in (8, 2):
            shop.replicas = replicas
            cluster.kubectl("-n", NAMESPACE, "scale", "deployment/web", f"--replicas={replicas}")
            shop.rolled_out()
            shop.wait_backends(f"{replicas}/{replicas}")
        report = load.finish()
    assert_nothing_failed(report)
    assert len(report.summary.backends) >= 8, "not every new server got requests"


def test_servers_are_updated(shop: Shop) -> None:
    shop.replicas = 4
    shop.apply_servers()
    shop.rolled_out()
    with shop.load("rolling-update", 40) as load:
        shop.generation += 1
        shop.apply_servers()
        shop.rolled_out()
        report = load.finish()
    assert_nothing_failed(report)
    shop.wait_backends("4/4")


def test_vip_is_edited(shop: Shop) -> None:
    with shop.load("vip-edited", 15) as load:
        shop.heuristic = "little"
        shop.ports = (80, 8081)
        shop.apply_vip()
        assert_nothing_failed(load.finish())
    with shop.load("vip-second-port", 5, port=8081) as load:
        assert_nothing_failed(load.finish())
    summary = shop.installation.cluster.get("-n", NAMESPACE, "loadbalancervip", "web")["status"]["summary"]
    assert summary["policy"].startswith("little")


@pytest.mark.timeout(300)
def test_data_plane_pod_is_replaced(shop: Shop) -> None:
    """The pod of the announcing node is deleted: the next one re-attaches the flows of the one before."""
    node = shop.announcer()
    with shop.load("dataplane-replaced", 20) as load:
        kill_pod(shop, "dataplane", node)
        report = load.finish()
    # The other node takes no part: established connections stay where they are, new ones wait for the new pod.
    assert_nothing_failed(report)
    assert wait_until(lambda: ready_pods(shop, "dataplane", 2), 60)

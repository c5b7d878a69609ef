"""Data planes are replaced and Penstock is installed anew under load: new connections are served all the time."""

from __future__ import annotations

import json

import pytest

from e2e.cluster.processes import wait_until
from e2e.components import ready_pods
from e2e.load import Report
from e2e.shop import Shop

MOVES = 4  # of addresses: away from each node in turn, and back
IN_FLIGHT = 5  # connections that one move may break: flows stay with the node that knows them
RATE = 20.0  # connections per second: a data plane that starts needs the processor, too


def assert_new_connections_were_served(report: Report) -> None:
    summary = report.summary
    first = "\n".join(f"{failure.intended}: {failure.kind} {failure.error}" for failure in report.failures[:10])
    assert summary.failed <= MOVES * IN_FLIGHT, f"{summary.failed} of {summary.requests} requests failed:\n{first}"


def data_plane(shop: Shop) -> dict[str, str]:
    """Return the messages of the DataPlane's conditions by type."""
    status = shop.installation.cluster.get("dataplane", "edge")["status"]
    found = {each["type"]: each["message"] for each in status["conditions"]}
    return found | {"updated": f"{status['nodes']['updated']}/{status['nodes']['selected']}"}


def change(shop: Shop, **spec: object) -> None:
    patch = json.dumps({"spec": spec})
    shop.installation.cluster.kubectl("patch", "dataplane", "edge", "--type=merge", f"--patch={patch}")


def rolled_out(shop: Shop) -> bool:
    found = data_plane(shop)
    return "Reconciling" not in found and found["updated"] == "2/2"


@pytest.mark.timeout(400)
def test_new_connections_are_served_while_data_planes_are_replaced(shop: Shop) -> None:
    with shop.load("handover", 90, new_share=1.0, rate=RATE) as load:
        change(shop, flowTableSize=131072)
        assert wait_until(lambda: not rolled_out(shop), 20), "nothing is replaced"
        assert wait_until(lambda: rolled_out(shop), 120), data_plane(shop)
        report = load.finish()
    assert_new_connections_were_served(report)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_data_plane_whose_image_is_missing_halts_the_rollout(shop: Shop) -> None:
    shop.installation.install("--set=operator.replicas=2", "--set-string=images.vpp.tag=missing")
    with shop.load("missing-image", 60, new_share=1.0, rate=RATE) as load:
        change(shop, type="vpp")
        expected = "ErrImagePull penstock/vpp:missing"
        assert wait_until(lambda: expected in data_plane(shop)["Ready"], 60, interval=0.5), data_plane(shop)
        assert data_plane(shop)["updated"] == "1/2"
        change(shop, type="embedded")
        report = load.finish()
    assert_new_connections_were_served(report)
    assert wait_until(lambda: rolled_out(shop), 120), data_plane(shop)
    shop.installation.install("--set=operator.replicas=2")
    shop.installation.wait_condition("dataplane", "edge", "Ready")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_agents_follow_when_penstock_is_installed_anew(shop: Shop) -> None:
    """`helm uninstall` keeps the objects; the new ServiceAccount is another one, whatever its name."""
    before = set(shop.installation.pods("agent"))
    with shop.load("installed-anew", 30) as load:
        shop.installation.uninstall()
        shop.installation.install("--set=operator.replicas=2")
        load.finish()
    assert wait_until(lambda: not before & set(shop.installation.pods("agent")), 180), "agents were not replaced"
    assert wait_until(lambda: ready_pods(shop, "agent", 2), 60)
    shop.installation.wait_condition("dataplane", "edge", "Ready", seconds=180)
    shop.installation.refusals()  # agents of the account that is gone are refused
    shop.replicas = 3
    shop.apply_servers()
    shop.wait_backends("3/3", 90)  # what agents report arrives again
    shop.replicas = 4
    shop.apply_servers()
    shop.wait_backends("4/4", 90)

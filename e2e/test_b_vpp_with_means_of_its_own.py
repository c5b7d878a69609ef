"""DataPlanes of type vpp with what a node must have been set up for: hugepages, processors, network cards."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.local import LocalCluster
from e2e.cluster.network import run
from e2e.cluster.processes import wait_until
from e2e.hugepages import MEBIBYTES
from e2e.images import vpp
from e2e.shop import Shop
from e2e.vpp_node import NODE, PROGRAM, curl, on_client, on_node, processes, serving

pytestmark = pytest.mark.skipif(bool(vpp.missing()), reason=vpp.missing() or "VPP is here")

CARD = "eth1"
VPP_ADDRESS = "192.0.2.11"


def huge_kibibytes(process: int) -> int:
    """Return how much of a process's memory is hugepages of its own."""
    text = Path(f"/proc/{process}/smaps").read_text()
    return sum(map(int, re.findall(r"^Private_Hugetlb: +([0-9]+) kB", text, re.MULTILINE)))


def test_hugepages_and_a_processor_of_its_own(shop: Shop) -> None:
    allocatable = shop.installation.cluster.get("node", NODE)["status"]["allocatable"]
    if allocatable.get("hugepages-2Mi", "0") == "0":
        pytest.skip(f"this machine had no {MEBIBYTES} MiB of memory for hugepages when the cluster was started")
    with serving(shop, exclusiveCPUs=True, hugepages={"amount": f"{MEBIBYTES}Mi"}) as address:
        assert curl(shop, address) == "200"
        (first,) = processes(shop, PROGRAM)
        assert huge_kibibytes(first) >= 0.9 * MEBIBYTES * 1024
        (processor,) = os.sched_getaffinity(first)
        others = on_node(shop, "for p in $(pgrep -f '[v]pp control'); do grep Cpus_allowed_list /proc/$p/status; done")
        assert others.split()
        assert str(processor) not in others.split()
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: curl(shop, address) == "200", 20, interval=0.5)
        (second,) = processes(shop, PROGRAM)
        assert second != first
        assert huge_kibibytes(second) >= 0.9 * MEBIBYTES * 1024


@pytest.fixture
def card(shop: Shop) -> Iterator[str]:
    """A second card of the node, and a cable from it to the client."""
    cluster = shop.installation.cluster
    if not isinstance(cluster, LocalCluster):
        pytest.skip(f"provider {cluster.name} has no second card for its nodes")
    node, client = cluster.node(NODE).namespace, cluster.client_command()[-1].rpartition("/")[2]
    run("ip", "link", "add", CARD, "netns", node, "type", "veth", "peer", "name", CARD, "netns", client)
    on_node(shop, f"ip link set {CARD} up")
    # A cable carries whole checksums and no frame that is longer than it may be.
    on_client(shop, f"ethtool -K {CARD} tx off gro off gso off tso off")
    on_client(shop, f"ip link set {CARD} up; ip address add 192.0.2.200/24 dev {CARD}")
    yield CARD
    on_client(shop, f"ip link delete {CARD}")


@pytest.mark.parametrize("kind", ["AfPacket", "AfXdp"])
def test_clients_come_by_a_card_of_vpps_own(shop: Shop, card: str, kind: str) -> None:
    if kind == "AfXdp" and not any(vpp.prefix().rglob("af_xdp_plugin.so")):
        pytest.skip(f"VPP in {vpp.prefix()} was built without its plugin af_xdp")
    interface = {"type": kind, "name": card, "addresses": [{"node": NODE, "address": f"{VPP_ADDRESS}/24"}]}
    with serving(shop, announcement="None", interfaces=[interface]) as address:
        on_client(shop, f"ip route replace {address} via {VPP_ADDRESS} dev {card}")
        assert {curl(shop, address) for _ in range(8)} == {"200"}
        (process,) = processes(shop, PROGRAM)
        os.kill(process, signal.SIGKILL)
        assert wait_until(lambda: curl(shop, address) == "200", 20, interval=0.5)
        on_client(shop, f"ip route delete {address} dev {card}")
    assert "xdp" not in on_node(shop, f"ip -o link show dev {card}")

"""A data plane at the other end of a veth pair: the node leads packets to it as to a TUN."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from penstock_node import Veth, provide, reconcile, withdraw
from penstock_node.actual import ActualNode, Link, TunFlags
from penstock_node.changes import ConfigureTun, ConfigureVeth, CreateTun, CreateVeth, DeleteLink
from penstock_node.constants import DEVICE_ALIAS, DEVICE_GROUP, VETH_ADDRESS
from penstock_node.desired import Tun
from penstock_node.netlink import observe
from penstock_node.plans import plan_device
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from tests.node.conftest import Lab

VETH = Veth()
NEAR = Link(
    "penstock",
    3,
    kind="veth",
    mtu=9000,
    tx_queue_length=1000,
    forwarding=True,
    accept_local=True,
    alias=DEVICE_ALIAS,
    group=DEVICE_GROUP,
    address=VETH_ADDRESS,
    arp=False,
)
FAR = Link("penstock-vpp", 4, kind="veth", arp=False)
TUN = replace(NEAR, kind="tun", tun=TunFlags(True, True, False, True, False, 0))


def node(*links: Link) -> ActualNode:
    return ActualNode(links={link.name: link for link in links})


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        pytest.param(node(), [CreateVeth, ConfigureVeth], id="nothing"),
        pytest.param(node(NEAR, FAR), [], id="right"),
        pytest.param(node(replace(NEAR, mtu=1500), FAR), [ConfigureVeth], id="mtu"),
        pytest.param(node(replace(NEAR, arp=True), FAR), [ConfigureVeth], id="resolves neighbours"),
        pytest.param(node(replace(NEAR, alias="", group=0), FAR), [ConfigureVeth], id="made and not configured"),
        pytest.param(node(replace(NEAR, address="02:00:00:00:00:01"), FAR), [ConfigureVeth], id="address"),
        pytest.param(node(NEAR), [DeleteLink, CreateVeth, ConfigureVeth], id="the other end is elsewhere"),
        pytest.param(node(TUN), [DeleteLink, CreateVeth, ConfigureVeth], id="an embedded data plane was here"),
        pytest.param(
            node(replace(NEAR, alias="", address="02:00:00:00:00:01"), FAR), [CreateVeth], id="somebody else's"
        ),
    ],
)
def test_the_pair_becomes_right(actual: ActualNode, expected: list[type]) -> None:
    assert [type(change) for change in plan_device(VETH, actual)] == expected


def test_an_embedded_data_plane_takes_its_place() -> None:
    assert [type(change) for change in plan_device(Tun(), node(NEAR, FAR))] == [DeleteLink, CreateTun, ConfigureTun]


@pytest.mark.parametrize(
    ("values", "named"), [({"name": ""}, "veth.name"), ({"peer": "penstock"}, "veth.peer"), ({"mtu": 68}, "veth.mtu")]
)
def test_a_mistake_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Veth(**values)


@pytest.mark.netns
def test_the_node_is_left_as_it_was(lab: Lab) -> None:
    before = lab.snapshot()
    assert lab.node.run(reconcile, lab.desired(tun=VETH))
    assert lab.node.run(reconcile, lab.desired(tun=VETH)) == ()
    assert lab.node.run(observe).shortcut is None
    lab.node.run(withdraw)
    assert lab.snapshot() == before


@pytest.mark.netns
def test_the_device_alone_touches_no_route(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired(tun=VETH))
    routes = lab.node.run(observe).routes
    assert lab.node.run(provide, VETH) == ()
    lab.node.sh("ip link set penstock mtu 1500")
    assert lab.node.run(provide, VETH) == (ConfigureVeth(VETH),)
    assert lab.node.run(observe).routes == routes


@pytest.mark.netns
def test_frames_have_one_address_in_both_directions(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired(tun=VETH))
    end = lab.node.run(_packet_socket)
    with end:
        vip = str(next(address for address in lab.desired().vips if address.version == 4))
        asking = lab.client.popen(["ping", "-c", "3", "-i", "0.2", "-W", "1", vip], stdout=subprocess.PIPE)
        for _ in range(3):
            request = _await(end, lambda frame: ICMP in frame and frame[ICMP].type == 8)
            assert request[Ether].dst == VETH_ADDRESS
            answer = Ether(src=VETH_ADDRESS, dst=VETH_ADDRESS) / IP(src=vip, dst=request[IP].src)
            end.send(bytes(answer / ICMP(type=0, id=request[ICMP].id, seq=request[ICMP].seq) / request[ICMP].payload))
        said = asking.communicate(timeout=10)[0]
    assert "3 received" in said


def _packet_socket() -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((VETH.peer, 0))
    end.settimeout(5)
    return end


def _await(end: socket.socket, wanted: Callable[[Ether], bool]) -> Ether:
    while True:
        frame = Ether(end.recv(65536))
        if wanted(frame):
            return frame

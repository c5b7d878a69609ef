"""Fragments through VPP, in whatever order, and what VPP's own address gets beside the ports of NAT flows."""

from __future__ import annotations

import contextlib
import socket

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw

from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


def asked(ear: socket.socket) -> bool:
    """Whether a short question is answered."""
    ear.sendto(b"short", (VIP_IPV4, 53))
    with contextlib.suppress(TimeoutError):
        return ear.recv(100).endswith(b"short")
    return False


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_fragments_reach_the_server_in_any_order(lab: Lab, balancer: RunningVpp, order: tuple[int, ...]) -> None:
    balancer.balance(VIP_IPV4, 53, "udp")
    data = bytes(range(250)) * 8
    with (
        lab.client.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear,
        lab.client.run(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as mouth,
    ):
        ear.bind((lab.client_ipv4, 0))
        ear.settimeout(0.5)
        eventually(lambda: asked(ear))  # VPP drops packets until it knows the server's Ethernet address
        ear.settimeout(5)
        whole = IP(src=lab.client_ipv4, dst=VIP_IPV4, id=7) / UDP(sport=ear.getsockname()[1], dport=53) / Raw(data)
        parts = fragment(whole, 800)
        assert len(parts) == len(order)
        for number in order:
            mouth.sendto(bytes(parts[number]), (VIP_IPV4, 0))
        assert ear.recv(65535).partition(b" ")[2] == data


@BOTH
def test_a_fragmented_ping_is_answered(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    lab.client.sh(f"ping -c 3 -i 0.05 -W 2 -s 4000 {address}")


@BOTH
def test_vpps_own_address_is_pinged_in_fragments_and_probed(lab: Lab, balancer: RunningVpp, address: str) -> None:
    """It is the NAT source, too."""
    balancer.balance(address)
    own = lab.balancer_ipv6 if ":" in address else lab.balancer_ipv4
    lab.client.sh(f"ping -c 1 -W 2 {own}")
    (entry,) = lab.client.sh(f"ip neigh show {own} dev eth0").splitlines()
    hardware = entry.split("lladdr ")[1].split()[0]
    lab.client.sh(f"ip neigh replace {own} lladdr {hardware} dev eth0 nud probe")
    eventually(lambda: "REACHABLE" in lab.client.sh(f"ip neigh show {own} dev eth0"))


@BOTH
def test_vpp_gets_the_answers_to_its_own_pings(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    client = lab.client_ipv6 if ":" in address else lab.client_ipv4
    assert " 0% packet loss" in balancer.ctl(f"ping {client} repeat 2 interval 0.1")

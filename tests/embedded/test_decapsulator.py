"""Whose tunnels a server opens, and for whom."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address, ip_network

import penstock_core
import pytest
from penstock_embedded.decapsulator import Admission, Decapsulator, Refusal
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from tests.support.clients import get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, running_dataplane, vip
from tests.support.lab import lab as build_lab
from tests.support.lab import take_out_of_gre

IPPROTO_GRE = 47
VIP4, VIP6, CLIENT4, CLIENT6 = "203.0.113.10", "2001:db8::10", "198.51.100.7", "2001:db8:5::7"
WEB = Admission(
    vips=frozenset({ip_address(VIP4), ip_address(VIP6)}),
    balancers=(ip_network("192.0.2.0/24"), ip_network("fd00::1")),
    ports=frozenset({(socket.IPPROTO_TCP, 80)}),
)


def inner(packet: Packet) -> bytes:
    """The packet as it comes out of a tunnel."""
    proto = 0x0800 if isinstance(packet, IP) else 0x86DD
    taken = penstock_core.decapsulate(bytes(IP(src="192.0.2.1", dst="10.0.0.1") / GRE(proto=proto) / packet))
    assert taken is not None
    return taken


@pytest.mark.parametrize(
    ("sender", "refusal"),
    [
        ("192.0.2.1", None),
        ("192.0.2.255", None),
        ("192.0.3.0", Refusal.SENDER),
        ("fd00::1", None),
        ("fd00::2", Refusal.SENDER),
        ("::ffff:192.0.2.1", Refusal.SENDER),
    ],
)
def test_tunnels_of_load_balancing_nodes_alone_are_opened(sender: str, refusal: Refusal | None) -> None:
    assert WEB.check_sender(ip_address(sender)) is refusal


@pytest.mark.parametrize(
    ("packet", "refusal"),
    [
        (IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=80), None),
        (IP(src=CLIENT4, dst="203.0.113.11") / TCP(sport=4000, dport=80), Refusal.DESTINATION),
        (IP(src=CLIENT4, dst="10.0.0.1") / TCP(sport=4000, dport=80), Refusal.DESTINATION),
        (IP(src=VIP4, dst=VIP4) / TCP(sport=4000, dport=80), Refusal.SOURCE),
        (IP(src="169.254.1.1", dst=VIP4) / TCP(sport=4000, dport=80), Refusal.SOURCE),
        (IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=22), Refusal.PORT),
        (IP(src=CLIENT4, dst=VIP4) / UDP(sport=4000, dport=80), Refusal.PORT),
        (IPv6(src=CLIENT6, dst=VIP6) / TCP(sport=4000, dport=80), None),
        (IPv6(src=CLIENT6, dst=VIP6) / TCP(sport=4000, dport=22), Refusal.PORT),
        (IPv6(src="fe80::1", dst=VIP6) / TCP(sport=4000, dport=80), Refusal.SOURCE),
        (IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrHopByHop() / TCP(sport=4000, dport=80), None),
        (IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrDestOpt() / TCP(sport=4000, dport=22), Refusal.PORT),
        (
            IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(m=1) / TCP(sport=4000, dport=22) / Raw(b"1234"),
            Refusal.PORT,
        ),
        (IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(offset=5, nh=6) / Raw(b"later"), None),
        (
            IP(src="10.9.9.9", dst=VIP4) / ICMP(type=3, code=4) / IP(src=VIP4, dst=CLIENT4) / TCP(sport=80, dport=4000),
            None,
        ),
        (fragment(IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=80) / Raw(bytes(100)), 64)[1], None),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_packets_of_clients_to_the_vips_alone_are_taken(packet: Packet, refusal: Refusal | None) -> None:
    assert WEB.check_inner(inner(packet)) is refusal


@pytest.mark.parametrize(
    ("sender", "packet", "refusal"),
    [
        ("192.0.2.1", IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=80), None),
        ("192.0.3.0", IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=80), Refusal.SENDER),
        ("192.0.2.1", IP(src=CLIENT4, dst=VIP4) / TCP(sport=4000, dport=80, flags="SFR"), Refusal.PACKET),
        ("192.0.2.1", IP(src=CLIENT4, dst="10.0.0.1") / TCP(sport=4000, dport=80), Refusal.DESTINATION),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_sender_and_content_of_a_tunnel_are_checked(sender: str, packet: Packet, refusal: Refusal | None) -> None:
    tunnelled = bytes(IP(src=sender, dst="10.0.0.1") / GRE(proto=0x0800) / packet)
    taken = Decapsulator("decap", WEB)._take_out(tunnelled, ip_address(sender))
    assert taken == (refusal or bytes(packet))


@pytest.mark.netns
@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_a_server_opens_tunnels_of_the_load_balancer_alone(address: str) -> None:
    six = ":" in address
    with build_lab("pn-decap", 1, start_servers=False) as lab:
        server = lab.servers[0]
        take_out_of_gre(server, [address])
        own, client = (server.ipv6, lab.client_ipv6) if six else (server.ipv4, lab.client_ipv4)
        packet = (IPv6 if six else IP)(src=client, dst=address) / UDP(sport=9, dport=7)
        forged = bytes(GRE(proto=0x86DD if six else 0x0800) / packet)

        def received() -> int:
            (link,) = json.loads(server.namespace.sh("ip -s -j link show decap"))
            return int(link["stats64"]["rx"]["packets"])

        before = received()
        family = socket.AF_INET6 if six else socket.AF_INET
        with lab.client.run(socket.socket, family, socket.SOCK_RAW, IPPROTO_GRE) as sender:
            for _ in range(5):
                sender.sendto(forged, (own, 0))
        with running_dataplane(lab) as running:
            running.apply(vip(lab, address, backends=[{"id": "s1", "address": own, "port": 80}], forwarding="GRE"))
            assert received() == before
            with pytest.raises(ConnectionRefusedError):  # nothing listens there; what counts is that the SYN came
                get(lab, address)
            assert received() > before
            running.withdraw()

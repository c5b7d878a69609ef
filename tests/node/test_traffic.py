"""Packets take the ways that the plan means them to take; checked with real sockets around the node."""

from __future__ import annotations

import errno
import os
import select
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from penstock_node import reconcile
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from tests.node.conftest import VNET_HEADER, Lab, TunUser
from tests.support.netns import Namespace

pytestmark = pytest.mark.netns

Address = IPv4Address | IPv6Address
FAMILIES = pytest.mark.parametrize("version", [4, 6])
NAT_PORT = 20000


def family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def ip(source: Address, destination: Address) -> Packet:
    layer = IP if source.version == 4 else IPv6
    return layer(src=str(source), dst=str(destination))


def address(lab: Lab, name: str, version: int) -> Address:
    value: Address = getattr(lab, f"{name}{version}")
    return value


def udp_socket(namespace: Namespace, local: Address, port: int = 0) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(family(local.version), socket.SOCK_DGRAM)
        made.bind((str(local), port))
        made.settimeout(2)
        return made

    return namespace.run(make)


@FAMILIES
def test_packets_to_a_vip_reach_the_tun_and_answers_the_client(lab: Lab, tun_user: TunUser, version: int) -> None:
    client, vip = address(lab, "client", version), address(lab, "vip", version)
    with udp_socket(lab.client, client) as sender:
        port = sender.getsockname()[1]
        sender.sendto(b"ping", (str(vip), 53))
        packet = tun_user.read_from(client)
        assert packet is not None
        assert (packet.dst, packet[UDP].dport, bytes(packet[UDP].payload)) == (str(vip), 53, b"ping")
        tun_user.write(ip(vip, client) / UDP(sport=53, dport=port) / b"pong")
        answer, source = sender.recvfrom(100)
        assert (answer, source[:2]) == (b"pong", (str(vip), 53))


@FAMILIES
def test_packets_from_the_nodes_own_address_go_out_and_answers_come_to_the_tun(
    lab: Lab, tun_user: TunUser, version: int
) -> None:
    node, server = address(lab, "node", version), address(lab, "server", version)
    with udp_socket(lab.server, server, 8080) as backend:
        tun_user.write(ip(node, server) / UDP(sport=NAT_PORT, dport=8080) / b"request")
        request, source = backend.recvfrom(100)
        assert (request, source[:2]) == (b"request", (str(node), NAT_PORT))
        backend.sendto(b"response", source)
    packet = tun_user.read_from(server)
    assert packet is not None
    assert (packet.dst, packet[UDP].dport, bytes(packet[UDP].payload)) == (str(node), NAT_PORT, b"response")


@FAMILIES
def test_a_backend_on_the_node_itself_is_reached(lab: Lab, tun_user: TunUser, version: int) -> None:
    node = address(lab, "node", version)
    with udp_socket(lab.node, node, 8080) as backend:
        tun_user.write(ip(node, node) / UDP(sport=NAT_PORT, dport=8080) / b"request")
        request, source = backend.recvfrom(100)
        assert (request, source[:2]) == (b"request", (str(node), NAT_PORT))
        backend.sendto(b"response", source)
    packet = tun_user.read_from(node)
    assert packet is not None
    assert bytes(packet[UDP].payload) == b"response"


@FAMILIES
def test_a_client_on_the_node_itself_is_served(lab: Lab, tun_user: TunUser, version: int) -> None:
    node, vip = address(lab, "node", version), address(lab, "vip", version)
    with udp_socket(lab.node, node) as sender:
        sender.sendto(b"ping", (str(vip), 53))
        assert tun_user.read_from(node) is not None
        tun_user.write(ip(vip, node) / UDP(sport=53, dport=sender.getsockname()[1]) / b"pong")
        assert sender.recv(100) == b"pong"


@FAMILIES
def test_the_nodes_own_connections_keep_working(lab: Lab, tun_user: TunUser, version: int) -> None:
    node, server = address(lab, "node", version), address(lab, "server", version)

    def listen(namespace: Namespace, local: Address) -> socket.socket:
        return namespace.run(socket.create_server, (str(local), 8080), family=family(version))

    for target, local, host in ((lab.server, server, lab.node), (lab.node, node, lab.server)):
        with listen(target, local) as listener, host.run(socket.create_connection, (str(local), 8080), 2) as outgoing:
            incoming, _ = listener.accept()
            with incoming:
                outgoing.sendall(b"hello")
                assert incoming.recv(10) == b"hello"
    assert lab.server.sh(f"ping -c1 -W2 {node}")


@FAMILIES
def test_the_reserved_ports_look_silent_from_outside(lab: Lab, tun_user: TunUser, version: int) -> None:
    """No RST and no port unreachable: the kernel never sees these packets."""
    node = address(lab, "node", version)
    with pytest.raises(TimeoutError):
        lab.server.run(socket.create_connection, (str(node), NAT_PORT), 0.3)
    first_outside = lab.ports[1] + 1
    with pytest.raises(ConnectionRefusedError):
        lab.server.run(socket.create_connection, (str(node), first_outside), 2)


UNATTENDED = {
    "nobody reads": "true",
    "device down": "ip link set penstock down",
    "device gone": "ip link delete penstock",
    "link-down routes ignored": (
        "sysctl -w net.ipv4.conf.all.ignore_routes_with_linkdown=1 "
        "net.ipv4.conf.penstock.ignore_routes_with_linkdown=1 net.ipv6.conf.penstock.ignore_routes_with_linkdown=1"
    ),
}


@FAMILIES
@pytest.mark.parametrize("accident", UNATTENDED)
def test_packets_vanish_silently_while_no_process_reads(lab: Lab, version: int, accident: str) -> None:
    lab.node.run(reconcile, lab.desired())
    lab.node.shell(UNATTENDED[accident])
    for host, target, port in (
        (lab.client, address(lab, "vip", version), 80),
        (lab.server, address(lab, "node", version), NAT_PORT),
    ):
        with pytest.raises(TimeoutError):  # an RST or ICMP error would be another error, at once
            host.run(socket.create_connection, (str(target), port), 0.3)


def test_a_new_process_finds_the_device_as_it_was(lab: Lab, tun_user: TunUser) -> None:
    """As after kill -9: the queue is closed, packets vanish, the next process attaches and gets them."""
    tun_user.close()
    with pytest.raises(TimeoutError):
        lab.client.run(socket.create_connection, (str(lab.vip4), 80), 0.2)
    tun_user.open()
    with pytest.raises(TimeoutError):
        lab.client.run(socket.create_connection, (str(lab.vip4), 80), 0.2)
    assert tun_user.read_from(lab.client4) is not None


@FAMILIES
def test_icmp_errors_about_our_flows_come_to_the_tun(lab: Lab, tun_user: TunUser, version: int) -> None:
    node, server = address(lab, "node", version), address(lab, "server", version)
    tun_user.write(ip(node, server) / UDP(sport=NAT_PORT, dport=9) / b"nobody there")
    error = tun_user.read_from(server)
    assert error is not None
    assert (ICMP if version == 4 else ICMPv6DestUnreach) in error
    assert bytes(error).endswith(b"nobody there") or version == 4


@FAMILIES
def test_icmp_errors_that_the_node_itself_makes_come_to_the_tun(lab: Lab, tun_user: TunUser, version: int) -> None:
    """Too big for the way out: the node's error goes to the node's own address, and must not end there."""
    node, server = address(lab, "node", version), address(lab, "server", version)
    packet = ip(node, server) / UDP(sport=NAT_PORT, dport=9) / Raw(bytes(3000))
    if version == 4:
        packet.flags = "DF"
    tun_user.write(packet)
    error = tun_user.read(lambda p: ICMP in p if version == 4 else ICMPv6PacketTooBig in p)
    assert error is not None
    assert error.dst == str(node)
    mtu = error[ICMP].nexthopmtu if version == 4 else error[ICMPv6PacketTooBig].mtu
    assert mtu == 1500


@FAMILIES
def test_icmp_errors_about_other_flows_stay_with_the_node(lab: Lab, tun_user: TunUser, version: int) -> None:
    node, server = address(lab, "node", version), address(lab, "server", version)

    def send_and_wait() -> int:
        with socket.socket(family(version), socket.SOCK_DGRAM) as sender:
            sender.bind((str(node), lab.ports[1] + 1))
            sender.connect((str(server), 9))
            sender.settimeout(2)
            sender.send(b"x")
            with pytest.raises(ConnectionRefusedError) as caught:
                sender.recv(10)
            return caught.value.errno or 0

    assert lab.node.run(send_and_wait) == errno.ECONNREFUSED


@FAMILIES
def test_no_connection_is_tracked_and_no_source_rewritten(lab: Lab, tun_user: TunUser, version: int) -> None:
    """Against rules as network plugins have them: track everything, masquerade what leaves, drop what is invalid."""
    lab.node.shell(
        """nft -f - <<END
        table inet plugin {
          chain forward { type filter hook forward priority 0; ct state invalid drop; }
          chain postrouting { type nat hook postrouting priority 100; masquerade random; }
        }
END"""
    )
    client, vip = address(lab, "client", version), address(lab, "vip", version)
    node, server = address(lab, "node", version), address(lab, "server", version)
    with udp_socket(lab.client, client) as sender, udp_socket(lab.server, server, 8080) as backend:
        sender.sendto(b"ping", (str(vip), 53))
        assert tun_user.read_from(client) is not None
        tun_user.write(ip(node, server) / UDP(sport=NAT_PORT, dport=8080) / b"request")
        _, source = backend.recvfrom(100)
        assert source[:2] == (str(node), NAT_PORT)
        backend.sendto(b"response", source)
        assert tun_user.read_from(server) is not None
        tun_user.write(ip(vip, client) / UDP(sport=53, dport=sender.getsockname()[1]) / b"pong")
        answer, source = sender.recvfrom(100)
        assert (answer, source[:2]) == (b"pong", (str(vip), 53))
    assert tracked(lab.node) == 0
    lab.client.sh(f"ping -c1 -W2 {address(lab, 'server', version)}")
    assert tracked(lab.node) == 1, "the rules do not track at all"


def tracked(namespace: Namespace) -> int:
    return int(namespace.sh("sysctl -n net.netfilter.nf_conntrack_count"))


@FAMILIES
@pytest.mark.parametrize("mode", [1, 2])
def test_reverse_path_filters_of_all_interfaces_do_no_harm(
    lab: Lab, tun_user: TunUser, version: int, mode: int
) -> None:
    lab.node.sh(f"sysctl -w net.ipv4.conf.all.rp_filter={mode}")
    test_packets_to_a_vip_reach_the_tun_and_answers_the_client(lab, tun_user, version)
    test_packets_from_the_nodes_own_address_go_out_and_answers_come_to_the_tun(lab, tun_user, version)


@FAMILIES
def test_fragments_of_an_answer_reach_the_tun(lab: Lab, tun_user: TunUser, version: int) -> None:
    """Only the first fragment of a datagram has ports to be steered by."""
    node, server = address(lab, "node", version), address(lab, "server", version)
    with udp_socket(lab.server, server, 8080) as backend:
        backend.sendto(bytes(3000), (str(node), NAT_PORT))
    fragments = [tun_user.read_from(server) for _ in range(3)]
    assert all(fragment is not None and len(fragment) <= 1500 for fragment in fragments)


def test_super_packets_stay_whole(lab: Lab, tun_user: TunUser) -> None:
    """A bulk sender's segments arrive in one read, with the offload header that says how to cut them."""
    with lab.client.run(socket.socket, socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.setblocking(False)
        assert sender.connect_ex((str(lab.vip4), 80)) == errno.EINPROGRESS
        syn = tun_user.read_from(lab.client4)
        assert syn is not None
        reply = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=1, ack=syn[TCP].seq + 1, window=65535)
        reply.options = [("MSS", 1460), ("SAckOK", b"")]
        tun_user.write(ip(lab.vip4, lab.client4) / reply)
        select.select([], [sender], [], 2)
        sender.send(bytes(14600))
        largest = 0
        while select.select(tun_user.queues, [], [], 0.3)[0]:
            data = os.read(tun_user.queues[0], 65546)
            largest = max(largest, len(data))
        assert largest > 1500 + len(VNET_HEADER)  # how much more is up to TCP's pacing
    assert ip_address(syn.dst) == lab.vip4

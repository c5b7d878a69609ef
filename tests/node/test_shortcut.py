"""Plain packets come to the TUN past the node's filters; all others, and all while it is missing, as ever."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest
from penstock_node import reconcile
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6

from tests.node.conftest import Lab, TunUser
from tests.node.test_traffic import FAMILIES, NAT_PORT, address, family, ip, udp_socket

pytestmark = pytest.mark.netns

FILTER = """nft -f - <<END
    table inet administrator {
      chain prerouting { type filter hook prerouting priority -400; meta l4proto { tcp, udp } drop; }
    }
END"""


def send(lab: Lab, version: int, size: int = 4) -> None:
    """One datagram of the client to the VIP."""
    with udp_socket(lab.client, address(lab, "client", version)) as sender:
        sender.sendto(bytes(size), (str(address(lab, "vip", version)), 53))


def answer(lab: Lab, version: int) -> None:
    """One datagram of the server to a NAT port."""
    with udp_socket(lab.server, address(lab, "server", version)) as sender:
        sender.sendto(b"answer", (str(address(lab, "node", version)), NAT_PORT))


def arrive(lab: Lab, tun_user: TunUser, version: int) -> tuple[bool, bool]:
    """Whether packets of clients, and of backends, come to the TUN."""
    found = []
    for transmit, source in ((send, "client"), (answer, "server")):
        transmit(lab, version)
        found.append(tun_user.read_from(address(lab, source, version), seconds=0.3) is not None)
    return found[0], found[1]


@FAMILIES
def test_plain_packets_come_past_the_nodes_filters(lab: Lab, tun_user: TunUser, version: int) -> None:
    lab.node.shell(FILTER)
    assert arrive(lab, tun_user, version) == (True, True)
    lab.node.run(reconcile, lab.desired(shortcut=False))
    assert arrive(lab, tun_user, version) == (False, False)


@FAMILIES
def test_without_it_packets_come_by_rules_and_routes(lab: Lab, tun_user: TunUser, version: int) -> None:
    lab.node.run(reconcile, lab.desired(shortcut=False))
    assert arrive(lab, tun_user, version) == (True, True)
    lab.node.run(reconcile, lab.desired())
    lab.node.sh("nft flush ruleset")
    assert arrive(lab, tun_user, version) == (True, True)


@FAMILIES
def test_a_device_that_is_made_anew_is_found(lab: Lab, tun_user: TunUser, version: int) -> None:
    tun_user.close()
    lab.node.shell(FILTER + "\nip link delete penstock")
    lab.node.run(reconcile, lab.desired())
    tun_user.open()
    assert arrive(lab, tun_user, version) == (True, True)


@FAMILIES
def test_other_ports_of_the_node_are_not_taken(lab: Lab, tun_user: TunUser, version: int) -> None:
    node, server = address(lab, "node", version), address(lab, "server", version)
    with udp_socket(lab.node, node, lab.ports[1] + 1) as own, udp_socket(lab.server, server) as sender:
        sender.sendto(b"for the node", (str(node), lab.ports[1] + 1))
        assert own.recv(100) == b"for the node"


@FAMILIES
def test_fragments_for_a_vip_come(lab: Lab, tun_user: TunUser, version: int) -> None:
    client = address(lab, "client", version)
    send(lab, version, size=3000)
    packets = [tun_user.read_from(client) for _ in range(3)]
    assert all(packet is not None for packet in packets)


@FAMILIES
def test_a_packet_at_the_end_of_its_hops_is_answered(lab: Lab, tun_user: TunUser, version: int) -> None:
    """As routers do it: traceroute shows the node."""
    levels = {4: (socket.IPPROTO_IP, socket.IP_TTL, 11), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 25)}
    level, hops, receive_errors = levels[version]

    def probe() -> int:
        with socket.socket(family(version), socket.SOCK_DGRAM) as sender:
            sender.settimeout(2)
            sender.setsockopt(level, hops, 1)
            sender.setsockopt(level, receive_errors, 1)
            sender.connect((str(address(lab, "vip", version)), 53))
            sender.send(b"x")
            with pytest.raises(OSError) as caught:
                sender.recv(10)
            return caught.value.errno or 0

    assert lab.client.run(probe) == errno.EHOSTUNREACH


@FAMILIES
def test_a_hop_is_counted(lab: Lab, tun_user: TunUser, version: int) -> None:
    client = address(lab, "client", version)
    send(lab, version)
    packet = tun_user.read_from(client)
    assert packet is not None
    assert (packet[IP].ttl if version == 4 else packet[IPv6].hlim) == 63


def test_frames_for_other_hosts_are_not_taken(lab: Lab, tun_user: TunUser) -> None:
    """An interface that somebody listens on sees these, and must not answer for their receivers."""
    lab.node.sh("ip link set client0 promisc on")
    packet = bytes(ip(lab.client4, lab.vip4) / UDP(sport=1234, dport=53) / b"for another")

    def transmit() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0x0800))
            sender.send(bytes.fromhex("02ffffffffff 020000000001 0800") + packet)

    lab.client.run(transmit)
    assert tun_user.read_from(lab.client4, seconds=0.3) is None


def test_echo_requests_to_a_vip_come(lab: Lab, tun_user: TunUser) -> None:
    lab.client.popen(["ping", "-c1", "-W1", str(lab.vip4)])
    packet = tun_user.read_from(lab.client4)
    assert packet is not None
    assert ICMP in packet
    assert ip_address(packet.dst) == lab.vip4

"""Packets larger than a buffer of VPP's: what the core reads must be in the first one, or they are dropped as such."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.clients import udp_socket
from tests.support.dataplane import VIP_IPV6
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

OUT_OF_REACH = "needed bytes past the first buffer"


@pytest.fixture
def wide(lab: Lab, balancer: RunningVpp) -> Iterator[RunningVpp]:
    """A VPP with a UDP VIP, on wires that take packets of several buffers of 2,048 bytes."""
    ends = [(lab.client, "eth0"), *((server.namespace, "eth0") for server in lab.servers)]
    ends += [(lab.balancer, device) for device in lab.interfaces]
    for namespace, device in ends:
        namespace.sh(f"ip link set {device} mtu 9000")
    balancer.balance(VIP_IPV6, 53, "udp")
    for server in lab.servers:
        eventually(partial(balancer.reaches, server.ipv6))  # VPP drops a packet while it asks for a neighbour
    balancer.ctl("clear errors")
    yield balancer
    for namespace, device in ends:
        namespace.sh(f"ip link set {device} mtu 1500")


def destination_options(size: int) -> bytes:
    """A header of destination options that is so long, of kinds that nobody knows and everybody skips."""
    options, left = b"", size - 2
    while left:
        data = min(left, 257) - 2
        options += struct.pack("BB", 0x1E, data) + bytes(data)
        left -= 2 + data
    return struct.pack("BB", 0, size // 8 - 1) + options


def out_of_reach(balancer: RunningVpp) -> int:
    found = re.search(rf"(\d+) .*{OUT_OF_REACH}", balancer.ctl("show errors"))
    return 0 if found is None else int(found[1])


def test_headers_of_most_of_a_buffer_are_read(lab: Lab, wide: RunningVpp) -> None:
    with udp_socket(lab, VIP_IPV6, 53) as datagrams:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, destination_options(1600))
        datagrams.send(b"x" * 5000)
        assert datagrams.recv(9000).endswith(b" " + b"x" * 5000)


def test_a_transport_header_beyond_the_first_buffer_is_not_looked_for_elsewhere(lab: Lab, wide: RunningVpp) -> None:
    with udp_socket(lab, VIP_IPV6, 53) as datagrams:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, destination_options(2040))
        datagrams.send(b"x" * 5000)
        eventually(lambda: out_of_reach(wide) == 1)
    assert "bad_header" not in wide.ctl("show lb rl stats")


def test_an_icmp_packet_behind_other_headers_is_read_whole_or_not_at_all(lab: Lab, wide: RunningVpp) -> None:
    with lab.client.run(socket.socket, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as echo:
        echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, destination_options(1600))
        echo.sendto(struct.pack(">BBHHH", 128, 0, 0, 1, 1) + b"x" * 1400, (VIP_IPV6, 0))
        eventually(lambda: out_of_reach(wide) == 1)
    assert "bad_checksum" not in wide.ctl("show lb rl stats")

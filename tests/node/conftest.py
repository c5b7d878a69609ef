"""A small network for the node's tests: client - node - server, each a network namespace."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from penstock_node import DesiredNode, NatSource, Tun, open_tun, reconcile
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from tests.support.netns import Namespace, connect

VNET_HEADER = bytes(10)


class Lab:
    """Addresses end in 1 at the node; the VIPs are on no interface."""

    client4, client6 = IPv4Address("10.1.0.2"), IPv6Address("fd01::2")
    node4, node6 = IPv4Address("10.2.0.1"), IPv6Address("fd02::1")
    server4, server6 = IPv4Address("10.2.0.2"), IPv6Address("fd02::2")
    vip4, vip6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")
    ports = (16384, 28671)

    def __init__(self, client: Namespace, node: Namespace, server: Namespace) -> None:
        self.client = client
        self.node = node
        self.server = server

    def desired(self, **changes: Any) -> DesiredNode:
        """One VIP and one NAT source of each family."""
        values: dict[str, Any] = {
            "vips": frozenset({self.vip4, self.vip6}),
            "nat_sources": frozenset(NatSource(address, *self.ports) for address in (self.node4, self.node6)),
            "interfaces": ("client0", "server0"),
        }
        return DesiredNode(**(values | changes))

    def snapshot(self) -> list[str]:
        """Everything that we might have changed, as the usual tools print it. Link-local routes come late."""
        return self.node.shell(
            """
            ip rule
            ip -6 rule
            ip -4 route show table all
            ip -6 route show table all | grep -v fe80 | sort
            ip -d link
            nft list ruleset
            sysctl -a 2>/dev/null | grep -E 'forwarding|rp_filter|accept_local'
            """
        ).splitlines()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Namespace() as client, Namespace() as node, Namespace() as server:
        for left, name, number in ((client, "client0", 1), (server, "server0", 2)):
            connect(left, "eth0", node, name)
            for host, device, last in ((left, "eth0", 2), (node, name, 1)):
                host.shell(
                    f"""ip -batch - <<END
                    addr add 10.{number}.0.{last}/24 dev {device}
                    addr add fd0{number}::{last}/64 dev {device} nodad
END"""
                )
            left.sh(f"ip route add default via 10.{number}.0.1\nip -6 route add default via fd0{number}::1")
        yield Lab(client, node, server)


class TunUser:
    """What a data plane would be: reads and writes packets on the TUN of the node."""

    def __init__(self, node: Namespace, tun: Tun) -> None:
        self._node = node
        self._tun = tun
        self.queues: tuple[int, ...] = ()
        self.open()

    def open(self) -> None:
        """Attach, and wait until the kernel sends packets our way, which it does a moment later."""
        self.queues = self._node.run(open_tun, self._tun)
        end = time.monotonic() + 5
        while "state UP" not in self._node.sh(f"ip link show {self._tun.name}"):
            assert time.monotonic() < end, "the TUN did not come up"
            time.sleep(0.01)

    def close(self) -> None:
        for queue in self.queues:
            os.close(queue)
        self.queues = ()

    def write(self, packet: Packet) -> None:
        os.write(self.queues[0], VNET_HEADER + bytes(packet))

    def read(self, wanted: Callable[[Packet], bool], seconds: float = 2.0) -> Packet | None:
        """The next packet that is wanted, or None."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select(self.queues, [], [], left)
            for queue in readable:
                data = os.read(queue, 65546)[len(VNET_HEADER) :]
                packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
                if wanted(packet):
                    return packet
        return None

    def read_from(self, address: object, seconds: float = 2.0) -> Packet | None:
        """The next packet with this source."""
        return self.read(lambda packet: ip_address(packet.src) == address, seconds)


@pytest.fixture
def tun_user(lab: Lab) -> Iterator[TunUser]:
    """The node is set up, and somebody reads the TUN."""
    desired = lab.desired()
    lab.node.run(reconcile, desired)
    assert isinstance(desired.tun, Tun)
    user = TunUser(lab.node, desired.tun)
    yield user
    user.close()

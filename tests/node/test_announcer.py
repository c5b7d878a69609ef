"""Hosts on the link learn where an address is; the oracle is the kernel's own neighbour table."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from penstock_node import AnnounceError, Announcer, neighbours
from penstock_node.ports import look_up
from scapy.layers.l2 import ARP, Ether

from tests.support.netns import Namespace, connect

pytestmark = pytest.mark.netns

Address = IPv4Address | IPv6Address
VIP4, VIP6 = IPv4Address("10.1.0.100"), IPv6Address("fd01::100")
BOTH = pytest.mark.parametrize("vip", [VIP4, VIP6], ids=["arp", "ndp"])
QUICK = (0.0, 0.1, 0.3)
LONG = tuple(n / 4 for n in range(80))  # both are still at it when the slower one starts

ANNOUNCE = """
import asyncio, sys
from ipaddress import ip_address
from penstock_node import Announcer

async def main():
    async with Announcer(announce_at=eval(sys.argv[1]), on_lost=lambda a: print("lost", a, flush=True)) as announcer:
        announcer.update(["eth0"], [ip_address(text) for text in sys.argv[2:]])
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


class Segment:
    """Three hosts on one Ethernet segment: a client and two nodes."""

    def __init__(self, client: Namespace, nodes: list[Namespace]) -> None:
        self.client = client
        self.nodes = nodes

    def announce(self, node: Namespace, *addresses: Address, at: tuple[float, ...] = QUICK) -> subprocess.Popen[str]:
        """Start a process that announces."""
        command = [sys.executable, "-c", ANNOUNCE, repr(at), *map(str, addresses)]
        process = node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def where(self, vip: Address) -> str | None:
        """MAC address that the client has in its table for the VIP."""
        for line in self.client.sh(f"ip neigh show {vip} dev eth0").splitlines():
            words = line.split()
            return words[words.index("lladdr") + 1] if "lladdr" in words else None
        return None

    def ask(self, vip: Address) -> str | None:
        """Have the client resolve the VIP from scratch."""
        self.client.run(subprocess.run, ["ip", "neigh", "flush", "to", str(vip)], capture_output=True, check=False)
        family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
        with self.client.run(socket.socket, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (str(vip), 9))
        eventually(lambda: self.where(vip) is not None, seconds=0.5)
        return self.where(vip)


def mac_of(node: Namespace) -> str:
    return node.run(look_up, "eth0")[1].hex(":")


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Namespace() as switch, Namespace() as client, Namespace() as first, Namespace() as second:
        switch.sh("ip link add br0 type bridge mcast_snooping 1\nip link set br0 up")
        for number, host in enumerate((client, first, second), start=1):
            connect(switch, f"port{number}", host, "eth0")
            switch.sh(f"ip link set port{number} master br0")
            host.sh(f"ip addr add 10.1.0.{number}/24 dev eth0\nip addr add fd01::{number}/64 dev eth0 nodad")
        yield Segment(client, [first, second])


@BOTH
def test_questions_are_answered(segment: Segment, vip: Address) -> None:
    assert segment.ask(vip) is None
    segment.announce(segment.nodes[0], VIP4, VIP6)
    assert segment.ask(vip) == mac_of(segment.nodes[0])
    other = vip + 1
    assert segment.ask(other) is None


@BOTH
def test_a_takeover_moves_the_address_at_once(segment: Segment, vip: Address) -> None:
    first = segment.announce(segment.nodes[0], VIP4, VIP6)
    assert segment.ask(vip) == mac_of(segment.nodes[0])
    time.sleep(max(QUICK) + 0.1)
    segment.announce(segment.nodes[1], VIP4, VIP6)
    assert eventually(lambda: segment.where(vip) == mac_of(segment.nodes[1]))
    assert first.stdout is not None
    assert {first.stdout.readline(), first.stdout.readline()} == {f"lost {VIP4}\n", f"lost {VIP6}\n"}
    for _ in range(3):
        assert segment.ask(vip) == mac_of(segment.nodes[1])


@BOTH
def test_of_two_that_start_together_one_remains(segment: Segment, vip: Address) -> None:
    processes = [segment.announce(node, vip, at=LONG) for node in segment.nodes]
    winner = max(segment.nodes, key=mac_of)
    loser = processes[segment.nodes.index(min(segment.nodes, key=mac_of))]
    assert loser.stdout is not None
    assert loser.stdout.readline() == f"lost {vip}\n"
    assert segment.ask(vip) == mac_of(winner)


@BOTH
def test_ending_leaves_no_answer(segment: Segment, vip: Address) -> None:
    process = segment.announce(segment.nodes[0], VIP4, VIP6)
    assert segment.ask(vip) == mac_of(segment.nodes[0])
    process.communicate("\n", timeout=5)
    assert process.returncode == 0
    assert segment.ask(vip) is None


@BOTH
def test_another_host_that_wants_the_address_is_told(segment: Segment, vip: Address) -> None:
    """Duplicate address detection, which the kernel does for IPv6 only."""
    segment.announce(segment.nodes[0], VIP4, VIP6)
    host = segment.nodes[1]
    if vip.version == 4:
        with host.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", neighbours.ETHERTYPE_ARP))
            raw.settimeout(1)
            source = mac_of(host)
            raw.send(
                bytes(Ether(src=source, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=source, psrc="0.0.0.0", pdst=str(vip)))
            )
            while (answer := Ether(raw.recv(100))[ARP]).op != 2 or answer.hwdst != source:
                pass
            assert answer.psrc == str(vip)
    else:
        host.sh(f"ip addr add {vip}/128 dev eth0")
        assert eventually(lambda: "dadfailed" in host.sh("ip -6 addr show dev eth0"))


def test_update_is_idempotent_and_lost_stays_lost(segment: Segment) -> None:
    client, node = segment.client, segment.nodes[0]
    heard = client.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(neighbours.ETHERTYPE_ARP))
    heard.bind(("eth0", neighbours.ETHERTYPE_ARP))
    heard.setblocking(False)

    def announced() -> int:
        count = 0
        while True:
            try:
                count += isinstance(neighbours.read(heard.recv(200)), neighbours.Claim)
            except BlockingIOError:
                return count

    async def main() -> None:
        lost: list[Address] = []
        async with Announcer(on_lost=lost.append, announce_at=(0.0, 0.05)) as announcer:
            announcer.update(["eth0"], [VIP4])
            announcer.update(["eth0"], [VIP4])
            await asyncio.sleep(0.2)
            assert announced() == 4  # two forms, twice

            for _ in range(2):
                for frame in neighbours.announcements(VIP4, b"\x02\0\0\0\0\x99"):
                    heard.send(frame)
            await asyncio.sleep(0.1)
            assert lost == [VIP4]
            announcer.update(["eth0"], [VIP4])
            await asyncio.sleep(0.1)
            assert announcer.lost == {VIP4}
            assert announced() == 0

            announcer.reclaim([VIP4])
            await asyncio.sleep(0.2)
            assert announcer.lost == frozenset()
            assert announced() == 4

            announcer.update(["eth0"], [])
            announcer.update(["eth0"], [VIP4])
            await asyncio.sleep(0.2)
            assert announced() == 4

    node.run(lambda: asyncio.run(main()))
    heard.close()


def test_after_a_break_of_the_link_others_are_asked_first(segment: Segment) -> None:
    first, second = segment.nodes

    async def main() -> None:
        async with Announcer(announce_at=(0.0,)) as announcer:
            announcer.update(["eth0"], [VIP4, VIP6])
            await asyncio.sleep(0.1)
            first.sh("ip link set eth0 down")
            segment.announce(second, VIP4)
            await asyncio.sleep(1.2)
            first.sh("ip link set eth0 up")
            for _ in range(60):
                await asyncio.sleep(0.1)
                if announcer.lost:
                    break
            assert announcer.lost == {VIP4}

    first.run(lambda: asyncio.run(main()))
    assert segment.ask(VIP4) == mac_of(second)


def test_an_interface_that_comes_later_is_served(segment: Segment) -> None:
    node = segment.nodes[0]
    node.sh("ip link set eth0 down\nip link set eth0 name eth9")

    async def main() -> None:
        async with Announcer(announce_at=(0.0,)) as announcer:
            with pytest.raises(AnnounceError, match="interface eth0: no interface with this name"):
                announcer.update(["eth0"], [VIP4])
            node.sh("ip link set eth9 name eth0\nip link set eth0 up")
            for _ in range(40):
                await asyncio.sleep(0.1)
                if await asyncio.to_thread(segment.ask, VIP4):
                    return
            pytest.fail("never answered")

    node.run(lambda: asyncio.run(main()))


def test_interfaces_of_the_default_routes_are_the_default(segment: Segment) -> None:
    node = segment.nodes[0]

    async def main() -> None:
        async with Announcer(announce_at=(0.0,)) as announcer:
            announcer.update([], [])
            with pytest.raises(AnnounceError, match="no default route; name the interfaces"):
                announcer.update([], [VIP4])
            node.sh("ip route add default via 10.1.0.1")
            announcer.update([], [VIP4])
            assert await asyncio.to_thread(segment.ask, VIP4) == mac_of(node)

    node.run(lambda: asyncio.run(main()))


def test_an_interface_without_arp_is_refused(segment: Segment) -> None:
    async def main() -> None:
        async with Announcer() as announcer:
            with pytest.raises(AnnounceError, match="not Ethernet"):
                announcer.update(["lo"], [VIP4])

    segment.nodes[0].run(lambda: asyncio.run(main()))


@pytest.mark.parametrize("optmem", [20480, 131072])  # the default of kernels before 6.8, and since
def test_thousands_of_addresses_are_answered(segment: Segment, optmem: int) -> None:
    """More than one filter or one socket's group memberships hold."""
    segment.nodes[0].sh(f"sysctl -qw net.core.optmem_max={optmem}")
    many = [IPv4Address("10.1.64.0") + n for n in range(2048)] + [IPv6Address("fd01::1:0") + n for n in range(2048)]
    segment.client.sh("ip addr add 10.1.0.1/16 dev eth0")
    segment.announce(segment.nodes[0], *many, at=())
    for vip in (many[0], many[2047], many[2048], many[-1]):
        assert segment.ask(vip) == mac_of(segment.nodes[0])


def test_addresses_may_come_where_option_memory_is_short(segment: Segment) -> None:
    """The filter in force counts as well as the next one."""
    node = segment.nodes[0]
    node.sh("sysctl -qw net.core.optmem_max=20480")
    many = [IPv4Address("10.1.64.0") + n for n in range(400)]
    segment.client.sh("ip addr add 10.1.0.1/16 dev eth0")

    async def main() -> None:
        async with Announcer(announce_at=()) as announcer:
            for count in (150, 250, 400):  # of which the last is too long by itself
                announcer.update(["eth0"], many[:count])
                for vip in (many[0], many[count - 1]):
                    assert await asyncio.to_thread(segment.ask, vip) == mac_of(node)

    node.run(lambda: asyncio.run(main()))

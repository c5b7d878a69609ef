"""The load balancer beside VPP's own features: routing tables, limits of interfaces, and whoever talks to VPP."""

from __future__ import annotations

import errno
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support import vpp as support
from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.lab import Lab, eventually
from tests.support.lab import lab as build_lab
from tests.support.vpp import PORTS, RunningVpp, running_vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
CLIENTS, SERVERS = 11, 12  # routing tables


def family_of(address: str) -> socket.AddressFamily:
    """The family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.fixture
def divided(lab_of_its_own: Lab) -> Iterator[RunningVpp]:
    """A VPP whose client and servers are in routing tables of their own."""
    lab = lab_of_its_own
    tables = {device: CLIENTS if device == "c0" else SERVERS for device in lab.interfaces}
    settings = f"flows 4096 client-table {CLIENTS} server-table {SERVERS}"
    with running_vpp(lab, settings=settings, tables=tables) as running:
        yield running


@BOTH
def test_clients_and_servers_in_different_routing_tables(divided: RunningVpp, address: str) -> None:
    divided.balance(address)
    assert {get(divided.lab, address) for _ in range(24)} == {b"s1", b"s2"}
    prefix, show = (f"{address}/128", "show ip6 fib") if ":" in address else (f"{address}/32", "show ip fib")
    assert "lb-rl: VIP" in divided.ctl(f"{show} table {CLIENTS} {prefix}")
    for elsewhere in (0, SERVERS):
        assert "lb-rl: VIP" not in divided.ctl(f"{show} table {elsewhere} {prefix}")
    with HttpConnection(divided.lab, address) as kept:
        name = kept.get()
        divided.kill()
        divided.restart()
        assert kept.get() == name


OTHERS = 13  # the routing table of somebody else, with addresses of their own choice


@pytest.fixture
def crowded() -> Iterator[RunningVpp]:
    """A VPP with hosts of somebody else behind it, one of which has the NAT sources' addresses."""
    if reason := support.missing():
        pytest.skip(reason)
    with build_lab("pn-vpo", 4) as lab:
        support.bare(lab)
        with running_vpp(lab, tables=dict.fromkeys(("s3", "s4"), OTHERS)) as running:
            host = lab.servers[2]
            for address, via in (("10.77.9.9/32", host.ipv4), ("fd77:9::9/128", host.ipv6)):
                host.namespace.sh(f"ip address add {address} dev lo")
                running.quiet(f"ip route add {address} table {OTHERS} via {via} host-{host.name}")
            yield running


@BOTH
def test_nat_sources_of_ours_are_ordinary_addresses_in_another_routing_table(crowded: RunningVpp, address: str) -> None:
    lab = crowded.lab
    source, port = ("fd77:9::9" if ":" in address else "10.77.9.9"), int(PORTS.partition("-")[0])
    holder, other = lab.servers[2], lab.servers[3]
    crowded.balance(address, servers=lab.servers[:2])
    crowded.quiet(f"lb rl sources {source} ports {PORTS}")
    # Both at once: our flows, and theirs by the same address and port.
    assert {get(lab, address) for _ in range(16)} == {b"s1", b"s2"}
    with holder.namespace.run(socket.create_server, (source, port), family=family_of(address)) as ear:
        ear.settimeout(5)
        with other.namespace.run(socket.create_connection, (source, port), 5) as caller:
            accepted, peer = ear.accept()
            with accepted:
                assert peer[0] == (other.ipv6 if ":" in address else other.ipv4)
                caller.sendall(b"theirs")
                assert accepted.recv(16) == b"theirs"
    assert "no_flow_return" not in crowded.ctl("show lb rl stats")
    assert {get(lab, address) for _ in range(16)} == {b"s1", b"s2"}


def test_without_a_section_in_startup_conf_nothing_is_taken(lab_of_its_own: Lab) -> None:
    with running_vpp(lab_of_its_own, settings=None) as running:
        assert "not enabled" in running.ctl("show lb rl vips")
        running.quiet(f"lb rl enable directory {running.shm} flows 4096 vips 64 slots 1024")


@BOTH
def test_uploads_fit_a_narrow_way_to_the_servers(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    # VPP answers from its interface's address: to that very address it could not.
    balancer.quiet(f"lb rl sources 10.77.9.9 ports {PORTS} fd77:9::9 ports {PORTS}")
    balancer.ctl("clear errors")
    size = 1_000_000
    for server in lab.servers:
        balancer.ctl(f"set interface mtu packet 1300 host-{server.name}")
    try:
        with HttpConnection(lab, address) as connection:
            assert connection.post(b"x" * size) == str(size).encode()
            # The client has learned it: nothing is cut on the way.
            assert "mtu 1300" in lab.client.sh(f"ip route get {address}")
        assert not re.search(r"-frag", balancer.ctl("show errors"))
    finally:
        for server in lab.servers:
            balancer.ctl(f"set interface mtu packet 9000 host-{server.name}")
        lab.client.sh("ip route flush cache\nip -6 route flush cache")


def test_an_interface_made_later_takes_part(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get().decode()
        balancer.ctl(f"delete host-interface name {name}")
        balancer.plumb(name)
        assert kept.get().decode() == name


WORDS = (
    *(
        "lb",
        "rl",
        "vip",
        "as",
        "sources",
        "agent",
        "enable",
        "disable",
        "show",
        "clear",
        "stats",
        "flows",
        "memory",
        "max",
    ),
    *("port", "server", "weight", "del", "draining", "failed", "scheduler", "maglev", "features", "full", "forwarding"),
    *("gre", "l3dsr", "dscp", "mtu", "id", "table-size", "ports", "drain", "follow", "ignore", "directory", "udp"),
    *(
        "203.0.113.10",
        "2001:db8::10",
        "10.77.1.2",
        "fd77:1::2",
        "0",
        "80",
        "65536",
        "-1",
        "16384-28671",
        "1e999",
        "nan",
    ),
    *("%s%n%U", "{", "}", "'", '"', "/" + "x" * 300, "9" * 40, "f" * 17, "\\", ",", ":", "::", "0.0.0.0", "\x07"),
)
BEGINNINGS = ("lb rl vip", "lb rl as", "lb rl sources", "lb rl agent", "show lb rl flows", "lb rl enable", "")


MEANT = ("lb_rl_disable", "lb_rl_sources_set")  # these do end what is served, whatever else is in them


def random_command(chance: random.Random) -> str:
    words = (chance.choice(WORDS) for _ in range(chance.randrange(1, 9)))
    return " ".join([chance.choice(BEGINNINGS), *words])


def test_nothing_that_is_typed_ends_vpp(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    chance = random.Random(1)
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        lines = "\n".join(random_command(chance) for _ in range(400)) + "\n"
        program = [str(support.prefix() / "bin" / "vppctl"), "-s", str(balancer.directory / "cli.sock")]
        subprocess.run(program, input=lines, text=True, capture_output=True, timeout=40, check=False)
        assert balancer.process.poll() is None
        assert "vpp v" in balancer.ctl("show version")
        assert kept.get() == name


def test_no_message_ends_vpp(lab: Lab, balancer: RunningVpp) -> None:
    papi = pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")
    balancer.balance(VIP_IPV4)
    chance = random.Random(2)
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        # It reads none of the answers, and VPP keeps those until it hangs up.
        client = papi.VPPApiClient(bootstrapapi=True, server_address=str(balancer.directory / "api.sock"))
        client.connect("fuzz")
        names = dict(enumerate(client.id_names))
        numbers = [number for number, each in names.items() if each and "lb_rl" in each and each not in MEANT]
        for _ in range(400):
            # Number of the message, of the client and of the request, then anything.
            header = struct.pack(">HII", chance.choice(numbers), client.transport.socket_index, 7)
            client.transport.write(header + chance.randbytes(chance.choice((0, 1, 3, 16, 64, 300, 2000))))
        client.transport.socket.close()  # answers and all
        assert balancer.process.poll() is None
        assert "vpp v" in balancer.ctl("show version")
        assert kept.get() == name


def used_heap(balancer: RunningVpp) -> float:
    """What of VPP's main heap is in use, in MiB."""
    found = re.search(r"used: ([0-9.]+)M", balancer.ctl("show memory main-heap"))
    assert found is not None
    return float(found[1])


class RawClient:
    """A client of the binary API that may hang up at any byte."""

    def __init__(self, balancer: RunningVpp) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        while self.socket.connect_ex(str(balancer.directory / "api.sock")) == errno.EAGAIN:
            time.sleep(0.01)  # VPP has not taken those before yet

    @staticmethod
    def message(data: bytes) -> bytes:
        return struct.pack(">QII", 0, len(data), 0) + data

    def greet(self) -> None:
        self.socket.sendall(self.message(struct.pack(">HI64s", 15, 1, b"raw")))

    def read(self) -> bytes:
        size = struct.unpack(">QII", self._exactly(16))[1]
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self.socket.recv(size - len(found))
        return found

    def own_index(self) -> int:
        """Read the answer to the greeting."""
        index: int = struct.unpack_from(">HIIiI", self.read())[4]
        return index


def test_clients_that_hang_up_anywhere_leave_nothing(lab: Lab, balancer: RunningVpp) -> None:
    papi = pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")
    balancer.balance(VIP_IPV4)
    chance = random.Random(3)
    known = papi.VPPApiClient(bootstrapapi=True, server_address=str(balancer.directory / "api.sock"))
    known.connect("names")
    names = {name: number for number, name in enumerate(known.id_names) if name}
    known.disconnect()
    asked = [names[f"lb_rl_{what}"] for what in ("get", "stats_get", "vip_dump", "backend_dump", "source_dump")]
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        before = used_heap(balancer)
        for _ in range(500):
            client = RawClient(balancer)
            wish = chance.random()
            if wish < 0.9:
                client.greet()
            if wish < 0.7:
                index = client.own_index()
                want = struct.pack(">HIIBI", names["want_lb_rl_events"], index, 1, 1, 9)
                asks = [struct.pack(">HIIQ", chance.choice(asked), index, 2, 7) for _ in range(20)]
                flows = struct.pack(">HIIQIQ", names["lb_rl_flow_get"], index, 3, 0, 2**32 - 1, 0)
                stream = b"".join(map(client.message, (want, *asks, flows)))
                client.socket.sendall(stream[: chance.randrange(1, len(stream) + 1)])
            if chance.random() < 0.1:
                balancer.quiet(f"lb rl agent {chance.choice(('sed', 'little', 'follow'))}")  # an event
            client.socket.close()
        assert balancer.process.poll() is None
        eventually(lambda: used_heap(balancer) < before + 1)
        assert kept.get() == name

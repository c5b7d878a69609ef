"""A load balancer's surroundings in namespaces: a client and servers, each on a wire of its own to the balancer.

    client 10.77.0.2, fd77:0::2 -- c0 [balancer] s1 -- 10.77.1.2, fd77:1::2 server 1
                                              s2 -- 10.77.2.2, fd77:2::2 server 2 ...

The balancer routes between them by itself; VIPs and NAT ports are up to the data plane under test.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tests.support.netns import Namespace, connect

T = TypeVar("T")

SERVER_PROGRAM = Path(__file__).with_name("server.py")
HTTP_PORT = 8080
UDP_PORT = 5353


@dataclass(frozen=True)
class Server:
    """A namespace with real servers in it: HTTP/1.1 on HTTP_PORT, UDP echo on UDP_PORT, both families."""

    name: str
    namespace: Namespace
    ipv4: str
    ipv6: str


@dataclass(frozen=True)
class Lab:
    """The namespaces and addresses of one laboratory."""

    client: Namespace
    balancer: Namespace
    servers: tuple[Server, ...]
    client_ipv4: str = "10.77.0.2"
    client_ipv6: str = "fd77:0::2"
    balancer_ipv4: str = "10.77.0.1"
    balancer_ipv6: str = "fd77:0::1"

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Interfaces of the balancer."""
        return ("c0", *(server.name for server in self.servers))


@contextmanager
def lab(prefix: str, servers: int, *, start_servers: bool = True) -> Iterator[Lab]:
    """Build a laboratory with so many servers; everything is gone at the end."""
    with ExitStack() as stack:
        balancer = stack.enter_context(Namespace(f"{prefix}-lb"))
        client = stack.enter_context(Namespace(f"{prefix}-c"))
        _wire(balancer, "c0", client, 0)
        built = []
        for number in range(1, servers + 1):
            namespace = stack.enter_context(Namespace(f"{prefix}-s{number}"))
            _wire(balancer, f"s{number}", namespace, number)
            built.append(Server(f"s{number}", namespace, f"10.77.{number}.2", f"fd77:{number}::2"))
        balancer.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        if start_servers:
            for server in built:
                start_server(server)
        yield Lab(client, balancer, tuple(built))


def start_server(server: Server, service_seconds: float = 0.0) -> None:
    """Start the server program and wait until it listens. `/work` takes it so long, one request after another."""
    command = [sys.executable, str(SERVER_PROGRAM), server.name, str(service_seconds)]
    program = server.namespace.popen(command, stdout=-1)
    assert program.stdout is not None
    greeting = program.stdout.readline()
    assert json.loads(greeting) == {"ready": server.name}, greeting


def take_out_of_gre(server: Server, addresses: Iterable[str]) -> None:
    """Have a server take the VIPs' packets out of GRE."""
    options = [f"--address={address}" for address in addresses]
    options += [f"--from={network}" for network in ("10.77.0.1", "fd77::1")]
    program = server.namespace.popen([sys.executable, "-m", "penstock_cli", "decap", *options], stdout=-1)
    assert program.stdout is not None
    assert "out of GRE" in program.stdout.readline()


def know_by_dscp(server: Server, addresses: Iterable[str], dscp: int) -> None:
    """Have a server turn marked packets into such for the VIPs, one of each family, as servers behind L3DSR do."""
    server.namespace.sh(
        """nft add table inet dsr
        nft add chain inet dsr in { type filter hook prerouting priority -300; }"""
    )
    for address in addresses:
        ip, length = ("ip6", "128 dev lo nodad") if ":" in address else ("ip", "32 dev lo")
        server.namespace.sh(
            f"""ip address add {address}/{length}
            nft add rule inet dsr in {ip} dscp {dscp} {ip} daddr set {address}"""
        )


def eventually(check: Callable[[], T | Literal[False] | None], *, seconds: float = 30.0, interval: float = 0.02) -> T:
    """Call until the result is true and return it; fail with the last result after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s; last result {result!r}"
        time.sleep(interval)
    return result


def _wire(balancer: Namespace, device: str, other: Namespace, number: int) -> None:
    connect(balancer, device, other, "eth0")
    balancer.sh(
        f"""ip address add 10.77.{number}.1/24 dev {device}
        ip address add fd77:{number}::1/64 dev {device} nodad"""
    )
    other.sh(
        f"""ip address add 10.77.{number}.2/24 dev eth0
        ip address add fd77:{number}::2/64 dev eth0 nodad
        ip route add default via 10.77.{number}.1
        ip route add default via fd77:{number}::1"""
    )

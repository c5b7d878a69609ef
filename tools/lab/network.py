"""Namespaces of the laboratory on one bridge: client, data planes, and all servers in one, each with an address.

    client 10.88.0.2 --+-- bridge --+-- 10.88.2.1, 10.88.2.2 ... servers
                                    +-- 10.88.1.1 data plane 0, 10.88.1.2 data plane 1 ...

All data planes have the same VIP. The client chooses one for each connection by the mark of its socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.netns import Namespace, connect

VIP = "203.0.113.10"
VIP_PORT = 80
SERVER_PORT = 8080
DEVICE = "eth0"
NETWORK = "10.88.0.0/16"
CLIENT = "10.88.0.2"
FIRST_TABLE = 1000


@dataclass(frozen=True)
class Network:
    """The namespaces."""

    client: Namespace
    servers: Namespace
    balancers: tuple[Namespace, ...]


def balancer_address(number: int) -> str:
    """Return the address of a data plane."""
    return f"10.88.1.{number + 1}"


def server_address(number: int) -> str:
    """Return the address of a server."""
    return f"10.88.{2 + number // 250}.{number % 250 + 1}"


def mark(balancer: int) -> int:
    """Return the socket mark that leads to a data plane."""
    return balancer + 1


@contextmanager
def network(servers: int, balancers: int) -> Iterator[Network]:
    """Build the namespaces."""
    with ExitStack() as stack:
        bridge = stack.enter_context(Namespace("lab-bridge"))
        bridge.sh("ip link add bridge type bridge\nip link set bridge up")

        def host(name: str, port: str, addresses: list[str]) -> Namespace:
            namespace = stack.enter_context(Namespace(f"lab-{name}"))
            connect(bridge, port, namespace, DEVICE)
            bridge.sh(f"ip link set {port} master bridge")
            for address in addresses:
                namespace.sh(f"ip address add {address}/16 dev {DEVICE}")
            return namespace

        client = host("client", "client", [CLIENT])
        built = Network(
            client,
            host("servers", "servers", [server_address(number) for number in range(servers)]),
            tuple(host(f"lb{number}", f"lb{number}", [balancer_address(number)]) for number in range(balancers)),
        )
        for namespace in built.balancers:
            namespace.sh(f"ip route add default dev {DEVICE}")
        _route(client, balancers)
        yield built


def _route(client: Namespace, balancers: int) -> None:
    """Give the client a route to the VIP by each data plane, and ports enough."""
    client.sh("sysctl -qw net.ipv4.ip_local_port_range='1024 65535'")
    client.sh(f"ip route add default via {balancer_address(0)}")
    for number in range(balancers):
        table = FIRST_TABLE + number
        client.sh(
            f"""ip route add default via {balancer_address(number)} table {table}
            ip rule add fwmark {mark(number)} table {table}"""
        )

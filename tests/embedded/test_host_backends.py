"""Backends on the balancing node itself: what they are sent has one address as source and destination."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, UDP_PORT, Lab, Server, start_server
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
SIZE = 3_000_000


def hosts(lab: Lab, address: str, port: int) -> list[dict[str, Any]]:
    """The balancer as the only backend: its address there is the NAT source, too."""
    own = lab.balancer_ipv6 if ":" in address else lab.balancer_ipv4
    return [{"id": "lb", "address": own, "port": port}]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client and a balancer that is a server as well."""
    with build_lab("pn-host", 0) as built:
        start_server(Server("lb", built.balancer, built.balancer_ipv4, built.balancer_ipv6))
        yield built


@pytest.fixture(scope="module", params=[False, True], ids=["rules", "shortcut"])
def balanced(lab: Lab, request: pytest.FixtureRequest) -> Iterator[RunningDataplane]:
    with running_dataplane(lab, shortcut=request.param) as running:
        running.apply(
            *(vip(lab, address, backends=hosts(lab, address, HTTP_PORT)) for address in (VIP_IPV4, VIP_IPV6)),
            *(
                vip(lab, address, port=53, protocol="UDP", backends=hosts(lab, address, UDP_PORT))
                for address in (VIP_IPV4, VIP_IPV6)
            ),
        )
        yield running
        running.withdraw()


@BOTH
def test_connections_reach_a_server_on_the_node(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    with HttpConnection(lab, address) as connection:
        assert connection.get() == b"lb"
        assert len(connection.get(f"/bytes/{SIZE}")) == SIZE
        assert connection.post(b"x" * SIZE) == str(SIZE).encode()
    assert {get(lab, address, "/last") for _ in range(20)} == {b"lb"}


@BOTH
@pytest.mark.parametrize("size", [10, 1400])
def test_datagrams_reach_a_server_on_the_node(lab: Lab, balanced: RunningDataplane, address: str, size: int) -> None:
    data = bytes(range(250)) * (size // 250 + 1)
    with udp_socket(lab, address, 53) as datagrams:
        for _ in range(3):
            datagrams.send(data[:size])
            assert datagrams.recv(65535) == b"lb " + data[:size]


@BOTH
def test_a_client_on_the_node_reaches_a_server_on_the_node(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    """Its source is the NAT source's address, with a port beside those of NAT flows."""
    with lab.balancer.run(socket.create_connection, (address, 80), 10) as connection:
        connection.sendall(b"GET /last HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.endswith(b"lb")
    assert balanced.stats().dropped["forged_client"] == 0

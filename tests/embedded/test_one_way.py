"""Real clients and servers where backends answer clients themselves: GRE and L3DSR."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, Lab, Server, eventually, know_by_dscp, take_out_of_gre
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

DSCP = 10
ECHO_PORT = 5354
ADDRESSES = (VIP_IPV4, VIP_IPV6)
BOTH = pytest.mark.parametrize("address", ADDRESSES)


@contextmanager
def echoes(server: Server) -> Iterator[None]:
    """Answer datagrams with the server's name, from the address that they were sent to."""
    ended = threading.Event()
    with ExitStack() as stack:
        for address in ADDRESSES:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            heard = stack.enter_context(server.namespace.run(socket.socket, family, socket.SOCK_DGRAM))
            heard.bind((address, ECHO_PORT))
            heard.settimeout(0.1)
            thread = threading.Thread(target=_echo, args=(server.name.encode(), heard, ended))
            thread.start()
            stack.callback(thread.join)
        stack.callback(ended.set)
        yield


def _echo(name: bytes, heard: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        with suppress(TimeoutError):
            data, peer = heard.recvfrom(2048)
            heard.sendto(name + b" " + data, peer)


def vips(lab: Lab, forwarding: str) -> list[dict[str, Any]]:
    mark = {"dscp": DSCP} if forwarding == "L3DSR" else {}
    wanted = []
    for address in ADDRESSES:
        for protocol, port in (("TCP", HTTP_PORT), ("UDP", ECHO_PORT)):
            one = vip(lab, address, port, protocol=protocol, forwarding=forwarding, **mark)
            one["backends"] = [backend | {"port": port} for backend in one["backends"]]
            wanted.append(one)
    return wanted


@pytest.fixture(scope="module", params=["GRE", "L3DSR"])
def balanced(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, RunningDataplane]]:
    with build_lab("pn-dsr", 2) as lab, ExitStack() as stack:
        for server in lab.servers:
            if request.param == "GRE":
                take_out_of_gre(server, ADDRESSES)
            else:
                know_by_dscp(server, ADDRESSES, DSCP)
            stack.enter_context(echoes(server))
        dataplane = stack.enter_context(running_dataplane(lab))
        dataplane.apply(*vips(lab, request.param))
        yield lab, dataplane
        eventually(dataplane.answers)  # it may just have been killed
        dataplane.withdraw()


@BOTH
def test_all_backends_serve(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    lab, _ = balanced
    assert {get(lab, address, port=HTTP_PORT) for _ in range(20)} == {b"s1", b"s2"}


@BOTH
def test_a_connection_stays_with_its_backend(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    lab, _ = balanced
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert len({connection.get() for _ in range(20)}) == 1


@BOTH
def test_large_requests_arrive_whole(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    """Longer than the tunnel takes, and in super-packets: the client is told what fits, and segments are made."""
    lab, _ = balanced
    size = 3_000_000
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert connection.post(b"x" * size) == str(size).encode()
        assert len(connection.get(f"/bytes/{size}")) == size


@BOTH
def test_only_what_clients_send_passes_the_balancer(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    lab, dataplane = balanced
    before = dataplane.stats()
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert len(connection.get("/bytes/1000000")) == 1_000_000
    after = dataplane.stats()
    assert after.packets - before.packets < 700  # acknowledgements: of 700 segments at least


@BOTH
def test_datagrams_are_answered_by_the_vip(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    lab, _ = balanced
    with udp_socket(lab, address, ECHO_PORT) as datagrams:
        datagrams.send(b"one")
        name, _, text = datagrams.recv(2048).partition(b" ")
        assert name in {b"s1", b"s2"}
        assert text == b"one"


@BOTH
def test_connections_outlive_a_killed_data_plane(balanced: tuple[Lab, RunningDataplane], address: str) -> None:
    lab, dataplane = balanced
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        name = connection.get()
        dataplane.kill_child()
        assert connection.get() == name

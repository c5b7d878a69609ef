"""Real clients and servers through the data plane."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.clients import Ear, HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import UDP_PORT, Lab, eventually

pytestmark = pytest.mark.netns

MEGABYTE = 1_000_000
BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


@BOTH
def test_requests_are_served_by_all_backends(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    assert {get(lab, address) for _ in range(20)} == {b"s1", b"s2"}


@BOTH
def test_a_connection_stays_with_its_backend(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    with HttpConnection(lab, address) as connection:
        assert len({connection.get() for _ in range(20)}) == 1


@BOTH
def test_datagrams_of_a_flow_go_to_one_backend_and_answers_come_back(
    lab: Lab, balanced: RunningDataplane, address: str
) -> None:
    names = set()
    for number in range(20):
        with udp_socket(lab, address, 53) as datagrams:
            answers = []
            for text in (f"{number} one", f"{number} two"):
                datagrams.send(text.encode())
                name, _, echoed = datagrams.recv(2048).partition(b" ")
                assert echoed == text.encode()
                answers.append(name)
            assert len(set(answers)) == 1
            names.add(answers[0])
    assert names == {b"s1", b"s2"}


@BOTH
def test_big_transfers_are_whole_and_go_in_super_packets(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    size = 60 * MEGABYTE
    before = balanced.stats()
    with HttpConnection(lab, address) as connection:
        body = connection.get(f"/bytes/{size}")
        assert len(body) == size
        assert body[: 1 << 18] == bytes(range(256)) * 1024
        assert body == body[: 1 << 18] * (size >> 18) + body[: size & ((1 << 18) - 1)]
        assert connection.post(b"x" * size) == str(size).encode()
    after = balanced.stats()
    # Segments would be some 40,000 each way; acknowledgements are most of what remains.
    assert after.packets - before.packets < 30_000
    for reason in ("bad_checksum", "truncated"):
        assert after.dropped[reason] == before.dropped[reason]
    # A connection of an earlier test may still send a last packet again; a flow lost here would cost thousands.
    for reason in ("no_flow", "no_flow_return"):
        assert after.dropped[reason] - before.dropped[reason] < 10


@BOTH
def test_a_large_datagram_is_fragmented_and_arrives(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    with udp_socket(lab, address, 53) as datagrams:
        data = bytes(range(256)) * 24
        datagrams.send(data)
        assert datagrams.recv(65535).partition(b" ")[2] == data


@BOTH
def test_a_port_that_is_not_configured_refuses(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    with Ear(lab) as ear, pytest.raises(ConnectionRefusedError):
        get(lab, address, port=81)
    assert ear.heard[0].kind == "RST"
    assert balanced.stats().dropped["port_unconfigured"] > 0


def test_the_vip_answers_ping(lab: Lab, balanced: RunningDataplane) -> None:
    lab.client.sh(f"ping -c 2 -i 0.05 -W 20 {VIP_IPV4}")
    lab.client.sh(f"ping -6 -c 2 -i 0.05 -W 20 {VIP_IPV6}")


def test_servers_see_the_balancer_and_the_dump_counts_flows(lab: Lab, balanced: RunningDataplane) -> None:
    for _ in range(10):
        get(lab, VIP_IPV4)
    status = next(vip for vip in balanced.dump().vips if vip.key.endswith(f"{VIP_IPV4}/TCP/80"))
    assert sum(backend.flows for backend in status.backends) == 10
    assert {backend.id for backend in status.backends} == {"s1", "s2"}
    assert all(backend.bytes > 0 and backend.packets > 0 for backend in status.backends)


def refreshed(running: RunningDataplane, clients: Iterable[socket.socket]) -> int:
    """Send a datagram of each client, and return how many flows there are."""
    for client in clients:
        client.send(b"x")
    return running.stats().flows


def let_all_flows_but_one_go(lab: Lab, running: RunningDataplane) -> None:
    with contextlib.ExitStack() as stack:
        busy, *others = [stack.enter_context(udp_socket(lab, VIP_IPV4, 53)) for _ in range(40)]
        eventually(lambda: refreshed(running, (busy, *others)) > 30, seconds=30)
        eventually(lambda: refreshed(running, (busy,)) <= 1, seconds=30, interval=0.005)


def test_a_worker_ages_its_flows_while_others_hand_it_packets(lab: Lab) -> None:
    servers = [{"id": each.name, "address": each.ipv4, "port": UDP_PORT} for each in lab.servers]
    brief = dict.fromkeys(("udp_unreplied", "udp_exchange", "udp_stream"), 1.0)
    with running_dataplane(lab, queues=2) as running:
        # Where there are answers, or tunnels, Linux soon gives packets to the queue that the owner writes to.
        one_way: dict[str, Any] = {"forwarding": "L3DSR", "dscp": 9}
        running.apply(vip(lab, port=53, protocol="UDP", backends=servers, timeouts=brief, **one_way))
        for _ in range(6):  # each time another one reads, and perhaps another one owns, the flow that goes on
            let_all_flows_but_one_go(lab, running)
        running.withdraw()


def test_several_queues_share_the_work_and_hand_packets_over(lab: Lab) -> None:
    with running_dataplane(lab, queues=2) as running:
        running.apply(vip(lab), vip(lab, VIP_IPV6))
        for address in (VIP_IPV4, VIP_IPV6):
            assert {get(lab, address) for _ in range(40)} == {b"s1", b"s2"}
            assert len(get(lab, address, "/bytes/20000000")) == 20 * MEGABYTE
        connections = [HttpConnection(lab, VIP_IPV4) for _ in range(32)]
        names = [connection.get() for connection in connections]
        assert [connection.get() for connection in connections] == names
        running.kill_child()
        eventually(running.answers)
        assert [connection.get() for connection in connections] == names
        for connection in connections:
            connection.close()
        # Whether a ring was full depends on when the machine runs which thread; TCP sends again what was dropped.
        running.withdraw()

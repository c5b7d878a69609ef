"""Real clients and servers through VPP."""

from __future__ import annotations

import pytest

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp, running_vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


@BOTH
def test_requests_are_served_by_all_backends(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    assert {get(lab, address) for _ in range(20)} == {b"s1", b"s2"}


@BOTH
def test_a_connection_stays_with_its_backend(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    with HttpConnection(lab, address) as connection:
        assert len({connection.get() for _ in range(20)}) == 1


@BOTH
def test_datagrams_of_a_flow_go_to_one_backend_and_answers_come_back(
    lab: Lab, balancer: RunningVpp, address: str
) -> None:
    balancer.balance(address, 53, "udp")
    names = set()
    for _ in range(20):
        with udp_socket(lab, address, 53) as datagrams:
            answers = []
            for text in (b"one", b"two"):
                datagrams.send(text)
                name, _, echoed = datagrams.recv(2048).partition(b" ")
                assert echoed == text
                answers.append(name)
            assert len(set(answers)) == 1
            names.add(answers[0])
    assert names == {b"s1", b"s2"}


@BOTH
def test_big_transfers_are_whole(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    size = 5_000_000
    with HttpConnection(lab, address) as connection:
        body = connection.get(f"/bytes/{size}")
        assert len(body) == size
        assert body[: 1 << 18] == bytes(range(256)) * 1024
        assert connection.post(b"x" * size) == str(size).encode()


@BOTH
def test_a_port_that_is_not_configured_refuses(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    with pytest.raises(ConnectionRefusedError):
        get(lab, address, port=81)
    assert "port_unconfigured" in balancer.ctl("show lb rl stats")


def test_the_vip_answers_ping(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    balancer.balance(VIP_IPV6)
    lab.client.sh(f"ping -c 2 -i 0.05 -W 20 {VIP_IPV4}")
    lab.client.sh(f"ping -6 -c 2 -i 0.05 -W 20 {VIP_IPV6}")


def test_the_balancers_own_address_answers_ping_beside_its_nat_ports(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    lab.client.sh(f"ping -c 2 -i 0.05 -W 20 {lab.balancer_ipv4}")


@BOTH
def test_a_packet_is_one_hop_older_for_a_load_balancer_as_for_a_router(
    lab: Lab, balancer: RunningVpp, address: str
) -> None:
    balancer.balance(address)
    server, other = lab.servers
    to = other.ipv6 if ":" in address else other.ipv4
    balancer.quiet(f"lb rl as {address} port 80 server {to} port 8080 weight 0")
    # Either way: what the server gets, and what the client gets.
    ears = [
        host.popen(["tcpdump", "-c", "1", "-nvi", "eth0", *wanted.split()], stdout=-1, stderr=-3)
        for host, wanted in ((server.namespace, "tcp dst port 8080"), (lab.client, "tcp src port 80"))
    ]
    try:
        eventually(lambda: get(lab, address) and all(ear.poll() is not None for ear in ears))
    finally:
        for ear in ears:
            ear.kill()
    for ear in ears:
        assert ear.stdout is not None
        heard = ear.stdout.read()
        assert "hlim 63" in heard or "ttl 63" in heard, heard


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_flows_and_hand_packets_over(lab_of_its_own: Lab, workers: int) -> None:
    lab = lab_of_its_own
    with running_vpp(lab, workers=workers) as vpp:
        for address in (VIP_IPV4, VIP_IPV6):
            vpp.balance(address)
            assert {get(lab, address) for _ in range(40)} == {b"s1", b"s2"}
            assert len(get(lab, address, "/bytes/2000000")) == 2_000_000
        connections = [HttpConnection(lab, VIP_IPV4) for _ in range(16)]
        names = [connection.get() for connection in connections]
        vpp.kill()
        vpp.restart()
        assert [connection.get() for connection in connections] == names
        for connection in connections:
            connection.close()
        said = vpp.ctl("show lb rl stats")
        assert "handover_full" not in said


def test_what_arrives_at_a_thread_without_flows_is_handed_to_a_worker(lab_of_its_own: Lab) -> None:
    lab = lab_of_its_own
    with running_vpp(lab, workers=1) as vpp:
        for device in lab.interfaces:
            vpp.ctl(f"set interface rx-placement host-{device} main")
        for address in (VIP_IPV4, VIP_IPV6):
            vpp.balance(address)
            assert {get(lab, address) for _ in range(24)} == {b"s1", b"s2"}
        vpp.ctl("trace add af-packet-input 20")
        get(lab, VIP_IPV4)
        trace = vpp.ctl("show trace")
        assert "lb-rl-ip4-handoff: to thread 1" in trace
        assert "lb-rl-nat-return-ip4-handoff: to thread 1" in trace

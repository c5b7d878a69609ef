"""Packet traces that a person can read, and error counters by reason."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.lab import HTTP_PORT, Lab, eventually, take_out_of_gre
from tests.support.vpp import PORTS, RunningVpp, running_vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


def traced(balancer: RunningVpp, action: Callable[[], object], packets: int = 30) -> str:
    """What VPP traces while something happens, on one line."""
    balancer.ctl("clear trace")
    balancer.ctl(f"trace add af-packet-input {packets}")
    action()
    return " ".join(balancer.ctl(f"show trace max {packets}").split())


def fails(lab: Lab, address: str, port: int = 80) -> None:
    with pytest.raises(OSError):
        get(lab, address, port=port, timeout=0.5)


def stray(lab: Lab, port: str) -> None:
    """Send a datagram of no flow to a NAT source, and give it time to arrive."""
    lab.servers[0].namespace.sh(f"bash -c 'echo stray > /dev/udp/{lab.balancer_ipv4}/{port}; sleep 0.1'")


def endpoint(address: str, port: str = r"\d+") -> str:
    """An address and port as people write it, for a regular expression."""
    return rf"\[{address}\]:{port}" if ":" in address else rf"{re.escape(address)}:{port}"


@BOTH
def test_both_ways_of_a_flow(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    get(lab, address)  # neighbours are known
    trace = traced(balancer, lambda: get(lab, address))
    six = ":" in address
    # VPP leaves out zeros that the laboratory writes.
    client, own, server = ("fd77::2", "fd77::1", r"fd77:\d::2") if six else (lab.client_ipv4, lab.balancer_ipv4, "")
    to = endpoint(server, "8080") if six else r"10\.77\.\d\.2:8080"
    there, back = ("lb-rl-ip6", "lb-rl-nat-return-ip6") if six else ("lb-rl-ip4", "lb-rl-nat-return-ip4")
    way = rf"{there}: TCP {endpoint(client)} -> {endpoint(address, '80')} forwarded as TCP {endpoint(own)} -> {to}"
    assert re.search(way, trace), trace
    way = rf"{back}: TCP {to} -> {endpoint(own)} forwarded as TCP {endpoint(address, '80')} -> {endpoint(client)}"
    assert re.search(way, trace), trace


@BOTH
def test_a_drop_with_its_reason(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.quiet(f"lb rl vip {address} port 80 no-backends drop")
    trace = traced(balancer, lambda: fails(lab, address))
    node = "lb-rl-ip6" if ":" in address else "lb-rl-ip4"
    assert re.search(rf"{node}: TCP \S+ -> {endpoint(address, '80')} dropped: no backend takes new flows", trace), trace


@BOTH
def test_an_answer(lab: Lab, balancer: RunningVpp, address: str) -> None:
    balancer.balance(address)
    trace = traced(balancer, lambda: fails(lab, address, 81))
    node = "lb-rl-ip6" if ":" in address else "lb-rl-ip4"
    answer = rf"answered \([^)]+\) by TCP {endpoint(address, '81')} -> "
    assert re.search(rf"{node}: TCP \S+ -> {endpoint(address, '81')} {answer}", trace), trace


def test_what_belongs_to_no_flow_on_its_way_back(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    first = PORTS.partition("-")[0]
    trace = traced(balancer, lambda: stray(lab, first))
    assert re.search(rf"lb-rl-nat-return-ip4: UDP 10.77.1.2:\d+ -> {lab.balancer_ipv4}:{first} dropped: ", trace), trace


@BOTH
def test_a_tunnel_and_a_super_packet(lab_of_its_own: Lab, address: str) -> None:
    lab = lab_of_its_own
    lab.client.sh("ethtool -K eth0 tx on gso on tso on")
    lab.balancer.sh("ethtool -K c0 tx on gso on tso on gro on")
    server = lab.servers[0]
    to, own = (server.ipv6, "fd77::1") if ":" in address else (server.ipv4, lab.balancer_ipv4)
    take_out_of_gre(server, (address,))
    with running_vpp(lab, offloads=["c0"]) as vpp:
        vpp.quiet(f"lb rl sources {lab.balancer_ipv4} ports {PORTS} {lab.balancer_ipv6} ports {PORTS}")
        vpp.quiet(f"lb rl vip {address} port {HTTP_PORT} forwarding gre")
        vpp.quiet(f"lb rl as {address} port {HTTP_PORT} server {to} port {HTTP_PORT}")
        get(lab, address, port=HTTP_PORT)
        with HttpConnection(lab, address, HTTP_PORT) as connection:
            trace = traced(vpp, lambda: connection.post(b"x" * 100_000), 300)
    node = "lb-rl-ip6" if ":" in address else "lb-rl-ip4"
    way = rf"{node}: TCP \S+ -> {endpoint(address, str(HTTP_PORT))} forwarded as GRE {own} -> {to}"
    assert re.search(way, trace), trace[:4000]
    # The packet that came in is larger than any wire takes, and is followed to its segments.
    sizes = [int(size) for size in re.findall(r"gso_size (\d+)", trace)]
    assert sizes, trace[:4000]


def counted(balancer: RunningVpp) -> set[tuple[int, str, str]]:
    """Our nodes' error counters of VPP's own, which cuts reasons short: count, node, reason."""
    found = re.findall(r"(\d+) +(lb-rl-\S+) +(\S.*?)  +(?:error|info)", balancer.ctl("show errors"))
    return {(int(count), node, reason) for count, node, reason in found}


def test_error_counters_are_by_node_and_reason(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    balancer.balance(VIP_IPV6)
    balancer.quiet(f"lb rl vip {VIP_IPV4} port 82 no-backends drop")
    balancer.ctl("clear errors")
    for address, port in ((VIP_IPV4, 81), (VIP_IPV4, 82), (VIP_IPV6, 81)):
        fails(lab, address, port)
    stray(lab, PORTS.partition("-")[0])
    wanted = {
        (1, "lb-rl-ip4", "turned round into an answer"),
        (1, "lb-rl-ip4", "VIP has no such port; answered unle"),
        (1, "lb-rl-ip4", "no backend takes new flows"),
        (1, "lb-rl-ip6", "turned round into an answer"),
        (1, "lb-rl-ip6", "VIP has no such port; answered unle"),
        (1, "lb-rl-nat-return-ip4", "packet to a NAT source that belongs"),
    }
    eventually(lambda: counted(balancer) == wanted)

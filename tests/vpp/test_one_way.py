"""Real clients and servers through VPP, where servers answer clients themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6
from tests.support.lab import HTTP_PORT, Lab, take_out_of_gre
from tests.support.vpp import PORTS, RunningVpp, running_vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

SIZE = 3_000_000


@pytest.fixture(params=["on"])
def tunnelled(lab_of_its_own: Lab, request: pytest.FixtureRequest) -> Iterator[RunningVpp]:
    """A VPP that takes partial checksums and, when on, super-packets from the client; servers that know GRE."""
    lab = lab_of_its_own
    lab.client.sh(f"ethtool -K eth0 tx on gso {request.param} tso {request.param}")
    lab.balancer.sh(f"ethtool -K c0 tx on gso on tso on gro {request.param}")
    for server in lab.servers:
        take_out_of_gre(server, (VIP_IPV4, VIP_IPV6))
    with running_vpp(lab, offloads=["c0"]) as vpp:
        vpp.quiet(f"lb rl sources {lab.balancer_ipv4} ports {PORTS} {lab.balancer_ipv6} ports {PORTS}")
        for address in (VIP_IPV4, VIP_IPV6):
            vpp.quiet(f"lb rl vip {address} port {HTTP_PORT} forwarding gre")
            for server in lab.servers:
                to = server.ipv6 if ":" in address else server.ipv4
                vpp.quiet(f"lb rl as {address} port {HTTP_PORT} server {to} port {HTTP_PORT}")
        yield vpp


def forwarded(vpp: RunningVpp) -> int:
    found = re.search(r"forwarded +(\d+)", vpp.ctl("show lb rl stats"))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_super_packets_are_segmented_into_the_tunnel(tunnelled: RunningVpp, address: str) -> None:
    lab = tunnelled.lab
    assert {get(lab, address, port=HTTP_PORT) for _ in range(24)} == {b"s1", b"s2"}
    before = forwarded(tunnelled)
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert connection.post(b"x" * SIZE) == str(SIZE).encode()
    # As segments they would be more than 2,000.
    assert forwarded(tunnelled) - before < 1500
    assert "no buffer for a segment" not in tunnelled.ctl("show errors")


@pytest.mark.parametrize("tunnelled", ["off"], indirect=True)
@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_a_packet_with_a_partial_checksum_that_fits_into_no_tunnel_is_answered(
    tunnelled: RunningVpp, address: str
) -> None:
    lab = tunnelled.lab
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert connection.post(b"x" * SIZE) == str(SIZE).encode()
    assert "mtu" in lab.client.sh(f"ip route get {address}")

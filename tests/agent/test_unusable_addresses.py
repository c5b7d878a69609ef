"""Addresses that no VIP and no server can have: the table, and endpoints of slices."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.endpoints import Wanted, from_slices
from penstock_agent.slices import Service, read_slice
from penstock_api.addresses import NEVER, unusable, unusable_within


@pytest.mark.parametrize("network", NEVER, ids=str)
def test_endpoints_of_slices(network: IPv4Network | IPv6Network) -> None:
    good = "10.0.0.1" if network.version == 4 else "2001:db8::1"
    raw = {
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": f"IPv{network.version}",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        "endpoints": [{"addresses": [str(text)]} for text in (network[0], good, network[-1])],
    }
    wanted = Wanted("shop/web", "spec.ports[0]", 80, "TCP", 80, network.version)
    found = from_slices([read_slice(raw)], Service(), wanted, frozenset())
    assert [str(backend.address) for backend in found.backends] == [good]
    assert any(str(network[0]) in note.message for note in found.notes)


@given(st.ip_addresses())
def test_special_addresses_are_unusable(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or getattr(address, "ipv4_mapped", None) is not None
        or getattr(address, "is_site_local", False)
        or (address.version == 4 and address.is_reserved)
    )
    assert unusable(address) or not special


@given(st.ip_addresses(v=4))
def test_translations_of_unusable_addresses_are_unusable(address: IPv4Address) -> None:
    translated = IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))
    assert bool(unusable(translated)) == bool(unusable(address))
    assert unusable(IPv6Address((0x2002 << 112) + (int(address) << 80) + 1))


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1", "100.64.0.1", "192.0.2.1", "203.0.113.1", "8.8.8.8", "2001:db8::1", "fd00::1", "64:ff9b::808:808"],
)
def test_addresses_of_servers_are_usable(text: str) -> None:
    assert unusable(ip_address(text)) == ""


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_a_block_is_unusable_if_one_of_its_addresses_is(one: IPv4Address, other: IPv4Address) -> None:
    first, last = sorted((one, other))
    inside = [net for net in NEVER if net.version == 4 and first <= net[-1] and net[0] <= last]
    assert bool(unusable_within(first, last)) == bool(inside)

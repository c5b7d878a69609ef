"""Blocks of a pool against the standard library's networks."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_api import AddressPool, parse, parse_block
from penstock_api.fields import AddressFamily, family_of

ADDRESSES = st.ip_addresses(v=4)


@given(ADDRESSES, st.integers(16, 32))
def test_a_network_holds_its_addresses(address: IPv4Address, prefix: int) -> None:
    network = ip_network(f"{address}/{prefix}", strict=False)
    block = parse_block(str(network))
    assert block.size == network.num_addresses
    assert address in block
    assert (block.first, block.last) == (network[0], network[-1])


@given(ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES)
def test_overlap_is_a_shared_address(a: IPv4Address, b: IPv4Address, c: IPv4Address, d: IPv4Address) -> None:
    left, right = sorted((a, b)), sorted((c, d))
    blocks = parse_block(f"{left[0]}-{left[1]}"), parse_block(f"{right[0]}-{right[1]}")
    shared = max(left[0], right[0]) <= min(left[1], right[1])
    assert blocks[0].overlaps(blocks[1]) == blocks[1].overlaps(blocks[0]) == shared


def test_families_are_apart() -> None:
    assert not parse_block("203.0.113.0/24").overlaps(parse_block("2001:db8::/64"))
    assert ip_address("2001:db8::1") not in parse_block("0.0.0.0-255.255.255.255")
    assert family_of(ip_address("2001:db8::1")) is AddressFamily.IPV6


def test_a_block_reads_as_it_was_written() -> None:
    block = parse_block("198.51.100.10-198.51.100.20")
    assert str(block) == "198.51.100.10-198.51.100.20"
    assert parse_block(block) is block
    assert block.contains_any(["203.0.113.1", "198.51.100.15"])
    assert not block.contains_any(["203.0.113.1"])


def test_who_may_take_from_a_pool() -> None:
    raw = {"metadata": {"name": "p"}, "spec": {"addresses": ["203.0.113.0/24"], "namespaces": ["shop"]}}
    spec = parse(AddressPool, raw).spec
    assert spec.contains(ip_address("203.0.113.9"))
    assert not spec.contains(ip_address("203.0.114.9"))
    assert spec.allows("shop")
    assert not spec.allows("default")


@pytest.mark.parametrize("text", ["", "-", "a-b", "203.0.113.1-", "203.0.113.0/33", 7, None])
def test_nonsense_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="write for example"):
        parse_block(text)

"""Pools: how full they are, how they are shown."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools, pool_status, pool_use
from penstock_operator.plan.reserved import Reserved

from tests.support.plan_builders import NOW, node, pool, vip


@given(st.sets(st.integers(0, 40), max_size=41), st.integers(0, 20), st.integers(0, 20))
def test_the_lowest_gap_is_found(held: set[int], first: int, length: int) -> None:
    ledger = Ledger()
    base = int(ip_address("203.0.113.0"))
    for number in held:
        ledger.put(Claim.of(vip(f"vip-{number}", held=[str(ip_address(base + number))])))
    expected = next((n for n in range(first, first + length + 1) if n not in held), None)
    found = ledger.first_unheld(4, base + first, base + first + length)
    assert (found - base if found is not None else None) == expected
    for number in held:
        ledger.remove(("shop", f"vip-{number}"))
    assert ledger.first_unheld(4, base, base) == base


@pytest.mark.parametrize(
    ("pools", "usable", "used", "free", "message"),
    [
        ([pool("203.0.113.0/29")], "True", "1", "5", "can be given out"),  # of 8, two are the subnet's own
        ([pool("203.0.113.1")], "True", "1", "0", "all addresses are held"),
        ([pool("2001:db8::/64")], "True", "0", "2^63", "can be given out"),
        ([pool("10.96.1.0/24")], "False", "0", "254", "in the Service network"),
        ([pool("203.0.113.0/24", age=1), pool("203.0.113.7", name="old")], "False", "1", "253", "AddressPool old"),
        ([pool("192.0.2.0/30")], "True", "0", "1", "can be given out"),  # 192.0.2.1 is a node's
    ],
)
def test_pools_say_how_full_they_are(pools: Any, usable: str, used: str, free: str, message: str) -> None:
    reserved = Reserved([node()], (), [ip_network("10.96.0.0/16")])
    found = pool_status(pools[0], Pools(pools, reserved), [ip_address("203.0.113.1")], reserved, NOW)
    by_type = {condition.type: condition for condition in found.conditions}
    assert by_type["Accepted"].status == usable
    assert (found.summary.used, found.summary.free) == (used, free)
    assert message in by_type["Ready"].message
    assert (
        pool_status(
            pools[0].model_copy(update={"status": found}),
            Pools(pools, reserved),
            [ip_address("203.0.113.1")],
            reserved,
            NOW,
        )
        == found
    )


def test_a_held_address_that_something_else_claims_counts_once() -> None:
    reserved = Reserved([node("lb-9", "203.0.113.1")])
    assert pool_use(pool("203.0.113.1-203.0.113.4"), [ip_address("203.0.113.1")], reserved) == (1, 3)
    assert pool_use(pool("203.0.113.1-203.0.113.4"), [], reserved) == (0, 3)


LONG = "1111:1111:1111:1111:111"  # of an address, less its last digit: nothing to shorten


@pytest.mark.parametrize(
    ("blocks", "shown"),
    [
        (["203.0.113.0/29"], "203.0.113.0/29"),
        (["203.0.113.0/29", "198.51.100.1-198.51.100.3"], "203.0.113.0/29, 198.51.100.1-198.51.100.3"),
        ([f"203.0.113.{n}" for n in range(1, 6)], "203.0.113.1, 203.0.113.2, 203.0.113.3 and 2 more"),
        ([f"2001:db8:{n}{n}{n}{n}:{LONG}1-2001:db8:{n}{n}{n}{n}:{LONG}f" for n in range(1, 9)], None),
    ],
)
def test_pools_name_their_addresses_for_people(blocks: list[str], shown: str | None) -> None:
    reserved = Reserved([], (), [])
    subject = pool(*blocks)
    found = pool_status(subject, Pools([subject], reserved), [], reserved, NOW).summary.addresses
    assert len(found) <= 256
    assert shown is None or found == shown

"""A VIP in the clients' own network, reached by ARP and neighbour discovery alone."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from penstock_node import Announcer

from tests.support.clients import get
from tests.support.dataplane import RunningDataplane, vip
from tests.support.lab import Lab, eventually

pytestmark = pytest.mark.netns

NEAR = ("10.77.0.100", "fd77:0::100")


def announced(*addresses: str) -> dict[str, object]:
    return {"interfaces": ["c0"], "addresses": list(addresses)}


@pytest.mark.parametrize("address", NEAR)
def test_clients_of_the_same_network_find_the_vip(lab: Lab, dataplane: RunningDataplane, address: str) -> None:
    dataplane.apply(vip(lab, address), announcement=announced(address))
    assert get(lab, address) in (b"s1", b"s2")
    dataplane.kill_child()
    eventually(dataplane.answers)
    lab.client.sh("ip neigh flush dev eth0")
    assert get(lab, address) in (b"s1", b"s2")  # announced again before anybody applied anything


def test_an_address_that_another_node_takes_is_reported_and_given_up(lab: Lab, dataplane: RunningDataplane) -> None:
    address = NEAR[0]
    dataplane.apply(vip(lab, address), announcement=announced(address))
    assert get(lab, address)

    # Another node on the same wire: the client, which announces the address for itself. Of two that take an
    # address at the same time the one with the higher MAC address keeps it.
    lab.client.sh("ip link set eth0 address fe:ff:ff:ff:ff:fe")
    lab.client.run(announce_for_a_moment, address)
    eventually(lambda: dataplane.stats().lost_announcements == (ip_address(address),))
    dataplane.apply(vip(lab, address), announcement=announced(address))
    assert dataplane.stats().lost_announcements == ()


def test_an_interface_that_is_not_there_is_an_error_of_the_apply(lab: Lab, dataplane: RunningDataplane) -> None:
    result = dataplane.try_apply(vip(lab, NEAR[0]), announcement={"interfaces": ["absent0"], "addresses": [NEAR[0]]})
    assert [error.field for error in result.errors] == ["announcement"]
    assert "absent0" in result.errors[0].message
    assert all(each.error is None for each in result.vips)


def announce_for_a_moment(address: str) -> None:
    import asyncio

    async def announce() -> None:
        async with Announcer(announce_at=(0.0, 0.1)) as announcer:
            announcer.update(["eth0"], [ip_address(address)])
            await asyncio.sleep(0.3)

    asyncio.run(announce())

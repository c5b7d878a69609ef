"""Tables of allocation and acceptance: no cluster, one line per case."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from penstock_operator.plan.allocation import assign
from penstock_operator.plan.facts import ServiceFacts
from penstock_operator.plan.ledger import Claim

from tests.support.plan_builders import addresses, node, pool, vip, world


@pytest.mark.parametrize(
    ("mine", "others", "expected"),
    [
        pytest.param(vip(), [], ["203.0.113.10"], id="the lowest free address"),
        pytest.param(vip(), [vip("a", held=["203.0.113.10"])], ["203.0.113.11"], id="not one that is held"),
        pytest.param(vip(), [vip("a", addresses=["203.0.113.10"])], ["203.0.113.11"], id="not one that is claimed"),
        pytest.param(
            vip(),
            [vip("a", addresses=["203.0.113.10"], generation=1, seen=1, held=["203.0.113.12"])],
            ["203.0.113.10"],
            id="a refused claim blocks nothing",
        ),
        pytest.param(vip(held=["203.0.113.12"]), [], ["203.0.113.12"], id="the holder keeps its own"),
        pytest.param(
            vip(age=1, held=["203.0.113.10"]),
            [vip("a", age=900, addresses=["203.0.113.10"])],
            ["203.0.113.10"],
            id="an older claimant does not take what is held",
        ),
        pytest.param(
            vip(addresses=["203.0.113.10"], ports=[{"port": 443}]),
            [vip("a", held=["203.0.113.10"])],
            ["203.0.113.10"],
            id="VIPs of one namespace share an address by port",
        ),
        pytest.param(
            vip(addresses=["203.0.113.10"], ports=[{"port": 80, "protocol": "UDP"}], healthCheck={"type": "None"}),
            [vip("a", held=["203.0.113.10"])],
            ["203.0.113.10"],
            id="and by protocol",
        ),
        pytest.param(
            vip(held=["203.0.113.11"], addresses=["203.0.113.12"]), [], ["203.0.113.12"], id="an edit moves the VIP"
        ),
        pytest.param(
            vip(held=["203.0.113.11", "203.0.113.12"]), [], ["203.0.113.11"], id="one per family when none is chosen"
        ),
    ],
)
def test_addresses_are_given(mine: Any, others: list[Any], expected: list[str]) -> None:
    found = assign(mine, world(mine, *others))
    assert found.problem is None
    assert addresses(found) == expected


@pytest.mark.parametrize(
    ("mine", "others", "message", "kept"),
    [
        pytest.param(
            vip(addresses=["203.0.113.10"], age=5),
            [vip("a", age=9, addresses=["203.0.113.10"])],
            "203.0.113.10:80/TCP is held by shop/a;",
            [],
            id="of two claimants the older wins",
        ),
        pytest.param(
            vip("b", addresses=["203.0.113.10"]),
            [vip("a", addresses=["203.0.113.10"])],
            "is held by shop/a;",
            [],
            id="of equally old ones the lower UID",
        ),
        pytest.param(
            vip(addresses=["203.0.113.10"], ports=[{"port": 443}]),
            [vip("a", "bank", held=["203.0.113.10"])],
            "203.0.113.10 is held by bank/a; only VIPs of one namespace",
            [],
            id="namespaces do not share",
        ),
        pytest.param(
            vip(addresses=["203.0.113.10"], ports=[{"port": 443}], dataPlaneName="core"),
            [vip("a", held=["203.0.113.10"], servedBy="edge")],
            "only VIPs of one namespace and one DataPlane",
            [],
            id="DataPlanes do not share",
        ),
        pytest.param(
            vip(held=["203.0.113.11"], addresses=["203.0.113.10"]),
            [vip("a", held=["203.0.113.10"])],
            "203.0.113.10:80/TCP is held by shop/a; choose another address or port",
            ["203.0.113.11"],
            id="a bad edit keeps what is held",
        ),
        pytest.param(
            vip(addresses=["203.0.113.10", "203.0.113.11"]),
            [vip("a", held=["203.0.113.10"])],
            "is held by shop/a",
            [],
            id="all of the chosen addresses or none",
        ),
        pytest.param(
            vip(held=["203.0.113.10"], heldPorts=[80], ports=[{"port": 80}, {"port": 443}], generation=2, age=900),
            [vip("a", held=["203.0.113.10"], ports=[{"port": 443}], age=1)],
            "203.0.113.10:443/TCP is held by shop/a; choose another address or port",
            ["203.0.113.10"],
            id="an edit does not take a port that another holds, however young",
        ),
    ],
)
def test_conflicts_name_the_holder(mine: Any, others: list[Any], message: str, kept: list[str]) -> None:
    found = assign(mine, world(mine, *others))
    assert found.problem is not None
    assert message in found.problem.message
    assert addresses(found) == kept


@pytest.mark.parametrize(
    ("spec", "pools", "reason", "message"),
    [
        ({"addresses": ["198.51.100.1"]}, None, "AddressNotAllowed", "public has 203.0.113.10-203.0.113.12"),
        ({"addresses": ["198.51.100.1"]}, [], "AddressNotAllowed", "there is none, create one"),
        (
            {"addresses": ["203.0.113.10"]},
            [pool("203.0.113.10", namespaces=["bank"])],
            "AddressNotAllowed",
            "namespace shop may not use",
        ),
        (
            {"addresses": ["203.0.113.10"], "addressPool": "other"},
            None,
            "AddressNotAllowed",
            "not to spec.addressPool other",
        ),
        ({}, [], "PoolNotFound", "no AddressPool with IPv4 addresses and autoAssign is open to namespace shop"),
        ({}, [pool("203.0.113.10", autoAssign=False)], "PoolNotFound", "autoAssign"),
        ({"addressPool": "absent"}, None, "PoolNotFound", "AddressPool absent does not exist (there is: public)"),
        (
            {"addressPool": "public"},
            [pool("203.0.113.10", namespaces=["bank"])],
            "AddressNotAllowed",
            "is not open to namespace shop",
        ),
        ({"addressPool": "public"}, [pool("2001:db8::1")], "NoAddressAvailable", "has no IPv4 addresses"),
        (
            {"addressPool": "young"},
            [pool("203.0.113.0/24"), pool("203.0.113.9", name="young", age=1)],
            "PoolNotFound",
            "cannot be used: spec.addresses: 203.0.113.9 overlaps",
        ),
        ({"addresses": ["192.0.2.1"]}, [pool("192.0.2.0/24")], "AddressNotAllowed", "192.0.2.1 is of node lb-1"),
        (
            {"addresses": ["192.0.2.7"]},
            [pool("192.0.2.0/24")],
            "AddressNotAllowed",
            "192.0.2.7 is of Service default/api",
        ),
        (
            {"addresses": ["10.244.1.9"]},
            None,
            "AddressNotAllowed",
            "10.244.1.9 is in the pod network 10.244.1.0/24 of node lb-1",
        ),
        ({"addresses": ["10.96.0.9"]}, None, "AddressNotAllowed", "in the Service network 10.96.0.0/16"),
        ({"addresses": ["172.16.0.9"]}, None, "AddressNotAllowed", "in the reserved network 172.16.0.0/12"),
    ],
)
def test_refusals_name_the_fix(spec: dict[str, Any], pools: Any, reason: str, message: str) -> None:
    mine = vip(**spec)
    surroundings = world(
        mine,
        pools=pools,
        nodes=[node(pods=["10.244.1.0/24"])],
        services=[ServiceFacts(("default", "api"), (ip_address("192.0.2.7"),))],
        service_networks=[ip_network("10.96.0.0/16")],
        extra=[ip_network("172.16.0.0/12")],
    )
    found = assign(mine, surroundings)
    assert found.problem is not None
    assert found.problem.reason == reason
    assert message in found.problem.message
    assert found.addresses == ()


def test_families_get_an_address_each() -> None:
    mine = vip(addressFamilies=["IPv4", "IPv6"])
    pools = [pool("203.0.113.0/30", name="four"), pool("2001:db8::/64", name="six")]
    assert addresses(assign(mine, world(mine, pools=pools))) == ["203.0.113.1", "2001:db8::1"]
    half = assign(mine, world(mine, pools=pools[:1]))
    assert half.addresses == ()  # both families or none
    assert half.problem is not None
    assert "IPv6" in half.problem.message


MOVE: dict[str, Any] = {"annotations": {"penstock.dev/move-address": "true"}}
GRAB = ServiceFacts(("other", "grab"), (ip_address("203.0.113.10"),), ("spec.externalIPs",))


@pytest.mark.parametrize("chosen", [True, False], ids=["chosen", "allocated"])
@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        pytest.param({"services": [GRAB]}, "AddressConflict", "of Service other/grab (spec.externalIPs)", id="Service"),
        pytest.param({"nodes": [node("lb-9", "203.0.113.10")]}, "AddressConflict", "of node lb-9", id="node"),
        pytest.param(
            {"nodes": [node(pods=["203.0.113.0/24"])]}, "AddressConflict", "203.0.113.0/24 of node lb-1", id="pods"
        ),
        pytest.param(
            {"service_networks": [ip_network("203.0.113.0/28")]}, "AddressConflict", "Service network", id="ServiceCIDR"
        ),
        pytest.param({"extra": [ip_network("203.0.113.0/28")]}, "AddressConflict", "reserved network", id="setting"),
        pytest.param({"pools": []}, "AddressNotAllowed", "is in no usable AddressPool any more", id="pool deleted"),
        pytest.param({"pools": [pool("203.0.113.12")]}, "AddressNotAllowed", "in no usable", id="pool shrunk"),
        pytest.param(
            {"pools": [pool("203.0.113.10-203.0.113.12", namespaces=["bank"])]},
            "AddressNotAllowed",
            "AddressPool public, which is not open to this namespace any more",
            id="pool closed",
        ),
        pytest.param(
            {"pools": [pool("203.0.113.8/29", age=9, name="old"), pool("203.0.113.0/24", namespaces=["x"])]},
            "AddressNotAllowed",
            "not open",
            id="pool hidden by an older one",
        ),
    ],
)
def test_a_holder_keeps_its_address_and_is_warned(
    chosen: bool, changes: dict[str, Any], reason: str, message: str
) -> None:
    spec: dict[str, Any] = {"addresses": ["203.0.113.10"]} if chosen else {}
    mine = vip(held=["203.0.113.10"], **spec)
    found = assign(mine, world(mine, **changes))
    assert (addresses(found), found.problem) == (["203.0.113.10"], None)
    assert [warning.reason for warning in found.warnings] == [reason]
    assert message in found.warnings[0].message
    assert ("spec.addresses" if chosen else "penstock.dev/move-address") in found.warnings[0].message
    edited = vip(held=["203.0.113.10"], generation=2, heldPorts=[80], ports=[{"port": 80}, {"port": 443}], **spec)
    assert addresses(assign(edited, world(edited, **changes))) == ["203.0.113.10"]  # an edit of something else


def test_an_annotation_moves_an_allocated_address_that_is_claimed() -> None:
    mine = vip(held=["203.0.113.10"], **MOVE)
    found = assign(mine, world(mine))
    assert addresses(found) == ["203.0.113.10"]  # there is no reason to move
    found = assign(mine, world(mine, services=[GRAB]))
    assert (addresses(found), found.problem, found.warnings) == (["203.0.113.11"], None, ())
    found = assign(mine, world(mine, services=[GRAB], pools=[pool("203.0.113.10")]))
    assert addresses(found) == ["203.0.113.10"]  # no other address is free
    assert "of Service other/grab" in found.warnings[0].message
    chosen = vip(held=["203.0.113.10"], addresses=["203.0.113.10"], **MOVE)
    assert addresses(assign(chosen, world(chosen, services=[GRAB]))) == ["203.0.113.10"]


def test_naming_another_pool_moves_a_vip() -> None:
    pools = [pool("203.0.113.10"), pool("198.51.100.1", name="other", age=1)]
    mine = vip(held=["203.0.113.10"], addressPool="other", givenFor="public")
    assert addresses(assign(mine, world(mine, pools=pools))) == ["198.51.100.1"]
    full = world(mine, vip("a", held=["198.51.100.1"]), pools=pools)
    found = assign(mine, full)
    assert addresses(found) == ["203.0.113.10"]
    assert found.problem is not None
    assert "AddressPool other" in found.problem.message
    assert "203.0.113.10 is kept" in found.problem.message
    given = vip(held=["203.0.113.10"], addressPool="other", givenFor="other")  # the pool lost the address later
    assert addresses(assign(given, world(given, pools=pools))) == ["203.0.113.10"]
    none = vip(held=["203.0.113.10"], givenFor="other")
    assert addresses(assign(none, world(none, pools=pools))) == ["203.0.113.10"]
    chosen = vip(held=["203.0.113.10"], addresses=["203.0.113.10"], addressPool="other", givenFor="public")
    found = assign(chosen, world(chosen, pools=pools))
    assert addresses(found) == ["203.0.113.10"]
    assert found.problem is not None
    assert "not to spec.addressPool other" in found.problem.message


def test_a_namespace_holds_no_more_addresses_than_its_quota() -> None:
    pools = [pool("203.0.113.10-203.0.113.15", addressesPerNamespace=2)]
    first = [vip("a", held=["203.0.113.10"]), vip("b", held=["203.0.113.11"]), vip("c", "bank", held=["203.0.113.12"])]
    for wanted in ({}, {"addresses": ["203.0.113.14"]}, {"addressPool": "public"}):
        mine = vip(**wanted)
        found = assign(mine, world(mine, *first, pools=pools))
        assert found.problem is not None
        assert found.problem.reason == "QuotaExceeded"
        assert "namespace shop holds 2 of 2 addresses that AddressPool public allows" in found.problem.message
    sharing = vip(addresses=["203.0.113.10"], ports=[{"port": 443}])
    assert assign(sharing, world(sharing, *first, pools=pools)).problem is None
    moving_ = vip("b", held=["203.0.113.11"], addresses=["203.0.113.15"])
    assert assign(moving_, world(first[0], moving_, pools=pools)).problem is None
    other = vip(namespace="bank")
    assert addresses(assign(other, world(other, *first, pools=pools))) == ["203.0.113.13"]
    lowered = [pool("203.0.113.10-203.0.113.15", addressesPerNamespace=1)]
    assert assign(first[1], world(*first, pools=lowered)).problem is None  # what is held stays
    more = [*lowered, pool("198.51.100.1", name="second", age=1)]
    mine = vip()
    assert addresses(assign(mine, world(mine, *first, pools=more))) == ["198.51.100.1"]
    pair = vip(addresses=["203.0.113.14", "203.0.113.15"])
    found = assign(pair, world(pair, pools=lowered))
    assert found.problem is not None
    assert "holds 0 of 1" in found.problem.message


def test_no_vip_is_given_an_address_that_another_forwards_to() -> None:
    """The other would lose its server."""
    endpoints = {"endpoints": [{"address": "203.0.113.11", "port": 80}]}
    live = vip("a", held=["203.0.113.10"], backends=endpoints)
    mine = vip(addresses=["203.0.113.11"], age=900)
    found = assign(mine, world(mine, live))
    assert found.problem is not None
    assert "203.0.113.11 is an endpoint of VIP shop/a" in found.problem.message
    assert addresses(assign(vip(), world(vip(), live))) == ["203.0.113.12"]
    idle = vip("a", backends=endpoints)  # never accepted
    assert addresses(assign(mine, world(mine, idle))) == ["203.0.113.11"]


def test_a_status_without_ports_holds_those_of_the_spec() -> None:
    """An earlier version wrote none."""
    old = vip("a", held=["203.0.113.10"], heldPorts=[], age=1)
    mine = vip(addresses=["203.0.113.10"])
    assert assign(mine, world(mine, old)).problem is not None
    assert addresses(assign(old, world(mine, old))) == ["203.0.113.10"]


def test_switching_auto_assign_off_takes_nothing_away() -> None:
    mine = vip(held=["203.0.113.10"])
    found = assign(mine, world(mine, pools=[pool("203.0.113.10", autoAssign=False)]))
    assert (addresses(found), found.problem) == (["203.0.113.10"], None)


def test_an_unreadable_vip_keeps_its_address() -> None:
    raw = {
        "metadata": {"name": "future", "namespace": "shop", "uid": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"forwarding": "Teleport"},
        "status": {"addresses": ["203.0.113.10"]},
    }
    mine = vip(addresses=["203.0.113.10"], ports=[{"port": 443}])
    surroundings = world(mine)
    surroundings.ledger.put(Claim.of_unreadable(raw))
    found = assign(mine, surroundings)
    assert found.problem is not None
    assert "203.0.113.10 is held by shop/future" in found.problem.message


def test_a_paused_claim_stands_in_nobodys_way() -> None:
    mine = vip(addresses=["203.0.113.10"], age=1)
    older = vip("a", addresses=["203.0.113.10"], age=900, annotations={"penstock.dev/paused": "true"})
    found = assign(mine, world(mine, older))
    assert (addresses(found), found.problem) == (["203.0.113.10"], None)

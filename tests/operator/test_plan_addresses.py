"""Tables of allocation and acceptance: no cluster, one line per case."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.plan.acceptance import Neighbours, judge
from penstock_operator.plan.allocation import World, assign
from penstock_operator.plan.facts import NodeFacts, ServiceFacts
from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools, pool_status, pool_use
from penstock_operator.plan.reserved import Reserved
from plan_builders import NOW, data_plane, node, policy, pool, vip


def world(*vips: Any, pools: Any = None, **reserved: Any) -> World:
    found = Reserved(**reserved)
    ledger = Ledger()
    for each in vips:
        ledger.put(Claim.of(each))
    return World(Pools([pool("203.0.113.10-203.0.113.12")] if pools is None else pools, found), found, ledger)


def addresses(found: Any) -> list[str]:
    return [str(address) for address in found.addresses]


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


MOVE = {"annotations": {"penstock.dev/move-address": "true"}}
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
    spec = {"addresses": ["203.0.113.10"]} if chosen else {}
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


def test_vips_of_one_address_stay_with_one_data_plane() -> None:
    mine = vip(held=["203.0.113.10"], ports=[{"port": 443}], servedBy="gone")
    friend = vip("a", held=["203.0.113.10"], servedBy="edge", dataPlaneName="edge")
    planes = {"edge": data_plane(default=False), "core": data_plane("core")}
    verdict = judge(mine, Neighbours(planes), world(mine, friend))
    assert verdict.data_plane is None  # so nobody serves the address twice
    assert verdict.addresses == mine.status.addresses
    assert verdict.problem is not None
    assert "shared with VIP shop/a, which DataPlane edge serves" in verdict.problem.message
    assert judge(mine, Neighbours(planes), world(mine)).data_plane is planes["core"]


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


@pytest.mark.parametrize(
    ("spec", "neighbours", "reason", "message"),
    [
        ({"dataPlaneName": "core"}, {}, "DataPlaneNotFound", "does not exist (there is: edge)"),
        ({"dataPlaneName": "edge"}, {"deleting": True}, "DataPlaneNotFound", "is being deleted"),
        ({}, {"default": False}, "DataPlaneNotFound", "no DataPlane is annotated"),
        ({}, {"second": True}, "DataPlaneNotFound", "several DataPlanes are annotated"),
        ({}, {"service_exists": False}, "ServiceNotFound", "Service shop/web does not exist"),
        (
            {"backends": {"endpoints": [{"address": "198.51.100.1", "port": 80}]}},
            {},
            "EndpointNotAllowed",
            "spec.backends.endpoints[0]: 198.51.100.1 is outside",
        ),
        (
            {"backends": {"endpoints": [{"address": "203.0.113.12", "port": 80}]}},
            {"cidrs": ["203.0.113.0/24"]},
            "EndpointNotAllowed",
            "is an address of a VIP",
        ),
    ],
)
def test_what_a_vip_refers_to_is_checked(
    spec: dict[str, Any], neighbours: dict[str, Any], reason: str, message: str
) -> None:
    mine = vip(**spec)
    edge = data_plane(
        default=neighbours.get("default", True),
        deleting=neighbours.get("deleting", False),
        staticEndpointCIDRs=neighbours.get("cidrs", []),
    )
    planes = {"edge": edge} | ({"second": data_plane("second")} if neighbours.get("second") else {})
    verdict = judge(
        mine,
        Neighbours(planes, neighbours.get("service_exists", True)),
        world(mine, vip("other", held=["203.0.113.12"])),
    )
    assert verdict.problem is not None
    assert verdict.problem.reason == reason
    assert message in verdict.problem.message


def test_a_missing_policy_is_only_a_warning() -> None:
    mine = vip(policyName="clever")
    verdict = judge(mine, Neighbours({"edge": data_plane()}), world(mine))
    assert verdict.accepted
    assert "lsq is used" in verdict.warnings[0].message
    assert "there is: none" in verdict.warnings[0].message
    others = Neighbours({"edge": data_plane()}, policy_names=("slow", "fast"))
    assert "there is: fast, slow" in judge(mine, others, world(mine)).warnings[0].message
    verdict = judge(mine, Neighbours({"edge": data_plane()}, policy=policy("clever")), world(mine))
    assert verdict.warnings == ()


def test_moving_the_default_moves_no_vip_in_service() -> None:
    mine = vip(held=["203.0.113.10"], servedBy="edge")
    planes = {"edge": data_plane(default=False), "core": data_plane("core")}
    verdict = judge(mine, Neighbours(planes), world(mine))
    assert verdict.data_plane is planes["edge"]


def test_facts_are_cut_out_of_kubernetes_objects() -> None:
    raw = {
        "metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}},
        "spec": {"podCIDRs": ["10.0.1.0/24", "2001:db8:1::/64"], "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "192.0.2.2"},
                {"type": "Hostname", "address": "a.example"},
            ],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }
    found = NodeFacts.from_raw(raw)
    assert [str(address) for address in found.primary()] == ["192.0.2.1", "2001:db8::1"]
    assert len(found.addresses) == 3
    assert found.ready
    service = ServiceFacts.from_raw(
        {
            "metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["198.51.100.1"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "x.example"}]}},
        }
    )
    assert [str(address) for address in service.addresses] == ["198.51.100.1", "198.51.100.2"]


TEN, ELEVEN, TWELVE = "203.0.113.10", "203.0.113.11", "203.0.113.12"


def moving(name: str, held: str, wanted: str, *, age: int = 60, generation: int = 2, seen: int = 1, **more: Any) -> Any:
    """A VIP that holds one address and asks for another."""
    return vip(name, age=age, held=[held], addresses=[wanted], generation=generation, seen=seen, **more)


def settle(vips: list[Any], order: list[int], **options: Any) -> dict[str, list[str]]:
    """Let an operator look at VIPs in an order, again and again, as its queue would; returns what each holds."""
    current = {each.metadata.name: each for each in vips}
    found = world(*vips, **options)
    for _ in range(len(vips) + 1):
        for index in order:
            each = current[vips[index].metadata.name]
            given = assign(each, found).addresses
            status = each.status.model_copy(
                update={"addresses": given, "observed_generation": each.metadata.generation}
            )
            current[each.metadata.name] = each.model_copy(update={"status": status})
            found.ledger.put(Claim.of(current[each.metadata.name]))
    return {name: [str(a) for a in each.status.addresses] for name, each in current.items()}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]])
@pytest.mark.parametrize("seen", [1, 2], ids=["just edited", "refused before"])
class TestExchange:
    def test_two_vips_exchange_their_addresses(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TEN, seen=seen),
            vip("c", held=[TWELVE]),
        ]
        assert settle(vips, order) == {"a": [ELEVEN], "b": [TEN], "c": [TWELVE]}

    def test_three_vips_move_on_by_one(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TWELVE, seen=seen),
            moving("c", TWELVE, TEN, age=99, seen=seen),
        ]
        assert settle(vips, order) == {"a": [ELEVEN], "b": [TWELVE], "c": [TEN]}

    def test_a_row_moves_up_when_its_end_is_free(self, order: list[int], seen: int) -> None:
        vips = [moving("a", TEN, ELEVEN, age=9, seen=seen), moving("b", ELEVEN, TWELVE, seen=seen)]
        assert settle(vips, [n for n in order if n < 2]) == {"a": [ELEVEN], "b": [TWELVE]}

    def test_nobody_moves_when_the_last_cannot(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TWELVE, seen=seen),
            vip("c", held=[TWELVE]),
        ]
        assert settle(vips, order) == {"a": [TEN], "b": [ELEVEN], "c": [TWELVE]}

    def test_nobody_moves_when_one_asks_for_what_it_may_not_have(self, order: list[int], seen: int) -> None:
        vips = [moving("a", TEN, ELEVEN, age=9, seen=seen), moving("b", ELEVEN, "198.51.100.1", seen=seen)]
        assert settle([*vips, vip("c", held=[TWELVE])], order) == {"a": [TEN], "b": [ELEVEN], "c": [TWELVE]}

    def test_a_paused_vip_does_not_move(self, order: list[int], seen: int) -> None:
        paused = moving("b", ELEVEN, TEN, seen=seen, annotations={"penstock.dev/paused": "true"})
        found = world(mine := moving("a", TEN, ELEVEN, seen=seen), paused, vip("c", held=[TWELVE]))
        assert addresses(assign(mine, found)) == [TEN]
        assert order


@given(
    wishes=st.lists(st.integers(10, 14), min_size=2, max_size=5),
    refused=st.lists(st.booleans(), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_whoever_wants_what_no_address_ends_with_two_holders(
    wishes: list[int], refused: list[bool], order: list[int]
) -> None:
    vips = [
        moving(f"vip-{n}", f"203.0.113.{10 + n}", f"203.0.113.{wish}", age=50 - n, seen=2 if refused[n] else 1)
        for n, wish in enumerate(wishes)
    ]
    held = settle(vips, [n for n in order if n < len(vips)], pools=[pool("203.0.113.8/29")])
    given = [address for addresses in held.values() for address in addresses]
    assert len(given) == len(set(given)) == len(vips)


def test_a_paused_claim_stands_in_nobodys_way() -> None:
    mine = vip(addresses=["203.0.113.10"], age=1)
    older = vip("a", addresses=["203.0.113.10"], age=900, annotations={"penstock.dev/paused": "true"})
    found = assign(mine, world(mine, older))
    assert (addresses(found), found.problem) == (["203.0.113.10"], None)

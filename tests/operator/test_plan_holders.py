"""Whatever other objects become, a VIP keeps the addresses that it holds, and no two VIPs hold the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_api import LoadBalancerVIP
from penstock_operator.plan.acceptance import Neighbours, judge
from penstock_operator.plan.allocation import World
from penstock_operator.plan.facts import NodeFacts, ServiceFacts
from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools
from penstock_operator.plan.reserved import Reserved

from tests.support.plan_builders import data_plane, node, pool, vip

ADDRESSES = [f"203.0.113.{last}" for last in range(8, 16)]
HOLDERS = ("web", "api")  # VIPs that nobody edits


@dataclass
class Operator:
    """Objects of a cluster, and an operator that decides on VIPs one after another."""

    pools: dict[str, Any] = field(default_factory=lambda: {"public": pool("203.0.113.8/29", age=50)})
    services: dict[str, ServiceFacts] = field(default_factory=dict)
    nodes: dict[str, NodeFacts] = field(default_factory=dict)
    networks: list[Any] = field(default_factory=list)
    planes: dict[str, Any] = field(default_factory=lambda: {"edge": data_plane(), "core": data_plane(default=False)})
    vips: dict[tuple[str, str], LoadBalancerVIP] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def restart(self) -> None:
        self.ledger = Ledger()
        for each in self.vips.values():
            self.ledger.put(Claim.of(each))

    def write(self, each: LoadBalancerVIP) -> None:
        self.vips[each.metadata.namespace, each.metadata.name] = each
        self.ledger.put(Claim.of(each))

    def delete(self, name: tuple[str, str]) -> None:
        self.vips.pop(name, None)
        self.ledger.remove(name)

    def decide(self, name: tuple[str, str]) -> None:
        each = self.vips[name]
        reserved = Reserved(self.nodes.values(), self.services.values(), self.networks)
        world = World(Pools(self.pools.values(), reserved), reserved, self.ledger)
        verdict = judge(each, Neighbours(self.planes), world)
        changes = {
            "addresses": verdict.addresses,
            "ports": verdict.ports,
            "address_pool": verdict.address_pool,
            "data_plane_name": verdict.data_plane.metadata.name if verdict.data_plane else None,
            "observed_generation": each.metadata.generation,
        }
        self.write(each.model_copy(update={"status": each.status.model_copy(update=changes)}))


address = st.sampled_from(ADDRESSES)
network = st.sampled_from(["203.0.113.8/30", "203.0.113.12/30", "203.0.113.0/24", "198.51.100.0/24"])
rival = st.tuples(st.sampled_from(["shop", "bank"]), st.sampled_from(["aaa", "rival", "zzz"]))


@st.composite
def rival_vips(draw: st.DrawFn) -> LoadBalancerVIP:
    """A VIP of somebody else, of any name and age, old or edited just now."""
    namespace, name = draw(rival)
    spec: dict[str, Any] = {"ports": [{"port": port} for port in draw(st.sets(st.sampled_from([80, 443]), min_size=1))]}
    if wanted := draw(st.lists(address, unique=True, max_size=2)):
        spec["addresses"] = wanted
    if draw(st.booleans()):
        spec["addressPool"] = draw(st.sampled_from(["public", "second"]))
    return vip(name, namespace, age=draw(st.integers(0, 1000)), **spec)


events = st.one_of(
    st.tuples(st.just("service"), st.sampled_from(["a", "b"]), st.lists(address, max_size=3)),
    st.tuples(st.just("node"), st.sampled_from(["n-1", "n-2"]), address, st.lists(network, max_size=1)),
    st.tuples(st.just("networks"), st.lists(network, max_size=2)),
    st.tuples(
        st.just("pool"),
        st.sampled_from(["public", "second"]),
        st.lists(
            st.sampled_from([*ADDRESSES, "203.0.113.8/29", "198.51.100.0/28"]), unique=True, min_size=1, max_size=3
        ),
        st.integers(0, 100),
        st.sampled_from([None, ["bank"], ["shop", "bank"]]),
        st.sampled_from([None, 1, 2]),
    ),
    st.tuples(st.just("no pool"), st.sampled_from(["public", "second"])),
    st.tuples(st.just("planes"), st.sampled_from([["edge"], ["core"], [], ["edge", "core"]]), st.booleans()),
    st.tuples(st.just("vip"), rival_vips()),
    st.tuples(st.just("no vip"), rival),
    st.tuples(st.just("restart")),
)


def happen(cluster: Operator, event: tuple[Any, ...]) -> None:
    match event:
        case "service", name, addresses:
            fields = ("spec.externalIPs",) * len(addresses)
            cluster.services[name] = ServiceFacts(("other", name), tuple(map(ip_address, addresses)), fields)
        case "node", name, own, networks:
            cluster.nodes[name] = node(name, own, pods=networks)
        case "networks", networks:
            cluster.networks = [ip_network(text) for text in networks]
        case "pool", name, blocks, age, namespaces, quota:
            spec = {"namespaces": namespaces, "addressesPerNamespace": quota}
            cluster.pools[name] = pool(*blocks, name=name, age=age, **{k: v for k, v in spec.items() if v})
        case "no pool", name:
            cluster.pools.pop(name, None)
        case "planes", names, default:
            cluster.planes = {name: data_plane(name, default=default) for name in names}
        case "vip", each:
            before = cluster.vips.get((each.metadata.namespace, each.metadata.name))
            if before is not None:  # an edit
                metadata = before.metadata.model_copy(update={"generation": before.metadata.generation + 1})
                each = before.model_copy(update={"metadata": metadata, "spec": each.spec})
            cluster.write(each)
        case "no vip", name:
            cluster.delete(name)
        case _:
            cluster.restart()


@given(
    st.lists(events, max_size=12),
    st.randoms(use_true_random=False),
    st.lists(st.booleans(), min_size=2, max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_others_write_takes_a_held_address(
    happening: list[tuple[Any, ...]], random: Any, chosen: list[bool]
) -> None:
    cluster = Operator()
    for name, picks in zip(HOLDERS, chosen, strict=True):
        spec: dict[str, Any] = {"addresses": ["203.0.113.12"]} if picks and name == "web" else {}
        cluster.write(vip(name, age=10, **spec))
        cluster.decide(("shop", name))
    held = {name: cluster.vips["shop", name].status.addresses for name in HOLDERS}
    assert all(held.values())
    for event in happening:
        happen(cluster, event)
        for _ in range(2):
            order = sorted(cluster.vips)
            random.shuffle(order)
            for key in order:
                cluster.decide(key)
        assert {name: cluster.vips["shop", name].status.addresses for name in HOLDERS} == held
        _nothing_is_held_twice(cluster)


def _nothing_is_held_twice(cluster: Operator) -> None:
    for one, two in combinations(cluster.vips.values(), 2):
        if set(one.status.addresses) & set(two.status.addresses):
            assert one.metadata.namespace == two.metadata.namespace
            assert not {(p.port, p.protocol) for p in one.status.ports} & {
                (p.port, p.protocol) for p in two.status.ports
            }

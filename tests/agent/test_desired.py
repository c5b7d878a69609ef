"""Kinds to the desired state of one data plane."""

from __future__ import annotations

import hashlib
from datetime import datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent import desired
from penstock_agent.building import Builder
from penstock_agent.desired import Memo, Plan, Served, plan
from penstock_agent.health_overlay import Standing, desired_state
from penstock_agent.slices import Slice, SliceEndpoint, SlicePort
from penstock_embedded.messages import BackendState, SchedulerType
from penstock_embedded.settings import Settings as EmbeddedSettings
from penstock_vpp.startup import Startup

from tests.support.agent_objects import WEB, node, of_service, planned, policy, snapshot, vip

ACTIVE, FAILED = BackendState.ACTIVE, BackendState.FAILED


def errors(result):
    return {found.owner.name: found.errors for found in result.findings}


def sent(result, *, failed=(), last=None, announced=()):
    return desired_state(result, lambda target: Standing(str(target.address) not in failed), last, announced)


def test_one_port_of_one_family_is_one_core_vip():
    result = planned(
        vip(
            addresses=("203.0.113.10", "203.0.113.11", "2001:db8::10"),
            addressFamilies=["IPv4", "IPv6"],
            ports=[{"port": 80}, {"port": 443}],
        )
    )
    assert [(core.vip.key, len(core.vip.addresses)) for core in result.vips] == [
        ("shop/web:80/TCP/IPv4", 2),
        ("shop/web:80/TCP/IPv6", 1),
        ("shop/web:443/TCP/IPv4", 2),
        ("shop/web:443/TCP/IPv6", 1),
    ]
    assert result.vips[0].vip.id == hashlib.sha256(b"uid-web/TCP/80/IPv4").hexdigest()[:16]


def test_status_addresses_are_programmed_never_those_of_the_spec():
    result = planned(vip(addresses=("203.0.113.99",)))
    assert [str(a) for a in result.vips[0].vip.addresses] == ["203.0.113.99"]


def test_fields_arrive_at_the_data_plane():
    core = planned(
        vip(
            affinity="ClientIP",
            drainSeconds=7,
            timeouts={"tcpEstablishedSeconds": 77},
            healthCheck={"type": "HTTP", "path": "/up", "port": 9000, "expectedStatuses": ["200", "300-301"]},
        )
    ).vips[0]
    assert core.vip.client_affinity
    assert core.vip.scheduler.type is SchedulerType.MAGLEV
    assert core.vip.drain_timeout == 7
    assert core.vip.timeouts.tcp_established == 77
    assert core.check is not None
    assert core.check.statuses == ((200, 200), (300, 301))
    assert core.targets["10.0.0.1"].port == 9000


@pytest.mark.parametrize(
    ("spec", "scheduler"),
    [
        ({"heuristic": "little"}, "sed"),
        ({"heuristic": "equal"}, "maglev"),
        ({"heuristic": "little", "scheduler": "maglev"}, "maglev"),
        ({"heuristic": "little", "mode": "Shadow", "fallback": "lsq"}, "lsq"),
        ({"heuristic": "little", "mode": "Off", "fallback": "static"}, "maglev"),
    ],
)
def test_the_scheduler_follows_what_is_in_force(spec, scheduler):
    result = planned(vip(policyName="p"), policies={("shop", "p"): policy(**spec)})
    assert result.vips[0].vip.scheduler.type == scheduler


def test_active_flows_count_as_load_where_they_are_measured():
    policies = {("shop", "p"): policy(heuristic="lsq", load="Active")}
    result = planned(vip(policyName="p"), policies=policies, node=node(features="full"))
    assert result.vips[0].vip.scheduler.load == "active"
    assert not result.findings[0].warnings
    result = planned(vip(policyName="p"), policies=policies, node=node(features="basic"))
    assert "features: full" in result.findings[0].warnings[0]


def test_without_policy_least_loaded():
    core = planned(vip()).vips[0]
    assert (core.policy.heuristic, core.vip.scheduler.type) == ("lsq", "lsq")


def test_a_missing_policy_is_said_and_least_loaded_used():
    result = planned(vip(policyName="gone"))
    assert result.vips[0].policy.heuristic == "lsq"
    assert not errors(result)["web"]  # traffic is served
    assert "no RLPolicy shop/gone" in result.findings[0].warnings[0]


def test_measuring_policies_need_features():
    result = planned(vip(policyName="p"), policies={("shop", "p"): policy()}, node=node(features="off"))
    assert result.vips[0].policy.mode == "Off"
    assert "features: off" in result.findings[0].warnings[0]


@pytest.mark.parametrize("of", [{}, {"policyName": "p"}])
def test_what_the_data_plane_was_told_takes_the_policys_place(of):
    result = planned(vip(**of), policies={("shop", "p"): policy(scheduler="maglev")}, override="sed")
    core = result.vips[0]
    assert (core.policy.heuristic, core.vip.scheduler.type) == ("sed", "sed")
    assert "`lb rl agent sed`" in result.findings[0].warnings[0]
    assert planned(vip(**of), policies={("shop", "p"): policy()}).findings[0].warnings == ()


def test_without_measurements_what_the_data_plane_was_told_is_off():
    result = planned(vip(), node=node(features="off"), override="little")
    assert result.vips[0].policy.mode == "Off"
    assert "features: off" in result.findings[0].warnings[1]


def test_a_policy_that_nobody_knows_changes_nothing_and_is_said():
    policies = {("shop", "p"): policy()}
    result = planned(vip(policyName="p"), policies=policies, override="lqs")
    assert result.vips == planned(vip(policyName="p"), policies=policies).vips
    (warning,) = result.findings[0].warnings
    assert "'lqs' is not known; use one of bayes, equal, " in warning
    assert "little stays" in warning


def test_static_endpoints_outside_the_allowed_networks_are_refused():
    result = planned(vip(backends={"endpoints": [{"address": "10.0.0.1"}, {"address": "172.16.0.1"}]}))
    assert [b.id for b in result.vips[0].vip.backends] == ["10.0.0.1"]
    (note,) = result.findings[0].notes
    assert (note.reason, note.field) == ("EndpointNotAllowed", "spec.backends.endpoints[1].address")
    assert "172.16.0.1 lies in no network of the DataPlane's staticEndpointCIDRs" in note.message
    assert result.vips[0].shortfall is None


def test_static_endpoints_that_are_all_refused_are_the_reason_why_nothing_is_served():
    result = planned(vip(backends={"endpoints": [{"address": "172.16.0.1"}]}))
    assert result.vips[0].shortfall.reason == "EndpointNotAllowed"


def test_one_vip_that_cannot_be_planned_stays_as_it_was(monkeypatch):
    before = planned(vip("a"), vip("b", addresses=("203.0.113.11",)))
    build = Builder.build

    def fail(builder):
        if builder._owner.name == "a":
            raise ZeroDivisionError("by accident")
        return build(builder)

    monkeypatch.setattr(Builder, "build", fail)
    edited = vip("b", addresses=("203.0.113.11",), drainSeconds=1)
    after = planned(vip("a", drainSeconds=1), edited, previous=before)
    assert [core.vip.drain_timeout for core in after.vips] == [300, 1]
    assert "ZeroDivisionError: by accident" in errors(after)["a"][0]


def test_times_without_a_zone_are_ordered():
    undated = vip("a")
    metadata = undated.vip.metadata.model_copy(update={"creation_timestamp": datetime(2024, 1, 1)})
    undated = Served(undated.vip.model_copy(update={"metadata": metadata}), undated.addresses)
    assert [core.owner.name for core in planned(undated, vip("b", year=2025)).vips] == ["a"]


def test_an_unreadable_policy_is_said():
    result = planned(vip(policyName="p"), unreadable_policies={("shop", "p"): "spec.heuristic: is required"})
    assert result.vips[0].policy.heuristic == "lsq"
    assert "spec.heuristic: is required" in result.findings[0].warnings[0]


TEN, ELEVEN = ("203.0.113.10",), ("203.0.113.11",)
PAUSED = {"penstock.dev/paused": "true"}


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ({"year": 2025}, {"year": 2024}, "b"),  # the older
        ({}, {}, "a"),  # of one age, by name
        ({"wanted": TEN}, {"wanted": ELEVEN, "year": 2024}, "a"),  # the other one is about to leave
        ({}, {"wanted": ELEVEN, "year": 2024}, "a"),
        ({"wanted": TEN, "year": 2024}, {"wanted": TEN}, "a"),
        ({"year": 2024}, {"annotations": PAUSED}, "b"),  # paused: nothing of it changes
    ],
)
def test_two_vips_never_program_one_address_and_port(first, second, winner):
    before = planned(vip("b", **second)) if "annotations" not in second else planned(vip("b"))
    for vips in ((vip("a", **first), vip("b", **second)), (vip("b", **second), vip("a", **first))):
        for previous in (before, None) if "annotations" not in second else (before,):
            result = planned(*vips, previous=previous)
            assert [core.owner.name for core in result.vips] == [winner]
            loser = {"a": "b", "b": "a"}[winner]
            assert errors(result)[loser] == (
                f"203.0.113.10:80/TCP is held by another VIP, shop/{winner}; choose another address or port",
            )
            assert not errors(result)[winner]


def test_who_is_refused_stands_in_nobodys_way():
    # b loses port 80 to a, and with it takes no other port either: c may have what b asked for.
    both = [{"port": 80}, {"port": 443}]
    result = planned(vip("a", year=2020), vip("b", year=2021, ports=both), vip("c", year=2022, ports=[{"port": 443}]))
    assert [(core.owner.name, core.vip.port) for core in result.vips] == [("a", 80), ("c", 443)]


def test_backends_of_a_udp_port_are_checked_by_another_port_or_not_at_all():
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53}]
    for check, checked in (({}, [False, True]), ({"port": 8080}, [True, True])):
        result = planned(vip(ports=ports, healthCheck=check))
        assert [bool(core.targets) for core in result.vips] == checked


@pytest.mark.parametrize("older", ["a", "b"])
def test_a_holder_keeps_its_port_when_an_edit_of_another_vip_requests_it(older):
    """The operator has not seen the edit yet, or has refused it."""
    years = {name: 2020 if name == older else 2025 for name in "ab"}
    edited = vip("b", year=years["b"], ports=[{"port": 443}, {"port": 80}], held=[443], generation=2)
    result = planned(vip("a", year=years["a"], held=[80]), edited)
    assert sorted((core.owner.name, core.vip.port) for core in result.vips) == [("a", 80), ("b", 443)]
    assert not errors(result)["a"]
    assert errors(result)["b"] == (
        "203.0.113.10:80/TCP is held by another VIP, shop/a; choose another address or port",
    )


def test_the_oldest_vips_keep_their_place_when_there_is_no_more_room(monkeypatch):
    monkeypatch.setattr(desired, "MAX_VIPS", 3)
    vips = [
        vip(name, year=year, addresses=[f"203.0.113.{year - 2000}"], ports=[{"port": 80}, {"port": 443}][:ports])
        for name, year, ports in (("a", 2024, 1), ("b", 2020, 1), ("c", 2021, 2), ("d", 2025, 1))
    ]
    result = planned(*vips)
    assert [(core.owner.name, core.vip.port) for core in result.vips] == [("b", 80), ("c", 80), ("c", 443)]
    for name, refused in (("a", True), ("b", False), ("c", False), ("d", True)):
        assert bool(errors(result)[name]) is refused
    assert "has 3 ports of VIPs already" in errors(result)["a"][0]
    assert "older VIPs come first" in errors(result)["a"][0]
    after = planned(*vips[:2], *vips[3:], previous=result)  # a VIP is deleted
    assert [core.owner.name for core in after.vips] == ["b", "a", "d"]


def test_a_data_plane_has_room_for_as_many_vips_as_an_agent_plans():
    assert EmbeddedSettings.model_fields["max_vips"].default == desired.MAX_VIPS
    assert Startup.__dataclass_fields__["max_vips"].default == desired.MAX_VIPS


def test_what_cannot_be_read_any_more_keeps_its_place():
    before = planned(vip("b"))
    result = plan(snapshot(vip("a", year=2020), unreadable={("shop", "b"): "of a newer schema"}), before)
    assert [core.owner.name for core in result.vips] == ["b"]
    assert "held by another VIP, shop/b" in errors(result)["a"][0]


def test_paused_vips_stay_as_they_were():
    before = planned(vip(generation=1))
    edited = vip(generation=2, ports=[{"port": 81}], annotations={"penstock.dev/paused": "true"})
    after = planned(edited, previous=before)
    assert after.vips == before.vips
    assert after.findings[0].paused
    assert after.findings[0].owner.generation == 1


def test_a_vip_paused_from_the_start_has_nothing_to_keep():
    result = planned(vip(annotations={"penstock.dev/paused": "true"}))
    assert result.vips == ()
    assert "remove the annotation" in errors(result)["web"][0]


def test_unreadable_vips_stay_as_they_were():
    before = planned(vip())
    after = planned(previous=before, unreadable={("shop", "web"): "spec.ports: is required; add it"})
    assert after.vips == before.vips
    assert errors(after)["web"] == ("spec.ports: is required; add it",)


def test_plans_survive_the_disk():
    result = planned(vip(policyName="p", healthCheck={"type": "None"}), policies={("shop", "p"): policy()})
    assert Plan.model_validate_json(result.model_dump_json()) == result


def test_node_settings_arrive():
    state = sent(planned(vip(), node=node(nodes=3))).state
    assert (state.nodes, state.scheduler_key) == (3, node().scheduler_key)
    assert [(str(s.address), s.port_first, s.port_last) for s in state.nat_sources] == [("192.0.2.1", 16384, 28671)]


def test_failed_backends_are_cut():
    kept = sent(planned(vip()), failed=("10.0.0.1",)).state.vips[0].backends
    assert [b.state for b in kept] == [FAILED, ACTIVE]


@pytest.mark.parametrize(
    ("conditions", "state"),
    [((False, True, True), BackendState.DRAINING), ((False, False, False), BackendState.UNREADY)],
)
def test_checks_cut_no_backend_that_takes_no_new_flows(conditions, state):
    servers = (
        SliceEndpoint(ip_address("10.0.0.1"), *conditions),
        SliceEndpoint(ip_address("10.0.0.2"), True, True, False),
    )
    slices = {WEB: (Slice("web-1", "web", (SlicePort("http", "TCP", 8080),), servers),)}
    result = planned(of_service(), slices=slices)
    kept = sent(result, failed=("10.0.0.1",)).state.vips[0].backends
    assert [b.state for b in kept] == [state, ACTIVE]


def test_all_failing_keeps_the_last_healthy_ones():
    result = planned(vip())
    first = sent(result, failed=("10.0.0.1",))
    second = sent(result, failed=("10.0.0.1", "10.0.0.2"), last=first)
    assert [b.state for b in second.state.vips[0].backends] == [FAILED, ACTIVE]
    assert second.fail_open == {result.vips[0].vip.id}
    assert second.well[result.vips[0].vip.id] == frozenset()
    again = sent(result, failed=("10.0.0.1", "10.0.0.2"), last=second)
    assert again.state == second.state


def test_all_failing_from_the_start_uses_all():
    result = planned(vip())
    outcome = sent(result, failed=("10.0.0.1", "10.0.0.2"))
    again = sent(result, failed=("10.0.0.1", "10.0.0.2"), last=outcome)
    for each in (outcome, again):
        assert [b.state for b in each.state.vips[0].backends] == [ACTIVE, ACTIVE]
        assert each.used_instead(result.vips[0].vip.id) == "none was ever healthy, all are used"


def test_unchecked_backends_are_well():
    result = planned(vip(healthCheck={"type": "None"}))
    assert result.vips[0].targets == {}
    assert sent(result, failed=("10.0.0.1",)).fail_open == frozenset()


hosts = st.sampled_from([f"10.0.0.{i}" for i in range(1, 6)])


@given(
    servers=st.lists(hosts, min_size=1, max_size=5, unique=True),
    failed=st.sets(hosts),
    earlier=st.sets(hosts),
    ports=st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True),
)
def test_some_backend_always_takes_flows(servers, failed, earlier, ports):
    result = planned(
        vip(
            ports=[{"port": port} for port in ports],
            backends={"endpoints": [{"address": address} for address in servers]},
        )
    )
    before = sent(result, failed=earlier)
    after = sent(result, failed=failed, last=before)
    for core in after.state.vips:
        states = {str(b.address): b.state for b in core.backends}
        assert ACTIVE in states.values()
        assert set(states) == set(servers)
        if not failed >= set(servers):
            assert {address for address, state in states.items() if state is FAILED} == failed & set(servers)
    assert len({core.id for core in after.state.vips}) == len(ports)


@given(order=st.permutations(["a", "b", "c"]))
def test_the_plan_does_not_depend_on_the_order_of_arrival(order):
    vips = {name: vip(name, addresses=(f"203.0.113.{index}",)) for index, name in enumerate("abc", 1)}
    assert planned(*(vips[name] for name in order)) == planned(*vips.values())


def test_a_memo_only_saves_time():
    memo = Memo()
    vips = [vip(name, addresses=(f"203.0.113.{index}",)) for index, name in enumerate("abc", 1)]
    first = plan(snapshot(*vips), None, memo)
    changed = [vips[0], vip("b", addresses=("203.0.113.2",), drainSeconds=1), vips[2]]
    second = plan(snapshot(*changed), first, memo)
    assert second == plan(snapshot(*changed), first)
    assert second.vips[0] is first.vips[0]
    assert second.vips[1].vip.drain_timeout == 1


def test_a_memo_notices_that_an_endpoint_became_a_vip():
    memo = Memo()
    first = plan(snapshot(vip()), None, memo)
    second = plan(snapshot(vip(), vip("b", addresses=("10.0.0.1",))), first, memo)
    assert [b.id for b in second.vips[1].vip.backends] == ["10.0.0.2"]

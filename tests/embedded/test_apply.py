"""What an apply changes, and what it leaves alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from penstock_embedded.client import ControlError
from penstock_embedded.messages import BackendState

from tests.support.clients import Ear, HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, plumbing, running_dataplane, sources, vip
from tests.support.lab import UDP_PORT, Lab, eventually

pytestmark = pytest.mark.netns


def test_addresses_of_the_node_and_its_gateways_are_no_vips(lab: Lab, dataplane: RunningDataplane) -> None:
    gateway = "10.77.0.250"
    lab.balancer.sh(f"ip route add 198.51.100.0/24 via {gateway}")
    try:
        for address in (lab.balancer_ipv4.replace("10.77.0", "10.77.1"), "fd77:1::1", gateway):
            result = dataplane.try_apply(vip(lab), vip(lab, address, port=81))
            accepted, refused = (each.error for each in result.vips)
            assert accepted is None
            assert refused is not None
            assert (refused.code, refused.field) == ("conflict", "addresses")
            assert address in refused.message
    finally:
        lab.balancer.sh(f"ip route del 198.51.100.0/24 via {gateway}")


def test_an_address_that_a_vip_has_stays_when_the_node_takes_it_too(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    lab.balancer.sh(f"ip address add {VIP_IPV4}/32 dev lo")
    try:
        dataplane.apply(vip(lab, drain_timeout=7))
    finally:
        lab.balancer.sh(f"ip address del {VIP_IPV4}/32 dev lo")


def backends(lab: Lab, *names: str, **states: str) -> list[dict[str, Any]]:
    rows = [row for row in vip(lab)["backends"] if row["id"] in names]
    return [row | {"state": states.get(row["id"], "active")} for row in rows]


def test_before_the_first_apply_nothing_of_the_node_is_taken_into_use(lab: Lab, dataplane: RunningDataplane) -> None:
    assert "penstock" not in lab.balancer.sh("ip link")
    assert not dataplane.settings.arena_path.exists()
    assert dataplane.hello().generation is None
    assert dataplane.dump().vips == ()
    assert dataplane.stats().packets == 0
    dataplane.withdraw()  # nothing to do, and no error


def test_an_address_that_a_vip_gives_up_becomes_a_nat_source_at_once(lab: Lab, dataplane: RunningDataplane) -> None:
    other = "203.0.113.77"
    dataplane.apply(vip(lab, other, id="7" * 16))
    more = [*sources(lab), {"address": other, "port_first": 16384, "port_last": 28671}]
    result = dataplane.try_apply(vip(lab, id="7" * 16), nat_sources=more)
    assert (result.errors, [each.error for each in result.vips]) == ((), [None])
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_a_nat_source_that_a_draining_vip_still_has_is_refused_until_then(
    lab: Lab, dataplane: RunningDataplane
) -> None:
    other = "203.0.113.77"
    more = [*sources(lab), {"address": other, "port_first": 16384, "port_last": 28671}]
    dataplane.apply(vip(lab), vip(lab, other))
    with HttpConnection(lab, other) as kept:
        name = kept.get()
        (error,) = dataplane.try_apply(vip(lab), nat_sources=more).errors
        assert (error.code, error.field) == ("conflict", f"nat_sources.{len(more) - 1}.address")
        assert kept.get() == name
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    eventually(lambda: not dataplane.try_apply(vip(lab), nat_sources=more).errors)


def test_the_same_state_twice_changes_nothing(lab: Lab, dataplane: RunningDataplane) -> None:
    assert dataplane.apply(vip(lab), vip(lab, VIP_IPV6)).changed
    present, dump = plumbing(lab), dataplane.dump()
    frames = {each.frames: (dataplane.settings.shm_dir / each.frames[1:]).stat().st_ino for each in dump.vips}
    again = dataplane.apply(vip(lab), vip(lab, VIP_IPV6))
    assert not again.changed
    assert plumbing(lab) == present
    after = dataplane.dump()
    assert after.model_copy(update={"generation": dump.generation}) == dump
    assert frames == {each.frames: (dataplane.settings.shm_dir / each.frames[1:]).stat().st_ino for each in dump.vips}


def test_a_vip_that_is_refused_leaves_the_others_and_itself_as_they_were(lab: Lab, balanced: RunningDataplane) -> None:
    bad = vip(lab, lab.balancer_ipv4)
    result = balanced.try_apply(vip(lab), bad)
    errors = {each.id: each.error for each in result.vips}
    assert errors[vip(lab)["id"]] is None
    refused = errors[bad["id"]]
    assert refused is not None
    assert refused.code == "conflict"
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_a_malformed_apply_changes_nothing(lab: Lab, balanced: RunningDataplane) -> None:
    present, dump = plumbing(lab), balanced.dump()
    for params in ({}, {"generation": 5}, {"generation": 5, "scheduler_key": "no"}):
        with pytest.raises(ControlError):
            balanced.ask_raw(params)
    assert plumbing(lab) == present
    after = balanced.dump()
    assert [(each.key, each.slots) for each in after.vips] == [(each.key, each.slots) for each in dump.vips]
    assert after.generation == dump.generation


def test_kept_alive_connections_survive_other_backends(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, backends=backends(lab, "s1")))
    with HttpConnection(lab, VIP_IPV4) as old, Ear(lab) as ear:
        assert old.get() == b"s1"
        dataplane.apply(vip(lab, backends=backends(lab, "s1", "s2")))
        assert old.get() == b"s1"
        dataplane.apply(vip(lab, backends=backends(lab, "s2")))
        assert old.get() == b"s1"  # removed, and drains
        assert {get(lab, VIP_IPV4) for _ in range(8)} == {b"s2"}
        dataplane.apply(vip(lab, backends=backends(lab, "s1", "s2"), scheduler={"type": "sed"}))
        assert old.get() == b"s1"
        assert ear.heard == []


def test_a_draining_backend_gets_no_new_flows_and_keeps_its_old_ones(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, backends=backends(lab, "s1")))
    with HttpConnection(lab, VIP_IPV4) as old:
        assert old.get() == b"s1"
        dataplane.apply(vip(lab, backends=backends(lab, "s1", "s2", s1="draining")))
        assert {get(lab, VIP_IPV4) for _ in range(8)} == {b"s2"}
        assert old.get() == b"s1"
        states = {each.id: each.state for each in dataplane.dump().vips[0].backends}
        assert states == {"s1": BackendState.DRAINING, "s2": BackendState.ACTIVE}


def test_when_the_drain_timeout_has_passed_a_removed_backend_fails(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, drain_timeout=0.5, backends=backends(lab, "s1")))
    with HttpConnection(lab, VIP_IPV4) as old:
        assert old.get() == b"s1"
        dataplane.apply(vip(lab, drain_timeout=0.5, backends=backends(lab, "s2")))
        assert old.get() == b"s1"
        time.sleep(1.0)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            old.get()
    eventually(lambda: [each.id for each in dataplane.dump().vips[0].backends] == ["s2"])


def test_a_failed_backend_resets_tcp_and_moves_udp(lab: Lab, dataplane: RunningDataplane) -> None:
    udp = [{"id": server.name, "address": server.ipv4, "port": UDP_PORT} for server in lab.servers]
    service: dict[str, Any] = {"port": 5000, "protocol": "UDP"}
    dataplane.apply(vip(lab, backends=backends(lab, "s1")), vip(lab, **service, backends=udp[:1]))
    with HttpConnection(lab, VIP_IPV4) as old, udp_socket(lab, VIP_IPV4, 5000) as datagrams:
        assert old.get() == b"s1"
        datagrams.send(b"x")
        assert datagrams.recv(100) == b"s1 x"
        moved = [udp[0] | {"state": "failed"}, udp[1]]
        dataplane.apply(vip(lab, backends=backends(lab, "s1", "s2", s1="failed")), vip(lab, **service, backends=moved))
        datagrams.send(b"y")
        assert datagrams.recv(100) == b"s2 y"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            old.get()
        assert get(lab, VIP_IPV4) == b"s2"


def test_weights_of_the_configuration_are_in_force_until_an_agent_writes(lab: Lab, dataplane: RunningDataplane) -> None:
    rows = [row | {"weight": weight} for row, weight in zip(vip(lab)["backends"], (1.0, 0.0), strict=True)]
    dataplane.apply(vip(lab, backends=rows, scheduler={"type": "sed"}))
    assert {get(lab, VIP_IPV4) for _ in range(8)} == {b"s1"}
    assert [each.weight for each in dataplane.dump().vips[0].backends] == [1.0, 0.0]


def test_a_removed_vip_drains_and_then_takes_its_routes_along(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab, timeouts={"tcp_closing": 0.5}), vip(lab, VIP_IPV6))
    with HttpConnection(lab, VIP_IPV4) as old:
        name = old.get()
        dataplane.apply(vip(lab, VIP_IPV6))
        assert old.get() == name
    route = f"ip route show table all {VIP_IPV4}"
    eventually(lambda: lab.balancer.sh(route) == "")
    assert [each.key for each in dataplane.dump().vips] == [vip(lab, VIP_IPV6)["key"]]
    assert not list(dataplane.settings.shm_dir.glob(f"*{vip(lab)['id']}*"))


def test_an_address_moves_from_one_vip_to_another(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    other = vip(lab) | {"id": "00000000deadbeef", "key": "test/other"}
    dataplane.apply(other)
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_two_vips_exchange_their_addresses_in_one_apply(lab: Lab, dataplane: RunningDataplane) -> None:
    here, there, kept = VIP_IPV4, "203.0.113.11", "203.0.113.12"
    first = vip(lab, backends=backends(lab, "s1"))
    second = vip(lab, backends=backends(lab, "s2")) | {"id": "00000000deadbeef", "key": "test/other"}
    dataplane.apply(first | {"addresses": [here, kept]}, second | {"addresses": [there]})
    with HttpConnection(lab, kept) as old:
        assert (old.get(), get(lab, here), get(lab, there)) == (b"s1", b"s1", b"s2")
        dataplane.apply(first | {"addresses": [there, kept]}, second | {"addresses": [here]})
        assert (get(lab, here), get(lab, there)) == (b"s2", b"s1")
        assert old.get() == b"s1"  # to an address that stays


def test_withdraw_leaves_nothing_and_a_later_apply_starts_afresh(lab: Lab, dataplane: RunningDataplane) -> None:
    clean = plumbing(lab)
    dataplane.apply(vip(lab), vip(lab, VIP_IPV6), announcement={"interfaces": ["c0"], "addresses": [VIP_IPV4]})
    assert get(lab, VIP_IPV4)
    assert plumbing(lab) != clean
    dataplane.withdraw()
    assert plumbing(lab) == clean
    assert list(dataplane.settings.shm_dir.iterdir()) == []
    assert dataplane.dump().vips == ()
    dataplane.kill_child()  # and a restart brings nothing back
    eventually(dataplane.answers)
    assert plumbing(lab) == clean
    dataplane.apply(vip(lab))
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_drift_on_the_node_is_repaired_by_the_next_apply(lab: Lab, balanced: RunningDataplane) -> None:
    present = plumbing(lab)
    lab.balancer.sh("nft delete table inet penstock")
    lab.balancer.sh(f"ip route del {VIP_IPV4} table 11201 metric 100")
    assert balanced.apply(vip(lab)).changed
    repaired = plumbing(lab)
    assert "table inet penstock" in repaired
    assert f"{VIP_IPV4} dev penstock" in repaired
    assert present


def test_an_arena_too_small_for_its_vips_says_so(lab: Lab) -> None:
    with running_dataplane(lab, max_vips=1) as running:
        result = running.try_apply(vip(lab), vip(lab, VIP_IPV6), nat_sources=sources(lab))
        errors = [each.error for each in result.vips]
        assert errors[0] is None
        assert errors[1] is not None
        assert errors[1].code == "exhausted"
        assert "more VIPs" in errors[1].fix
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
        running.withdraw()


def test_a_deleted_vip_leaves_its_place_to_one_that_is_wanted(lab: Lab) -> None:
    with running_dataplane(lab, max_vips=1) as running:
        running.apply(vip(lab, drain_timeout=3600), nat_sources=sources(lab))
        with HttpConnection(lab, VIP_IPV4) as kept:
            kept.get()
            wanted = vip(lab, VIP_IPV6)
            (refused,) = running.try_apply(wanted, nat_sources=sources(lab)).vips
            assert refused.error is not None
            assert refused.error.code == "exhausted"
            with pytest.raises(ConnectionResetError):
                kept.get()
        eventually(lambda: running.try_apply(wanted, nat_sources=sources(lab)).vips[0].error is None)
        assert get(lab, VIP_IPV6) in (b"s1", b"s2")
        running.withdraw()


@pytest.mark.parametrize("where", ["the default route's", "another interface's", "IPv6"])
def test_an_address_of_the_node_is_no_vip(lab: Lab, dataplane: RunningDataplane, where: str) -> None:
    number = "1" if where == "the default route's" else "s1"
    address = {"the default route's": lab.balancer_ipv4, "another interface's": "10.77.1.1", "IPv6": "fd77:1::1"}[where]
    result = dataplane.try_apply(vip(lab, address), vip(lab))
    error = next(each.error for each in result.vips if each.error)
    assert error.code == "conflict"
    assert address in error.message
    assert number in error.message or "NAT source" in error.message
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")  # the others are not concerned


def test_a_vip_keeps_an_address_that_the_node_got_later(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.apply(vip(lab))
    lab.balancer.sh(f"ip addr add {VIP_IPV4}/32 dev lo")
    try:
        dataplane.apply(vip(lab, key="test/renamed"))
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    finally:
        lab.balancer.sh(f"ip addr del {VIP_IPV4}/32 dev lo")


def test_a_vip_waits_for_its_pool_to_be_handed_down(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "vips.json"
    file.write_text('{"version": 1, "blocks": ["198.51.100.0/24"]}')
    with running_dataplane(lab, allowed_vips=file) as running:
        (refused,) = running.try_apply(vip(lab)).vips
        assert refused.error is not None
        assert "is in no AddressPool" in refused.error.message
        file.write_text('{"version": 1, "blocks": ["198.51.100.0/24", "203.0.113.0/28"]}')
        running.apply(vip(lab))
        assert get(lab, VIP_IPV4) in (b"s1", b"s2")
        file.write_text('{"version": 1, "blocks": []}')
        running.apply(vip(lab, drain_timeout=7))  # what is in force stays
        running.withdraw()

"""The binary API, from a real client of it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4
from tests.support.lab import HTTP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp, running_vpp
from tests.support.vpp_client import TIMEOUTS, vpp_client

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")
vpp_stats = pytest.importorskip("vpp_papi.vpp_stats")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]


EAGAIN, NOT_ENABLED = -165, -30  # VNET_API_ERROR_EAGAIN and _FEATURE_DISABLED


def flows_of(client: Any, *, cursor: int = 0, **request: int) -> list[Any]:
    """All flows from a place in the table on."""
    found = []
    while True:
        reply, flows = client.api.lb_rl_flow_get(cursor=cursor, **request)
        found += flows
        cursor = reply.cursor
        if reply.retval != EAGAIN:
            assert reply.retval == 0
            return found


def vip(lab: Lab, **changes: Any) -> dict[str, Any]:
    backends = [
        {"id": number, "address": server.ipv4, "port": HTTP_PORT, "state": 1, "weight": 1.0}
        for number, server in enumerate(lab.servers, start=1)
    ]
    fields: dict[str, Any] = {
        "id": 7,
        "protocol": 6,
        "port": 80,
        "scheduler": 2,
        "feature_level": 1,
        "drain_timeout": 1000,
        "timeouts": TIMEOUTS,
        "address_count": 1,
        "addresses": [VIP_IPV4] * 8,
        "backends": backends,
    } | changes
    return fields | {"count": len(fields["backends"])}


def configure(client: Any, lab: Lab) -> None:
    source = {"address": lab.balancer_ipv4, "port_first": 16384, "port_last": 28671}
    assert client.api.lb_rl_node_set(scheduler_key=bytes(range(16)), nodes=1).retval == 0
    assert client.api.lb_rl_sources_set(count=1, sources=[source]).retval == 0
    reply = client.api.lb_rl_vip_set(**vip(lab))
    assert (reply.retval, reply.message) == (0, "")


def test_what_is_set_balances_and_is_dumped(lab: Lab, client: Any) -> None:
    configure(client, lab)
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        for _ in range(9):
            get(lab, VIP_IPV4)
        (details,) = client.api.lb_rl_vip_dump(id=0)
        assert (details.id, details.port, str(details.addresses[0])) == (7, 80, VIP_IPV4)
        assert details.frames == f"penstock.{7:016x}.frames"
        backends = client.api.lb_rl_backend_dump(vip=7)
        assert [str(each.backend.address) for each in backends] == [server.ipv4 for server in lab.servers]
        assert sum(each.flows for each in backends) == 10
        flows = flows_of(client, vip=7)
        assert sum(each.open for each in flows) == 1
        assert {str(each.client) for each in flows} == {lab.client_ipv4}
        reply, first = client.api.lb_rl_flow_get(vip=7, max=3)
        assert (reply.retval, len(first)) == (EAGAIN, 3)
        rest = flows_of(client, vip=7, max=2**32 - 1, cursor=reply.cursor)
        assert [each.client_port for each in first + rest] == [each.client_port for each in flows]
        assert flows_of(client, vip=8) == []
        for cursor in (4096, 2**32, 2**64 - 1):  # the table's end, and beyond it
            assert client.api.lb_rl_flow_get(vip=7, cursor=cursor)[0].retval == 0
    stats = client.api.lb_rl_stats_get()
    assert stats.forwarded > 0
    assert {each.reason for each in stats.dropped} >= {"no_flow", "no_backend"}
    (source,) = client.api.lb_rl_source_dump()
    assert (str(source.source.address), source.source.port_first) == (lab.balancer_ipv4, 16384)


def test_flows_of_a_large_table_come_in_pieces(lab_of_its_own: Lab) -> None:
    lab = lab_of_its_own
    entries = 262144
    with running_vpp(lab, settings=f"flows {entries} vips 64 slots 1024") as running, vpp_client(running) as client:
        configure(client, lab)
        for _ in range(9):
            get(lab, VIP_IPV4)
        cursors = [0]
        found = []
        while True:
            reply, flows = client.api.lb_rl_flow_get(vip=7, cursor=cursors[-1])
            found += flows
            if reply.retval == 0:
                break
            assert reply.retval == EAGAIN
            assert 0 < reply.cursor - cursors[-1] <= 32768
            cursors.append(reply.cursor)
        assert len(found) == 9
        assert cursors[-1] == entries
        lines = running.ctl("show lb rl flows").splitlines()
        assert len(lines) == 9
        assert client.api.lb_rl_disable(withdraw=False).retval == 0
        assert client.api.lb_rl_flow_get(vip=7)[0].retval == NOT_ENABLED


def test_configured_and_present_state_of_backends_are_dumped(lab: Lab, client: Any) -> None:
    configure(client, lab)
    first, second = vip(lab)["backends"]
    with HttpConnection(lab, VIP_IPV4) as kept:
        gone, stays = (first, second) if kept.get() == b"s1" else (second, first)
        assert client.api.lb_rl_vip_set(**vip(lab, backends=[stays], drain_timeout=60_000)).retval == 0
        removed = {each.backend.id: each for each in client.api.lb_rl_backend_dump(vip=7)}[gone["id"]]
        assert (removed.removed, removed.backend.state, removed.configured_state) == (True, 2, 0)
    changed = [first | {"state": 2, "weight": 3.0}, second | {"state": 4}]
    assert client.api.lb_rl_vip_set(**vip(lab, backends=changed, drain_timeout=0)).retval == 0
    one, two = sorted(client.api.lb_rl_backend_dump(vip=7), key=lambda each: int(each.backend.id))
    assert (one.backend.state, one.configured_state, one.configured_weight) == (3, 2, 3.0)
    assert (two.backend.state, two.configured_state) == (4, 4)


def test_events_tell_of_vips_that_come_and_go(lab: Lab, client: Any) -> None:
    heard: list[tuple[int, bool]] = []
    client.register_event_callback(lambda name, event: heard.append((event.id, event.added)))
    client.api.want_lb_rl_events(enable=True, pid=1)
    configure(client, lab)
    eventually(lambda: heard == [(7, True)])
    client.api.lb_rl_vip_remove(id=7)
    eventually(lambda: heard == [(7, True), (7, False)])
    client.api.want_lb_rl_events(enable=False, pid=1)


def test_backends_are_in_the_statistics_segment(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    configure(client, lab)
    for _ in range(4):
        get(lab, VIP_IPV4)
    stats = vpp_stats.VPPStats(socketname=str(balancer.directory / "stats.sock"))
    stats.connect()
    folder = f"/lb-rl/vips/{7:016x}/"
    names = [f"{folder}{server.ipv4}:{HTTP_PORT}" for server in lab.servers]

    def told(name: str) -> tuple[int, int, int]:
        """Flows, packets and bytes in the segment."""
        traffic = stats.get_counter(f"{name}/traffic")[0]
        return stats.get_counter(f"{name}/flows")[0], traffic["packets"], traffic["bytes"]

    def known(name: str) -> tuple[int, int, int]:
        """The same by the binary API."""
        backends = client.api.lb_rl_backend_dump(vip=7)
        (each,) = [each for each in backends if str(each.backend.address) in name]
        return each.flows, each.packets, each.bytes

    try:
        eventually(lambda: len(stats.ls([folder])) == 6 and sum(told(each)[0] for each in names) == 4)
        eventually(lambda: all(told(each) == known(each) for each in names))
        for name in names:
            flows, packets, size = told(name)
            assert packets >= 6 * flows  # handshake, question, answer, an end
            assert size >= 40 * packets  # with the headers of IP and TCP
        # What is gone is gone from there, too: a server, then the VIP.
        client.api.lb_rl_vip_set(**vip(lab, backends=vip(lab)["backends"][1:], drain_timeout=0))
        eventually(lambda: {each.rpartition("/")[0] for each in stats.ls([folder])} == {names[1]})
        client.api.lb_rl_vip_remove(id=7)
        eventually(lambda: not stats.ls([folder]))
        assert sum(stats.get_counter("/lb-rl/backends/flows")[0]) == 0
    finally:
        stats.disconnect()


def test_a_backend_that_comes_back_is_found_by_its_name(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    configure(client, lab)
    server = lab.servers[0]
    before, after = (
        {"id": number, "address": server.ipv4, "port": HTTP_PORT, "state": 1, "weight": 1} for number in (70, 71)
    )
    name = f"/lb-rl/vips/{7:016x}/{server.ipv4}:{HTTP_PORT}/flows"
    stats = vpp_stats.VPPStats(socketname=str(balancer.directory / "stats.sock"))
    stats.connect()

    def flows() -> int:
        with contextlib.suppress(KeyError):
            return int(stats.get_counter(name)[0])
        return -1

    try:
        assert client.api.lb_rl_vip_set(**vip(lab, backends=[before], drain_timeout=2500)).retval == 0
        with HttpConnection(lab, VIP_IPV4) as kept:
            kept.get()
            get(lab, VIP_IPV4)
            eventually(lambda: flows() == 2)
            assert client.api.lb_rl_vip_set(**vip(lab, backends=[after], drain_timeout=2500)).retval == 0
            get(lab, VIP_IPV4)
            # The earlier one has the name for as long as it has flows: longer than until the next look at the rows.
            time.sleep(1.5)
            assert len(client.api.lb_rl_backend_dump(vip=7)) == 2
            assert flows() == 2
        eventually(lambda: flows() == 1)
    finally:
        stats.disconnect()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id": 0}, "id: 0 is no id"),
        ({"protocol": 1}, "protocol: 1"),
        ({"port": 0}, "port: must be 1 to 65535"),
        ({"scheduler": 0, "table_size": 1000}, "table_size: 1000 is not a prime"),
        ({"scheduler": 0, "table_size": 16715771}, "table_size: 16715771 is not a prime of 3 to 1048583"),
        ({"feature_level": 9}, "feature_level: 9"),
        ({"address_count": 0}, "addresses: 0; a VIP has 1 to 8"),
        ({"address_count": 9}, "addresses: 9; a VIP has 1 to 8"),
        ({"addresses": [VIP_IPV4, "fd00::1"] + [VIP_IPV4] * 6, "address_count": 2}, "addresses[1]: of another family"),
        ({"address_count": 2}, "addresses[1]: that of addresses[0]"),
        ({"addresses": ["0.0.0.0"] * 8}, "addresses[0]: unspecified"),
        ({"backends": [{"id": 1, "address": "10.0.0.1", "port": 1, "state": 1, "weight": 1}] * 2}, "backends[1].id"),
        ({"backends": [{"id": 1, "address": "0.0.0.0", "port": 1, "state": 1, "weight": 1}]}, "backends[0].address"),
        ({"backends": [{"id": 0, "address": "10.0.0.1", "port": 1, "state": 1, "weight": 1}]}, "backends[0].id"),
        ({"backends": [{"id": 1, "address": "10.0.0.1", "port": 1, "state": 0, "weight": 1}]}, "backends[0].state"),
        ({"backends": [{"id": 1, "address": "10.0.0.1", "port": 0, "state": 1, "weight": 1}]}, "backends[0].port"),
        ({"backends": [{"id": 1, "address": "10.0.0.1", "port": 1, "state": 1, "weight": -1}]}, "backends[0].weight"),
        (
            {"backends": [{"id": 1, "address": "10.0.0.1", "port": 1, "state": 1, "weight": float("nan")}]},
            "backends[0].weight",
        ),
    ],
)
def test_bad_vips_are_refused_by_field(lab: Lab, client: Any, changes: dict[str, Any], says: str) -> None:
    reply = client.api.lb_rl_vip_set(**vip(lab, **changes))
    assert reply.retval != 0
    assert says in reply.message
    assert not client.api.lb_rl_vip_dump(id=0)


def test_agents_can_be_ignored(lab: Lab, client: Any) -> None:
    configure(client, lab)
    assert client.api.lb_rl_get().follows_agents
    assert client.api.lb_rl_agent_set(follow=False).retval == 0
    assert not client.api.lb_rl_get().follows_agents
    client.api.lb_rl_disable(withdraw=False)
    assert "not enabled" in client.api.lb_rl_agent_set(follow=True).message
    assert client.api.lb_rl_enable(directory="").retval == 0
    assert not client.api.lb_rl_get().follows_agents  # a setting, as those of startup.conf
    assert client.api.lb_rl_agent_set(follow=True).retval == 0


def test_agents_are_told_a_policy(lab: Lab, client: Any) -> None:
    heard: list[tuple[bool, str]] = []
    client.register_event_callback(lambda name, event: heard.append((event.follow, event.policy)))
    client.api.want_lb_rl_events(enable=True, pid=1)
    for name in ("inverse-duration", "x" * 63, "7"):
        assert client.api.lb_rl_agent_set(follow=True, policy=name).retval == 0
        assert client.api.lb_rl_get().policy == name
    for name in ("Sed", "-sed", "sed-", "a b", "a.b", "\x01"):
        reply = client.api.lb_rl_agent_set(follow=True, policy=name)
        assert reply.retval != 0
        assert "policy: " in reply.message
    assert "ignored" in client.api.lb_rl_agent_set(follow=False, policy="sed").message
    assert client.api.lb_rl_get().policy == "7"
    assert client.api.lb_rl_agent_set(follow=True).retval == 0
    assert client.api.lb_rl_get().policy == ""
    eventually(lambda: heard == [(True, "inverse-duration"), (True, "x" * 63), (True, "7"), (True, "")])
    client.api.want_lb_rl_events(enable=False, pid=1)


def test_bad_requests_name_the_field(lab: Lab, client: Any, tmp_path: Path) -> None:
    source = {"address": lab.balancer_ipv4, "port_first": 80, "port_last": 127}
    assert "port_first: 80" in client.api.lb_rl_sources_set(count=1, sources=[source]).message
    assert "nodes: 0" in client.api.lb_rl_node_set(scheduler_key=bytes(16), nodes=0).message
    assert client.api.lb_rl_vip_remove(id=99).message.endswith("there is no such VIP")
    assert "already enabled" in client.api.lb_rl_enable(directory=str(tmp_path), flows=1024).message
    client.api.lb_rl_disable(withdraw=False)
    known = client.api.lb_rl_get().instance_id
    assert "absolute path" in client.api.lb_rl_enable(directory="here", flows=1024).message
    file = tmp_path / "file"
    file.touch()
    reply = client.api.lb_rl_enable(directory=f"{file}/missing", flows=1024, vips=8, slots=64, interval_ms=200)
    assert "name a directory on tmpfs" in reply.message
    assert client.api.lb_rl_get().instance_id == known
    for table in ("client_table", "server_table"):
        assert table in client.api.lb_rl_enable(directory=str(tmp_path), flows=1024, **{table: 2**32 - 1}).message
    assert "not enabled" in client.api.lb_rl_vip_set(**vip(lab)).message
    assert client.api.lb_rl_stats_get().retval != 0
    assert client.api.lb_rl_enable(directory="").retval == 0

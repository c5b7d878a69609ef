"""Command line and binary API have the same power: what one sets the other tells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import penstock_core
import pytest

from tests.support.clients import get
from tests.support.dataplane import VIP_IPV4
from tests.support.lab import HTTP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp
from tests.support.vpp_client import TIMEOUTS

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

OTHER = "203.0.113.11"
VIP = f"lb rl vip {VIP_IPV4} port 80"


def addresses(details: Any) -> list[str]:
    return [str(each) for each in details.addresses[: details.address_count]]


def only_vip(client: Any) -> Any:
    (details,) = client.api.lb_rl_vip_dump(id=0)
    return details


def test_a_vip_has_the_addresses_that_were_typed(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    balancer.balance(VIP_IPV4, options=f"also {OTHER} id 7")
    assert addresses(only_vip(client)) == [VIP_IPV4, OTHER]
    assert only_vip(client).id == 7
    for address in (VIP_IPV4, OTHER):
        assert get(lab, address) in (b"s1", b"s2")
    balancer.quiet(f"lb rl vip {OTHER} port 80 without {VIP_IPV4}")  # any address names it
    assert addresses(only_vip(client)) == [OTHER]
    assert get(lab, OTHER) in (b"s1", b"s2")
    assert "lb-rl: VIP" not in balancer.ctl(f"show ip fib {VIP_IPV4}/32")


def test_a_vip_has_the_timeouts_that_were_typed(balancer: RunningVpp, client: Any) -> None:
    balancer.quiet(f"{VIP} timeout tcp-established 60 timeout udp-stream 1.5 drain 7.25")
    wanted = TIMEOUTS | {"tcp_established": 60_000, "udp_stream": 1_500}
    details = only_vip(client)
    assert {name: getattr(details.timeouts, name) for name in TIMEOUTS} == wanted
    assert details.drain_timeout == 7_250
    balancer.quiet(f"{VIP} timeout udp-dns-answered 0.001")  # what is not said stays
    wanted |= {"udp_dns_answered": 1}
    assert {name: getattr(only_vip(client).timeouts, name) for name in TIMEOUTS} == wanted


def test_a_timeout_is_that_of_the_flows(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4, options="timeout tcp-closing 0.2")
    get(lab, VIP_IPV4)
    assert VIP_IPV4 in balancer.ctl("show lb rl flows")
    eventually(lambda: VIP_IPV4 not in balancer.ctl("show lb rl flows"))


def test_affinity_comes_and_goes(balancer: RunningVpp, client: Any) -> None:
    balancer.quiet(f"{VIP} scheduler maglev client-affinity")
    assert only_vip(client).client_affinity
    balancer.quiet(f"{VIP} no client-affinity")
    assert not only_vip(client).client_affinity


def test_what_the_api_has_set_is_shown(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    server = lab.servers[0]
    backend = {"id": 0xABC, "address": server.ipv4, "port": HTTP_PORT, "state": 2, "weight": 2.5}
    fields: dict[str, Any] = {
        "id": 9,
        "protocol": 6,
        "port": 80,
        "scheduler": 0,
        "feature_level": 2,
        "forwarding": 1,
        "mtu": 1400,
        "table_size": 251,
        "drain_timeout": 1500,
        "timeouts": TIMEOUTS,
        "address_count": 2,
        "addresses": [VIP_IPV4, OTHER] + [VIP_IPV4] * 6,
    }
    assert client.api.lb_rl_vip_set(**fields, count=1, backends=[backend]).retval == 0
    shown = " ".join(balancer.ctl("show lb rl vips verbose").split())
    assert f"{VIP_IPV4}:80, {OTHER}:80/tcp id {9:016x}, scheduler maglev, load open, features full" in shown
    assert "forwarding gre, mtu 1400, table-size 251, drain 1.500 s" in shown
    assert "tcp-handshake 10.000 s, tcp-established 900.000 s, tcp-closing 10.000 s, udp-unreplied 10.000 s" in shown
    assert "udp-exchange 30.000 s, udp-stream 180.000 s, udp-dns-answered 1.000 s" in shown
    assert f"penstock.{9:016x}.frames" in shown
    assert f"configured: {server.ipv4}:{HTTP_PORT} id {0xABC:016x} draining weight 2.5" in shown


def test_a_server_has_the_number_that_was_typed(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    balancer.quiet(f"{VIP} id 7")
    balancer.quiet(f"lb rl as {VIP_IPV4} port 80 server {lab.servers[0].ipv4} port 80 id 1f weight 2")
    (details,) = client.api.lb_rl_backend_dump(vip=7)
    assert (details.backend.id, details.backend.weight) == (0x1F, 2)


def test_weights_configured_and_in_force_are_told_apart(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    balancer.balance(VIP_IPV4, options="id 7")
    balancer.quiet(f"lb rl as {VIP_IPV4} port 80 server {lab.servers[0].ipv4} port {HTTP_PORT} weight 3")
    client.api.lb_rl_publish()
    (path,) = balancer.shm.glob("*.frames")
    reader = penstock_core.FrameReader(str(path))
    by_address = {str(each.backend.address): each.slot for each in client.api.lb_rl_backend_dump(vip=7)}
    weights = np.zeros(reader.slots, dtype=np.float32)
    weights[by_address[lab.servers[1].ipv4]] = 1
    writer = penstock_core.ActionsWriter(str(path.with_suffix(".actions")), reader.slots)
    writer.write(weights, reader.read().generation, penstock_core.boottime_us())

    def told() -> dict[str, tuple[float, float]]:
        backends = client.api.lb_rl_backend_dump(vip=7)
        return {str(each.backend.address): (each.configured_weight, each.backend.weight) for each in backends}

    eventually(lambda: told() == {lab.servers[0].ipv4: (3, 0), lab.servers[1].ipv4: (1, 1)})


def test_key_and_number_of_nodes(balancer: RunningVpp, client: Any) -> None:
    key = bytes(range(16))
    balancer.quiet(f"lb rl node key {key.hex()} nodes 3")
    told = client.api.lb_rl_node_get()
    assert (told.scheduler_key, told.nodes) == (key, 3)
    balancer.quiet("lb rl node nodes 4")  # what is not said stays
    assert (client.api.lb_rl_node_get().scheduler_key, client.api.lb_rl_node_get().nodes) == (key, 4)
    assert client.api.lb_rl_node_set(scheduler_key=key[::-1], nodes=2).retval == 0
    assert f"key {key[::-1].hex()}, nodes 2" in balancer.ctl("show lb rl node")
    balancer.quiet("lb rl sources 10.77.0.1 ports 16384-28671")
    assert "NAT source 10.77.0.1 ports 16384-28671" in balancer.ctl("show lb rl node")


def test_counters_begin_again_for_those_who_ask(lab: Lab, balancer: RunningVpp, client: Any) -> None:
    balancer.balance(VIP_IPV4)
    get(lab, VIP_IPV4)
    before = client.api.lb_rl_stats_get().forwarded
    assert before > 0

    def cleared() -> bool:  # the last packets of a connection may come after its end here
        assert client.api.lb_rl_stats_clear().retval == 0
        shown = re.search(r"forwarded +0\b", balancer.ctl("show lb rl stats"))
        return shown is not None and bool(client.api.lb_rl_stats_get(since_clear=True).forwarded == 0)

    eventually(cleared)
    get(lab, VIP_IPV4)
    assert 0 < client.api.lb_rl_stats_get(since_clear=True).forwarded < client.api.lb_rl_stats_get().forwarded
    assert client.api.lb_rl_stats_get().forwarded > before  # whoever keeps sums notices nothing
    balancer.quiet("clear lb rl stats")
    told = client.api.lb_rl_stats_get(since_clear=True), client.api.lb_rl_stats_get()
    assert told[0].forwarded < told[1].forwarded - before  # not what was before the second time, either


def test_memory_is_that_of_the_objects(balancer: RunningVpp, client: Any) -> None:
    balancer.balance(VIP_IPV4)
    told = client.api.lb_rl_memory_get()
    assert (told.flows, told.vips, told.slots, told.vips_held) == (4096, 64, 1024, 1)
    (arena,) = balancer.shm.glob("*.arena")
    assert told.arena_bytes == arena.stat().st_size
    assert told.frames_bytes == sum(each.stat().st_size for each in balancer.shm.glob("*.frames"))


def test_settings_that_were_typed_are_told_and_come_again(balancer: RunningVpp, client: Any) -> None:
    balancer.ctl("lb rl disable withdraw")
    settings = "flows 2048 vips 8 slots 64 interval-ms 20 grace 5 group 0 agent ignore client-table 21 server-table 22"
    balancer.quiet(f"lb rl enable directory {balancer.shm} {settings}")
    for _ in range(2):
        told = client.api.lb_rl_get()
        assert (told.interval_ms, told.grace_ms, told.group, told.follows_agents) == (20, 5000, 0, False)
        assert (told.client_table, told.server_table) == (21, 22)
        assert client.api.lb_rl_memory_get().flows == 2048
        assert "frames every 20 ms, weights of a silent agent for 5.000 s" in balancer.ctl("show lb rl memory")
        balancer.ctl("lb rl disable")
        for each in (client.api.lb_rl_memory_get, client.api.lb_rl_node_get, client.api.lb_rl_stats_clear):
            assert each().retval != 0
        balancer.quiet("lb rl enable again")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("interval-ms 0", "interval_ms: 0; must be 1 to 60000"),
        ("grace 3601", "grace: 3601.000 s; must be 0 to 3600"),
        ("group 4294967295 grace 1", "group: 4294967295 is no group's number"),
        ("again flow 1", "`flow 1`; known: directory"),
        ("agent sometimes", "agent follow|ignore"),
    ],
)
def test_bad_settings_are_refused_by_name(balancer: RunningVpp, settings: str, says: str) -> None:
    balancer.ctl("lb rl disable")
    said = balancer.ctl(f"lb rl enable directory {balancer.shm} {settings}")
    if settings.startswith("again"):
        said = balancer.ctl(f"lb rl enable {settings}")
    assert says in said
    assert "not enabled" in balancer.ctl("show lb rl stats")

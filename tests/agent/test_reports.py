"""What an agent says of its VIPs and its node: the pure part."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from penstock_agent.desired import plan
from penstock_agent.health_overlay import NoTraffic, Standing, desired_state
from penstock_agent.loop import Reason
from penstock_agent.reports import NodeFacts, Trouble, node_status, shards, vip_reports
from penstock_agent.shortages import Shortage
from penstock_api import SHARD_SIZE, SHARDS_MAX, VipReport
from penstock_api.dataplanenode import DataPlaneNode
from penstock_embedded.messages import ApplyResult, Error, Hello, Stats, VipResult

from tests.support.agent_objects import endpoints, policy, snapshot, vip

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HELLO = Hello(
    protocol_version=1,
    version="0.1",
    type="embedded",
    instance_id="one",
    boot_id="boot",
    reattached_flows=7,
    generation=1,
)
STATS = Stats(
    instance_id="one",
    uptime_seconds=1,
    packets=0,
    forwarded=0,
    dropped={},
    flows=5,
    flow_capacity=100,
    half_open=0,
)


class NoPath(NoTraffic):
    """Clients send, and get no packet."""

    def no_path(self, vip):
        return True


def reports(*vips, failed=(), in_force=None, result=None, troubles=None, traffic=None, **fields):
    planned = plan(snapshot(*vips, **fields), None)
    outcome = desired_state(
        planned, lambda target: Standing(str(target.address) not in failed), None, (), traffic=traffic
    )
    ids = {core.owner.name: core.vip.id for core in planned.vips}
    return vip_reports(
        planned,
        outcome,
        {f"uid-{name}": 1 for name in ids} if in_force is None else in_force,
        result(ids) if result else None,
        {ids[name]: trouble for name, trouble in (troubles or {}).items()},
    )


def dpn(**status):
    return DataPlaneNode.model_validate(
        {
            "metadata": {"name": "edge.node-1", "uid": "u", "generation": 3},
            "spec": snapshot().node.to_dict(),
            "status": status,
        }
    )


def facts(**changes):
    return NodeFacts(
        **{
            "hello": HELLO,
            "stats": STATS,
            "link_error": "",
            "source_error": "",
            "findings": (),
            "result": None,
            "settled": True,
            "troubles": {},
            "shortages": (),
            "agent_version": "0.1",
            **changes,
        }
    )


def condition(status, type_="Ready"):
    found = next(c for c in status.conditions if c.type == type_)
    return found.status, found.reason, found.message


def test_a_vip_that_works():
    (entry,) = reports(vip(policyName="p"), policies={("shop", "p"): policy(mode="Shadow")})
    assert (entry.ready, entry.total, entry.policy, entry.mode) == (2, 2, "little", "Shadow")
    assert (entry.generation, entry.error, entry.warning) == (1, "", "")


def test_a_failed_backend_is_not_ready():
    (entry,) = reports(vip(), failed=("10.0.0.1",))
    assert (entry.ready, entry.total, entry.warning) == (1, 2, "")


def test_a_backend_of_several_ports_counts_once():
    ports = [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": 8080}]
    (entry,) = reports(vip(ports=ports), failed=("10.0.0.1",))
    assert (entry.ready, entry.total) == (1, 2)


def test_fail_open_is_a_warning_with_nobody_ready():
    (entry,) = reports(vip(), failed=("10.0.0.1", "10.0.0.2"))
    assert (entry.ready, entry.total) == (0, 2)
    assert "all backends of port 80/TCP fail their health checks" in entry.warning
    assert "none was ever healthy, all are used" in entry.warning


def test_each_port_says_what_it_has_and_why_not():
    ports = [{"port": 80, "targetPort": "http"}, {"port": 443, "targetPort": "https"}]
    of_service = vip(ports=ports, backends={"service": {"name": "web"}}, addresses=("203.0.113.10", "2001:db8::10"))
    (entry,) = reports(of_service, failed=("10.0.0.1",), slices={("shop", "web"): (endpoints("10.0.0.1", "10.0.0.2"),)})
    found = [(p.port, p.family, p.ready, p.total, p.reason) for p in entry.ports]
    assert found == [
        (80, "IPv4", 1, 2, ""),
        (80, "IPv6", 0, 0, "FamilyMismatch"),
        (443, "IPv4", 0, 0, "PortNotFound"),
        (443, "IPv6", 0, 0, "PortNotFound"),
    ]
    assert "spec.ports[1].targetPort" in entry.ports[2].message
    assert {finding.reason for finding in entry.findings} == {"FamilyMismatch", "PortNotFound"}
    assert (entry.ready, entry.total, entry.error) == (1, 2, "")


def test_ports_whose_backends_all_fail_say_so():
    (entry,) = reports(vip(), failed=("10.0.0.1", "10.0.0.2"))
    assert [(p.ready, p.total, p.reason) for p in entry.ports] == [(0, 2, "AllUnhealthy")]


def test_a_vip_whose_clients_get_no_packet_is_not_ready_however_its_checks_end():
    (entry,) = reports(vip(), traffic=NoPath())
    assert [(p.ready, p.total, p.reason) for p in entry.ports] == [(0, 2, "NoPath")]
    assert "let the firewall of this node forward packets" in entry.error
    assert [found.reason for found in entry.findings] == ["NoPath"]


def test_endpoints_of_weight_0_take_nothing():
    (entry,) = reports(vip(backends={"endpoints": [{"address": "10.0.0.1", "weight": 0}]}))
    assert [(p.ready, p.total, p.reason) for p in entry.ports] == [(0, 0, "AllWeightsZero")]


def test_reports_of_much_text_are_cut_into_objects_that_etcd_takes():
    ports = [{"port": port, "targetPort": "nowhere"} for port in range(1, 33)]
    both = ("203.0.113.10", "2001:db8::10")
    elsewhere = vip(backends={"service": {"name": "web"}}, ports=ports, addresses=both)
    (entry,) = reports(elsewhere, slices={("shop", "web"): (endpoints("10.0.0.1"),)})
    cut = shards(dpn(), [entry.model_copy(update={"name": f"v{i}"}) for i in range(100)])
    assert sum(len(shard.vips) for shard in cut.values()) == 100
    assert max(len(shard.model_dump_json()) for shard in cut.values()) < 750_000


def test_what_the_data_plane_has_not_yet_is_not_reported_as_in_force():
    (entry,) = reports(vip(), in_force={})
    assert entry.generation == 0


def test_refusals_and_warnings_of_the_data_plane_arrive():
    def result(ids):
        refused = VipResult(id=ids["a"], error=Error(code="exhausted", message="no slot is free"))
        return ApplyResult(generation=1, changed=True, vips=(refused, VipResult(id=ids["b"], warnings=("uneven",))))

    first, second = reports(vip("a"), vip("b", addresses=("203.0.113.11",)), result=result)
    assert first.error == "no slot is free"
    assert (second.error, second.warning) == ("", "uneven")


def test_a_lasting_fallback_is_a_warning():
    trouble = Trouble(Reason.STALE, "frames are old")
    (entry,) = reports(vip(policyName="p"), policies={("shop", "p"): policy()}, troubles={"web": trouble})
    assert entry.warning == "policy little: stale, fallback lsq is used: frames are old"


def test_long_errors_fit_the_object():
    (entry,) = reports(vip(backends={"endpoints": [{"address": f"172.16.{i}.1"} for i in range(50)]}))
    assert len(entry.warning) == 1024
    assert entry.warning.endswith("...")
    assert len(entry.findings) == 16


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_shards_of_a_hundred(count, sizes):
    entries = reports(*(vip(f"v{i:03}", addresses=(f"203.0.{i // 200}.{i % 200 + 1}",)) for i in range(count)))
    cut = shards(dpn(), entries)
    assert [len(shard.vips) for shard in cut.values()] == sizes
    assert list(cut) == [f"edge.node-1-{index}" for index in range(len(sizes))]


def test_no_more_shards_than_a_node_may_have():
    entry = VipReport(namespace="web", name="v", uid="u", generation=1)
    cut = shards(dpn(), [entry.model_copy(update={"name": f"v{i}"}) for i in range(SHARDS_MAX * SHARD_SIZE + 1)])
    assert len(cut) == SHARDS_MAX


def test_a_node_that_works():
    status = node_status(dpn(), reports(vip()), facts(), NOW)
    assert condition(status)[:2] == ("True", "Ready")
    assert (status.observed_generation, status.instance_id, status.reattached_flows) == (3, "one", 7)
    assert (status.vips.programmed, status.vips.failing, status.summary.vips, status.summary.flows) == (
        1,
        0,
        "1/1",
        "5/100",
    )


def test_failing_vips_are_listed_up_to_a_limit():
    paused = {"penstock.dev/paused": "true"}  # before the node had them
    entries = reports(*(vip(f"v{i:03}", annotations=paused, addresses=(f"203.0.113.{i + 1}",)) for i in range(60)))
    status = node_status(dpn(), entries, facts(), NOW)
    assert (len(status.failing_vips), status.vips.failing) == (50, 60)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"hello": None, "link_error": "gone"}, "DataPlaneUnreachable", "gone"),
        ({"hello": None}, "DataPlaneUnreachable", "the data plane was not reached yet"),
        (
            {
                "result": ApplyResult(
                    generation=1,
                    changed=True,
                    vips=(),
                    errors=(Error(code="preflight", message="ip_forward is off", fix="sysctl -w ..."),),
                )
            },
            "PreflightFailed",
            "ip_forward is off; sysctl -w ...",
        ),
        ({"settled": False, "link_error": "refused"}, "Error", "refused"),
        ({"troubles": {"v": Trouble(Reason.UNREADABLE, "no such file")}}, "FramesStale", "no such file"),
    ],
)
def test_a_node_that_does_not(changes, reason, message):
    assert condition(node_status(dpn(), (), facts(**changes), NOW)) == ("False", reason, message)


def test_what_was_known_stays_while_the_data_plane_is_away():
    before = node_status(dpn(), (), facts(), NOW)
    after = node_status(
        dpn().model_copy(update={"status": before}), (), facts(hello=None, stats=None, link_error="gone"), NOW
    )
    assert (after.instance_id, after.last_error) == ("one", "gone")


@pytest.mark.parametrize(
    ("changes", "status", "reason", "message"),
    [
        ({}, "False", "Sufficient", "there is room"),
        ({"shortages": (Shortage.NAT_PORTS_EXHAUSTED,)}, "True", "NATPortsExhausted", "widen natSource.portFirst"),
        ({"shortages": tuple(Shortage)}, "True", "FlowTableFull", "of DataPlane edge, add nodes or backends"),
        ({"hello": None, "link_error": "gone"}, "Unknown", "DataPlaneUnreachable", "no counters"),
        ({"stats": None}, "Unknown", "DataPlaneUnreachable", "no counters"),
    ],
)
def test_what_a_node_runs_out_of_is_a_condition(changes, status, reason, message):
    found = condition(node_status(dpn(), (), facts(**changes), NOW), "Overloaded")
    assert found[:2] == (status, reason)
    assert message in found[2]


def test_a_node_that_is_overloaded_is_ready():
    """What it holds is served, and a node that took no part would leave its share to the others."""
    assert condition(node_status(dpn(), (), facts(shortages=tuple(Shortage)), NOW))[:2] == ("True", "Ready")

"""Limits of the DataPlane hold for VIPs that ask for more, and are reported; other VIPs stay as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.desired import plan
from penstock_api.limits import VipLimits
from penstock_api.vip import FlowTimeouts

from tests.support.agent_objects import endpoints, node, policy, service, snapshot, vip

WEB = ("shop", "web")
TIMES = {name: field.metadata[1].le for name, field in FlowTimeouts.model_fields.items()}


def planned(spec, limits, **fields):
    result = plan(snapshot(vip(**spec), node=node(limits=limits), **fields), None)
    return result.vips[0].vip, result.findings[0]


@pytest.mark.parametrize(
    ("spec", "limits", "field", "words"),
    [
        (
            {"timeouts": {"tcpEstablishedSeconds": 86_400}},
            {"maxTcpSeconds": 7440},
            "spec.timeouts.tcpEstablishedSeconds",
            "86400 is above 7440, limits.maxTcpSeconds of DataPlane edge",
        ),
        (
            {"timeouts": {"udpStreamSeconds": 86_400}},
            {"maxUdpSeconds": 300},
            "spec.timeouts.udpStreamSeconds",
            "86400 is above 300, limits.maxUdpSeconds",
        ),
        ({"drainSeconds": 600}, {"maxDrainSeconds": 500}, "spec.drainSeconds", "600 is above 500"),
        (
            {"affinity": "ClientIP", "policyName": "wide"},
            {"maxTableSize": 131_071},
            "spec.policyName",
            "policy wide: tableSize 1048573 is above 131071, limits.maxTableSize",
        ),
        ({}, {"maxBackends": 1}, "spec.backends", "can have 1 (limits.maxBackends of DataPlane edge)"),
    ],
)
def test_a_vip_that_asks_for_more_gets_the_limit_and_a_finding_that_names_it(spec, limits, field, words):
    policies = {("shop", "wide"): policy(tableSize=1_048_573)}
    core, found = planned(spec, limits, policies=policies)
    (note,) = found.notes
    assert note.field == field
    assert field in note.message and words in note.message
    before, unlimited = planned(spec, {}, policies=policies)
    assert unlimited.notes == ()
    assert core != before


def test_times_are_cut_to_the_limit_and_the_rest_stays():
    spec = {"timeouts": {"udpStreamSeconds": 9000, "udpExchangeSeconds": 20}, "drainSeconds": 600}
    core, _ = planned(spec, {"maxUdpSeconds": 60, "maxDrainSeconds": 0})
    assert (core.timeouts.udp_stream, core.timeouts.udp_exchange, core.drain_timeout) == (60.0, 20.0, 0.0)
    assert core.timeouts.tcp_established == 7440.0


def test_a_table_that_no_scheduler_uses_is_no_matter():
    _, found = planned({"policyName": "wide"}, {"maxTableSize": 251}, policies={("shop", "wide"): policy()})
    assert found.notes == ()


def test_endpoints_of_a_service_above_the_limit_are_left_out():
    slices = {WEB: (endpoints("10.1.0.1", "10.1.0.2", "10.1.0.3"),)}
    spec = {"ports": [{"port": 80, "targetPort": "http"}], "backends": {"service": {"name": "web"}}}
    core, found = planned(spec, {"maxBackends": 2}, slices=slices, services={WEB: service()})
    assert [str(backend.address) for backend in core.backends] == ["10.1.0.1", "10.1.0.2"]
    assert "left out: 10.1.0.3" in found.notes[0].message


@given(
    st.fixed_dictionaries({name: st.integers(1, most) for name, most in TIMES.items()}),
    st.integers(120, 604_800),
    st.integers(10, 86_400),
)
def test_no_timeout_is_above_its_limit_and_each_that_was_is_named(times, tcp, udp):
    core, found = planned({"timeouts": times}, {"maxTcpSeconds": tcp, "maxUdpSeconds": udp})
    limits = {name: tcp if name.startswith("tcp") else udp for name in times}
    for name, value in times.items():
        assert getattr(core.timeouts, name.removesuffix("_seconds")) == min(value, limits[name])
    assert len(found.notes) == sum(value > limits[name] for name, value in times.items())


def test_without_limits_everything_that_a_vip_may_ask_for_is_given():
    core, found = planned({"timeouts": TIMES, "drainSeconds": 86_400}, VipLimits().to_dict())
    assert found.notes == ()
    assert core.timeouts.tcp_established == 604_800

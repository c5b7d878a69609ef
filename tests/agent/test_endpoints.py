"""EndpointSlices and static endpoints to backends."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from penstock_agent.endpoints import from_slices, from_static, prune_slice, read_slice
from penstock_api.vip import Endpoint
from penstock_embedded.messages import BackendState


def raw_slice(*endpoints, ports=({"name": "http", "port": 8080, "protocol": "TCP"},), name="web-1"):
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": {"kubernetes.io/service-name": "web"},
            "managedFields": ["much"],
        },
        "addressType": "IPv6" if endpoints and ":" in endpoints[0]["addresses"][0] else "IPv4",
        "ports": list(ports),
        "endpoints": list(endpoints),
    }


def endpoint(address, uid="", **conditions):
    reference = {"targetRef": {"kind": "Pod", "uid": uid}} if uid else {}
    return {"addresses": [address], "conditions": conditions, **reference}


def slices(*raws):
    return [read_slice(prune_slice(raw)) for raw in raws]


def resolve(*raws, target=8080, version=4, vip_addresses=()):
    return from_slices(slices(*raws), target, "TCP", version, {ip_address(a) for a in vip_addresses})


def states(resolved):
    return {str(backend.address): backend.state for backend in resolved.backends}


ACTIVE, DRAINING, UNREADY = BackendState.ACTIVE, BackendState.DRAINING, BackendState.UNREADY


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({}, ACTIVE),  # absent conditions mean ready
        ({"ready": True, "serving": True, "terminating": False}, ACTIVE),
        ({"ready": None, "serving": None}, ACTIVE),
        ({"ready": False, "serving": True, "terminating": True}, DRAINING),
        ({"ready": False, "serving": False, "terminating": True}, DRAINING),
        ({"ready": False, "serving": False, "terminating": False}, UNREADY),
        ({"ready": False}, UNREADY),  # serving follows ready where it is absent
        ({"ready": True, "terminating": True}, DRAINING),  # publishNotReadyAddresses keeps ready true
    ],
)
def test_conditions_decide(conditions, state):
    resolved = resolve(raw_slice(endpoint("10.0.0.1", "other"), endpoint("10.0.0.2", **conditions)))
    assert states(resolved).get("10.0.0.2") == state


def test_terminating_servers_serve_where_nothing_else_is_left():
    leaving = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)
    assert states(resolve(raw_slice(leaving))) == {"10.0.0.2": ACTIVE}


def test_duplicates_across_slices_count_once_in_their_best_state():
    leaving = endpoint("10.0.0.1", "pod-a", ready=False, serving=True, terminating=True)
    ready = endpoint("10.0.0.1", "pod-a")
    for order in ((leaving, ready), (ready, leaving)):
        resolved = resolve(raw_slice(order[0]), raw_slice(order[1], name="web-2"))
        assert [(b.id, b.state) for b in resolved.backends] == [("pod-a", ACTIVE)]


def test_ids_are_pod_uids_or_address_and_port():
    resolved = resolve(raw_slice(endpoint("10.0.0.1", "pod-a"), endpoint("10.0.0.2")))
    assert [backend.id for backend in resolved.backends] == ["10.0.0.2:8080", "pod-a"]
    six = resolve(raw_slice(endpoint("2001:db8::1")), version=6)
    assert [backend.id for backend in six.backends] == ["[2001:db8::1]:8080"]


def test_named_ports_are_resolved_slice_by_slice():
    old = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080, "protocol": "TCP"}])
    new = raw_slice(endpoint("10.0.0.2"), ports=[{"name": "http", "port": 9090}], name="web-2")
    resolved = resolve(old, new, target="http")
    assert {str(b.address): b.port for b in resolved.backends} == {"10.0.0.1": 8080, "10.0.0.2": 9090}


def test_unknown_port_name_is_a_problem_that_names_the_fix():
    resolved = resolve(raw_slice(endpoint("10.0.0.1")), target="grpc")
    assert resolved.backends == ()
    assert "targetPort 'grpc'" in resolved.problems[0]
    assert "use a name" in resolved.problems[0]


def test_a_service_without_endpoints_is_no_problem_of_ports():
    assert resolve(target="http").problems == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "203.0.113.10"])
def test_special_addresses_and_vips_are_refused(address):
    resolved = resolve(raw_slice(endpoint(address), endpoint("10.0.0.1")), vip_addresses=["203.0.113.10"])
    assert list(states(resolved)) == ["10.0.0.1"]
    assert address in resolved.problems[0]


def test_only_endpoints_of_the_family_count():
    assert resolve(raw_slice(endpoint("10.0.0.1")), version=6).backends == ()


def test_pruned_slices_keep_nothing_that_is_not_read():
    pruned = prune_slice(raw_slice(endpoint("10.0.0.1", "pod-a"), {"addresses": [], "conditions": {}}))
    assert pruned == {
        "metadata": {"namespace": "shop", "name": "web-1"},
        "service": "web",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [["10.0.0.1", "pod-a", True, True, False]],
    }


def test_static_endpoints_keep_weights_and_ports_of_their_own():
    endpoints = (
        Endpoint(address="10.0.0.1", weight=3.0),
        Endpoint(address="10.0.0.2", port=9090),
        Endpoint(address="2001:db8::1"),
    )
    resolved = from_static(endpoints, 8080, 4, ())
    assert [(b.id, b.weight) for b in resolved.backends] == [("10.0.0.1:8080", 3.0), ("10.0.0.2:9090", 1.0)]


def test_a_static_endpoint_listed_twice_counts_once_with_both_shares():
    endpoints = (Endpoint(address="10.0.0.1", weight=3.0), Endpoint(address="10.0.0.1", port=8080, weight=2.0))
    assert [(b.id, b.weight) for b in from_static(endpoints, 8080, 4, ()).backends] == [("10.0.0.1:8080", 5.0)]


def test_static_endpoints_that_are_vips_are_refused():
    resolved = from_static((Endpoint(address="203.0.113.10"),), 80, 4, {ip_address("203.0.113.10")})
    assert resolved.backends == ()
    assert "loop" in resolved.problems[0]


def test_slices_of_names_have_no_endpoints():
    raw = raw_slice(endpoint("server.example")) | {"addressType": "FQDN"}
    assert resolve(raw).backends == ()


def test_ipv4_addresses_written_as_ipv6_are_ipv4():
    assert states(resolve(raw_slice(endpoint("::ffff:10.0.0.1")))) == {"10.0.0.1": ACTIVE}
    assert states(resolve(raw_slice(endpoint("::ffff:10.0.0.1")), version=6)) == {}

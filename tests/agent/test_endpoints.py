"""EndpointSlices and static endpoints to backends."""

from __future__ import annotations

from ipaddress import ip_address

import penstock_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.endpoints import Wanted, from_slices, from_static
from penstock_agent.slices import Service, read_service, read_slice
from penstock_api.dataplanenodereport import FindingReason
from penstock_api.vip import Endpoint
from penstock_embedded.messages import BackendState
from penstock_embedded.native import backend_number

from tests.support.agent_objects import service


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


NO_PORTS = Service()


def resolve(*raws, port=80, target=8080, protocol="TCP", version=4, vip_addresses=(), of=NO_PORTS):
    wanted = Wanted("shop/web", "spec.ports[0]", port, protocol, target, version)
    return from_slices([read_slice(raw) for raw in raws], of, wanted, {ip_address(a) for a in vip_addresses})


def states(resolved):
    return {str(backend.address): backend.state for backend in resolved.backends}


def servers(resolved):
    return {f"{backend.address}:{backend.port}" for backend in resolved.backends}


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
    resolved = resolve(raw_slice(leaving))
    assert states(resolved) == {"10.0.0.2": ACTIVE}
    assert [note.reason for note in resolved.notes] == ["OnlyTerminating"]


def test_duplicates_across_slices_count_once_in_their_best_state():
    ready = endpoint("10.0.0.1", "pod-a")
    for serving, terminating in ((True, True), (False, True), (False, False)):
        other = endpoint("10.0.0.1", "pod-a", ready=False, serving=serving, terminating=terminating)
        for first, second in ((other, ready), (ready, other)):
            resolved = resolve(raw_slice(first, endpoint("10.0.0.2", "pod-b")), raw_slice(second, name="web-2"))
            assert [(b.id, b.state) for b in resolved.backends] == [("10.0.0.1", ACTIVE), ("10.0.0.2", ACTIVE)]


def test_an_address_and_port_under_another_pod_is_the_same_server():
    before = resolve(raw_slice(endpoint("10.0.0.1", "vm-before")))
    after = resolve(raw_slice(endpoint("10.0.0.1", "vm-after")))
    assert before == after


def test_an_address_and_port_that_is_ready_twice_gets_one_share():
    resolved = resolve(raw_slice(endpoint("10.0.0.1", "a"), endpoint("10.0.0.1", "b"), endpoint("10.0.0.2", "c")))
    assert [backend.weight for backend in resolved.backends] == [1.0, 1.0]


def test_one_pod_with_two_addresses_keeps_both():
    resolved = resolve(raw_slice(endpoint("10.0.0.1", "pod-a"), endpoint("10.0.0.2", "pod-a")))
    assert servers(resolved) == {"10.0.0.1:8080", "10.0.0.2:8080"}


def test_ids_are_the_same_on_all_ports_of_a_vip():
    """`ClientIP` leads a client to one server on all ports, because the table of each port is built from the ids."""
    ports = [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}]
    raw = raw_slice(endpoint("10.0.0.1", "pod-a"), endpoint("10.0.0.2"), ports=ports)
    http, https = resolve(raw, target="http"), resolve(raw, target="https")
    assert [b.id for b in http.backends] == [b.id for b in https.backends] == ["10.0.0.1", "10.0.0.2"]
    assert {b.port for b in http.backends} == {8080}
    six = resolve(raw_slice(endpoint("2001:db8::1")), version=6)
    assert [backend.id for backend in six.backends] == ["2001:db8::1"]


def test_clients_keep_their_server_on_all_ports():
    ports = [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}]
    raw = raw_slice(*(endpoint(f"10.0.0.{i}") for i in range(1, 5)), ports=ports)

    def servers_by_place(target):
        found = resolve(raw, target=target).backends
        numbers = [backend_number(backend.id) for backend in found]
        table = penstock_core.maglev_table(numbers, [1.0] * len(numbers), 251, bytes(16))
        return [found[index].address for index in table]

    assert servers_by_place("http") == servers_by_place("https")


def test_several_ports_of_one_address_are_several_servers():
    old = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    new = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 9090}], name="web-2")
    assert [b.id for b in resolve(old, new, target="http").backends] == ["10.0.0.1:8080", "10.0.0.1:9090"]


def test_named_ports_are_resolved_slice_by_slice():
    old = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080, "protocol": "TCP"}])
    new = raw_slice(endpoint("10.0.0.2"), ports=[{"name": "http", "port": 9090}], name="web-2")
    assert servers(resolve(old, new, target="http")) == {"10.0.0.1:8080", "10.0.0.2:9090"}


def test_a_number_takes_only_endpoints_of_slices_that_have_it():
    old = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    new = raw_slice(endpoint("10.0.0.2"), ports=[{"name": "http", "port": 9090}], name="web-2")
    assert servers(resolve(old, new, target=8080)) == {"10.0.0.1:8080"}


def test_a_slice_port_without_a_number_stands_for_all():
    assert servers(resolve(raw_slice(endpoint("10.0.0.1"), ports=[{"name": ""}]), target=8080)) == {"10.0.0.1:8080"}


def test_a_port_without_target_leads_where_the_services_port_does():
    raw = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    assert servers(resolve(raw, target=None, of=service(port=80, target=8080))) == {"10.0.0.1:8080"}
    unnamed = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "", "port": 8080}])
    assert servers(resolve(unnamed, target=None, of=service(port=80, name=""))) == {"10.0.0.1:8080"}


def test_a_port_without_target_that_the_service_has_not_means_its_own_number():
    raw = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    assert servers(resolve(raw, port=8080, target=None, of=service(port=80))) == {"10.0.0.1:8080"}
    nowhere = resolve(raw, port=81, target=None, of=service(port=80))
    assert nowhere.shortfall.reason == FindingReason.PORT_NOT_FOUND
    assert nowhere.shortfall.field == "spec.ports[0].port"
    assert "http (8080/TCP)" in nowhere.shortfall.message


def test_the_name_of_the_pods_port_is_a_target_as_in_a_service():
    raw = raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    assert servers(resolve(raw, target="web-port", of=service(target="web-port"))) == {"10.0.0.1:8080"}


def test_a_single_port_without_a_name_can_be_named():
    raw = raw_slice(endpoint("10.0.0.1"), ports=[{"port": 8080}])
    assert servers(resolve(raw, target="http")) == {"10.0.0.1:8080"}
    two = raw_slice(endpoint("10.0.0.1"), ports=[{"port": 8080}, {"name": "other", "port": 9090}])
    assert resolve(two, target="http").leads_nowhere


@pytest.mark.parametrize(
    ("raws", "options", "reason", "words"),
    [
        ([], {"of": None}, "ServiceNotFound", ["spec.backends.service.name", "shop/web", "does not exist"]),
        ([], {"of": Service(external=True)}, "ExternalNameService", ["ExternalName", "selector"]),
        ([], {}, "NoEndpointSlices", ["no endpoints", "selector"]),
        ([raw_slice()], {}, "NoEndpointSlices", ["no endpoints"]),
        (
            [raw_slice(endpoint("10.0.0.1"))],
            {"target": "grpc"},
            "PortNotFound",
            ["spec.ports[0].targetPort", "'grpc'", "http (8080/TCP)"],
        ),
        ([raw_slice(endpoint("10.0.0.1"))], {"target": "8080"}, "PortNotFound", ["write 8080 without quotes"]),
        ([raw_slice(endpoint("10.0.0.1"))], {"target": 81}, "PortNotFound", ["81", "http (8080/TCP)"]),
        (
            [raw_slice(endpoint("10.0.0.1"))],
            {"protocol": "UDP"},
            "ProtocolMismatch",
            ["spec.ports[0].protocol", "UDP", "TCP"],
        ),
        ([raw_slice(endpoint("10.0.0.1"))], {"version": 6}, "FamilyMismatch", ["IPv6", "spec.addressFamilies"]),
        ([raw_slice(endpoint("10.0.0.1", ready=False))], {}, "NoReadyEndpoints", ["none of its endpoints is ready"]),
        ([raw_slice(endpoint("127.0.0.1"))], {}, "EndpointNotAllowed", ["127.0.0.1"]),
        (
            [raw_slice(endpoint("server.example")) | {"addressType": "FQDN"}],
            {},
            "EndpointInvalid",
            ["EndpointSlice shop/web-1", "names"],
        ),
        ([raw_slice(endpoint("010.0.0.1"))], {}, "EndpointInvalid", ["shop/web-1", "endpoints[0]", "'010.0.0.1'"]),
        (
            [raw_slice(endpoint("10.0.0.1"), ports=[{"name": "http", "port": 70000}])],
            {"target": "http"},
            "EndpointInvalid",
            ["EndpointSlice shop/web-1", "ports[0].port", "70000"],
        ),
    ],
)
def test_the_reason_why_there_is_no_backend(raws, options, reason, words):
    resolved = resolve(*raws, **options)
    assert ACTIVE not in states(resolved).values()
    assert resolved.shortfall.reason == reason
    for word in words:
        assert word in resolved.shortfall.message


@pytest.mark.parametrize("port", [70000, 65536, -1, 0, 2**31])
def test_a_port_that_is_none_costs_its_slice_alone(port):
    odd = raw_slice(endpoint("10.0.0.9"), ports=[{"name": "http", "port": port}], name="odd")
    resolved = resolve(raw_slice(endpoint("10.0.0.1")), odd, target="http")
    assert servers(resolved) == {"10.0.0.1:8080"}
    assert f"EndpointSlice shop/odd: ports[0].port: {port}" in resolved.notes[0].message
    assert resolved.shortfall is None


@pytest.mark.parametrize("address", ["010.0.0.9", "10.0.0", "fe80::1%eth0", "x" * 5000, ""])
def test_an_address_that_is_none_costs_its_endpoint_alone(address):
    resolved = resolve(raw_slice(endpoint("10.0.0.1"), endpoint(address)))
    assert servers(resolved) == {"10.0.0.1:8080"}
    assert "EndpointSlice shop/web-1: endpoints[1].addresses[0]" in resolved.notes[0].message
    assert len(resolved.notes[0].message) < 512


def test_a_uid_of_any_length_is_no_matter():
    assert servers(resolve(raw_slice(endpoint("10.0.0.1", "u" * 5000)))) == {"10.0.0.1:8080"}


def test_many_faults_of_a_slice_are_named_up_to_a_limit():
    resolved = resolve(raw_slice(endpoint("10.0.0.1"), *(endpoint(f"010.0.0.{i}") for i in range(100))))
    assert servers(resolved) == {"10.0.0.1:8080"}
    assert len(resolved.notes) == 9
    assert "92 more" in resolved.notes[-1].message


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "203.0.113.10"])
def test_special_addresses_and_vips_are_refused(address):
    resolved = resolve(raw_slice(endpoint(address), endpoint("10.0.0.1")), vip_addresses=["203.0.113.10"])
    assert list(states(resolved)) == ["10.0.0.1"]
    assert address in resolved.notes[0].message
    assert resolved.notes[0].reason == "EndpointNotAllowed"


def test_only_endpoints_of_the_family_count():
    assert resolve(raw_slice(endpoint("10.0.0.1")), version=6).backends == ()


def test_static_endpoints_keep_weights_and_ports_of_their_own():
    endpoints = (
        Endpoint(address="10.0.0.1", weight=3.0),
        Endpoint(address="10.0.0.2", port=9090),
        Endpoint(address="2001:db8::1"),
    )
    resolved = from_static(enumerate(endpoints), 8080, 4, ())
    assert [(b.id, b.port, b.weight) for b in resolved.backends] == [("10.0.0.1", 8080, 3.0), ("10.0.0.2", 9090, 1.0)]


def test_a_static_endpoint_listed_twice_counts_once_with_both_shares():
    endpoints = (Endpoint(address="10.0.0.1", weight=3.0), Endpoint(address="10.0.0.1", port=8080, weight=2.0))
    assert [(b.id, b.weight) for b in from_static(enumerate(endpoints), 8080, 4, ()).backends] == [("10.0.0.1", 5.0)]


def test_static_endpoints_that_are_vips_are_refused():
    resolved = from_static([(7, Endpoint(address="203.0.113.10"))], 80, 4, {ip_address("203.0.113.10")})
    assert resolved.backends == ()
    assert "spec.backends.endpoints[7].address" in resolved.notes[0].message
    assert "loop" in resolved.notes[0].message


def test_static_endpoints_that_all_have_weight_0_are_said():
    resolved = from_static(enumerate([Endpoint(address="10.0.0.1", weight=0)]), 80, 4, ())
    assert len(resolved.backends) == 1
    assert resolved.shortfall is not None
    assert resolved.shortfall.reason == "AllWeightsZero"


def test_ipv4_addresses_written_as_ipv6_are_ipv4():
    assert states(resolve(raw_slice(endpoint("::ffff:10.0.0.1")))) == {"10.0.0.1": ACTIVE}
    assert states(resolve(raw_slice(endpoint("::ffff:10.0.0.1")), version=6)) == {}


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.sampled_from(["10.0.0.1", "http", "IPv4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def maybe(strategy):
    return strategy | st.none() | junk


addresses = st.sampled_from(["10.0.0.1", "010.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "127.0.0.1"]) | st.text()
numbers = st.integers(-(2**31), 2**31) | st.sampled_from([0, 1, 80, 8080, 65535, 65536, 70000])
names = st.sampled_from(["", "http", "8080", "a" * 63]) | st.text(max_size=70)


def objects(**fields):
    return st.fixed_dictionaries({}, optional={name: maybe(field) for name, field in fields.items()})


raw_slices = objects(
    metadata=objects(name=st.text(), labels=objects(**{"kubernetes.io/service-name": st.text()})),
    addressType=st.sampled_from(["IPv4", "IPv6", "FQDN", "IPX"]),
    ports=st.lists(objects(name=names, protocol=st.sampled_from(["TCP", "UDP", "SCTP", "DCCP"]), port=numbers)),
    endpoints=st.lists(
        objects(
            addresses=st.lists(addresses),
            conditions=objects(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans()),
            targetRef=objects(uid=st.text(max_size=300)),
        )
    ),
)
raw_services = objects(
    metadata=objects(name=st.text()),
    spec=objects(
        type=st.sampled_from(["ClusterIP", "ExternalName"]),
        ports=st.lists(objects(name=names, port=numbers, protocol=st.text(), targetPort=names | numbers)),
    ),
)


@given(
    raws=st.lists(raw_slices, max_size=3),
    raw_service=raw_services | st.none(),
    target=st.none() | st.integers(1, 65535) | names,
    protocol=st.sampled_from(["TCP", "UDP"]),
    version=st.sampled_from([4, 6]),
)
def test_every_slice_and_service_gives_backends_and_reasons(raws, raw_service, target, protocol, version):
    of = None if raw_service is None else read_service(raw_service)
    resolved = resolve(*raws, target=target, protocol=protocol, version=version, of=of)
    assert (ACTIVE in states(resolved).values()) == (resolved.shortfall is None)
    assert len({backend.id for backend in resolved.backends}) == len(resolved.backends)
    assert len({(backend.address, backend.port) for backend in resolved.backends}) == len(resolved.backends)

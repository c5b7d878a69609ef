"""Endpoints of a Service as the backends of a VIP, and what becomes of them when the spec leads nowhere."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from penstock_agent.desired import Memo, Plan, plan
from penstock_agent.slices import Service
from penstock_embedded.messages import BackendState

from tests.support.agent_objects import WEB, backends, endpoints, of_service, planned, service, snapshot, vip


def test_endpoints_of_the_service_are_found_by_name():
    result = planned(of_service(), slices={WEB: (endpoints("10.1.0.1"),)})
    assert backends(result) == ["10.1.0.1:8080"]


@pytest.mark.parametrize(
    ("typo", "reason", "field"),
    [
        ({"target": "htpt"}, "PortNotFound", "spec.ports[0].targetPort"),
        ({"target": 8081}, "PortNotFound", "spec.ports[0].targetPort"),
        ({"name": "wbe"}, "ServiceNotFound", "spec.backends.service.name"),
        ({"name": "elsewhere"}, "ExternalNameService", "spec.backends.service.name"),
    ],
)
def test_a_typo_in_a_live_vip_keeps_the_backends_and_names_the_field(typo, reason, field):
    services = {WEB: service(), ("shop", "elsewhere"): Service(external=True)}
    slices = {WEB: (endpoints("10.1.0.1"),)}
    before = planned(of_service(), slices=slices, services=services)
    memo = Memo()
    for _ in range(2):
        spoilt = plan(snapshot(of_service(generation=2, **typo), slices=slices, services=services), before, memo)
        assert backends(spoilt) == ["10.1.0.1:8080"]
        (core,) = spoilt.vips
        assert core.shortfall is not None
        assert (core.kept, core.shortfall.reason, core.shortfall.field) == (True, reason, field)
        assert core.shortfall in spoilt.findings[0].notes
        assert ("shop", "web") in spoilt.services
        before = spoilt
    # Kept backends are followed as they come and go.
    slices = {WEB: (endpoints("10.1.0.1", "10.1.0.2"),)}
    grown = plan(snapshot(of_service(generation=2, **typo), slices=slices, services=services), before, memo)
    assert backends(grown) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    gone = plan(snapshot(of_service(generation=2, **typo), slices={WEB: ()}, services=services), grown, memo)
    assert backends(gone) == []
    mended = plan(snapshot(of_service(generation=3), slices={WEB: (endpoints("10.1.0.3"),)}), grown, memo)
    assert (backends(mended), mended.vips[0].kept, mended.findings[0].notes) == (["10.1.0.3:8080"], False, ())


def test_a_service_port_that_is_renamed_keeps_the_backends():
    before = planned(of_service(), slices={WEB: (endpoints("10.1.0.1", "10.1.0.2"),)})
    renamed = planned(of_service(), previous=before, slices={WEB: (endpoints("10.1.0.2", "10.1.0.3", name="web"),)})
    assert (backends(renamed), renamed.vips[0].kept) == (["10.1.0.2:8080"], True)


def test_a_typo_from_the_start_has_nothing_to_keep():
    result = planned(of_service(target="htpt"), slices={WEB: (endpoints("10.1.0.1"),)})
    assert (backends(result), result.vips[0].kept, result.vips[0].shortfall.reason) == ([], False, "PortNotFound")


def test_a_service_without_pods_has_no_backends_although_there_were_some():
    before = planned(of_service(), slices={WEB: (endpoints("10.1.0.1"),)}, services={WEB: service()})
    after = planned(of_service(), previous=before, services={WEB: service()})
    assert (backends(after), after.vips[0].kept) == ([], False)
    assert after.vips[0].shortfall.reason == "NoEndpointSlices"


def test_a_port_without_target_follows_the_service_except_where_ports_cannot_change():
    fields = {"slices": {WEB: (endpoints("10.1.0.1"),)}, "services": {WEB: service(port=80, target=8080)}}
    assert backends(planned(of_service(target=None), **fields)) == ["10.1.0.1:8080"]
    assert backends(planned(of_service(target=None, forwarding="GRE"), **fields)) == []


def test_more_endpoints_than_a_port_can_have_are_left_out_and_named():
    many = endpoints(*(f"10.1.{i // 250}.{i % 250 + 1}" for i in range(1030)))
    result = planned(of_service(), slices={WEB: (many,)})
    assert len(result.vips[0].vip.backends) == 1024
    (note,) = result.findings[0].notes
    assert note.reason == "TooManyBackends"
    assert "1030 endpoints" in note.message
    left_out = {str(e.address) for e in many.endpoints} - {b.id for b in result.vips[0].vip.backends}
    assert len(left_out) == 6
    assert all(address in note.message for address in left_out)


def test_the_last_good_plan_of_the_version_before_is_read():
    after = planned(of_service(), slices={WEB: (endpoints("10.1.0.1"),)})
    raw = json.loads(after.model_dump_json())
    for core in raw["vips"]:
        for field in ("origin", "kept", "shortfall"):
            del core[field]
        core["vip"]["backends"][0]["id"] = "uid-of-a-pod"
    raw["findings"] = [{"owner": raw["findings"][0]["owner"], "errors": ["e"], "warnings": ["w"], "paused": False}]
    before = Plan.model_validate_json(json.dumps(raw))
    typo = planned(of_service(target="htpt"), previous=before, slices={WEB: (endpoints("10.1.0.1"),)})
    assert (backends(typo), typo.vips[0].kept) == (["10.1.0.1:8080"], True)


def test_ready_backends_go_before_others_where_there_are_too_many():
    def slice_of(count, first, ready):
        addresses = (ip_address(first) + number for number in range(count))
        return endpoints(*map(str, addresses), ready=ready)

    slices = {WEB: (slice_of(1000, "10.1.0.1", False), slice_of(1000, "10.2.0.1", True))}
    (core,) = planned(vip(backends={"service": {"name": "web"}}), slices=slices).vips
    assert len(core.vip.backends) == 1024
    assert sum(b.state is BackendState.ACTIVE for b in core.vip.backends) == 1000

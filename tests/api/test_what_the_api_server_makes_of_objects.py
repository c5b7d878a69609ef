"""Defaults, immutability, names and columns, as a user sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from penstock_api import KINDS, LoadBalancerVIP, RLPolicy, parse, parse_yaml
from penstock_api.reading import read_yaml
from penstock_api.rlpolicy import PolicyMode

from e2e.cluster import ControlPlane
from tests.support.bad_objects import DATAPLANE, GOOD, NODE, POLICY, REMOVED, REPORT, VIP, changed
from tests.support.rest import Rest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.apiserver


def named(obj: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a copy under a name of its own, so that tests don't meet."""
    spoilt = {path.replace("__", "."): value for path, value in changes.items()}
    return changed(obj, {"metadata.name": f"t-{uuid4().hex[:8]}", **spoilt})


def created(rest: Rest, obj: dict[str, Any]) -> dict[str, Any]:
    answer = rest.create(obj)
    assert answer.status == 201, answer.message
    return answer.body


@pytest.mark.parametrize("kind", ["vip", "policy", "pool", "dataplane", "node"])
def test_a_new_object_says_that_nobody_has_looked(kind: str, rest: Rest) -> None:
    status = created(rest, named(GOOD[kind]))["status"]
    assert status == {
        "observedGeneration": -1,
        "conditions": [
            {
                "type": "Ready",
                "status": "Unknown",
                "observedGeneration": -1,
                "lastTransitionTime": "1970-01-01T00:00:00Z",
                "reason": "Pending",
                "message": "Waiting for Penstock; if this stays, check that its operator runs",
            }
        ],
    }


@pytest.mark.parametrize("kind", GOOD)
def test_the_api_server_fills_in_the_same_defaults_as_the_models(kind: str, rest: Rest) -> None:
    sent = named(GOOD[kind])
    stored = created(rest, sent)
    model = KINDS[sent["kind"]]
    body = "report" if kind == "report" else "spec"
    from_file = parse(model, sent).to_dict()[body]
    assert parse(model, stored).to_dict()[body] == from_file


def test_off_needs_no_quotes(installed: ControlPlane, rest: Rest) -> None:
    name = f"t-{uuid4().hex[:8]}"
    text = f"""
        apiVersion: penstock.dev/v1alpha1
        kind: RLPolicy
        metadata: {{name: {name}, namespace: default}}
        spec: {{heuristic: little, mode: Off}}
    """
    installed.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    stored = rest.get({**POLICY, "metadata": {"name": name, "namespace": "default"}}).body
    assert stored["spec"]["mode"] is False  # what YAML makes of it
    (from_file,) = parse_yaml(text)
    assert isinstance(from_file, RLPolicy)
    for policy in (parse(RLPolicy, stored), from_file):
        assert policy.spec.mode is PolicyMode.OFF
        assert policy.to_dict()["spec"]["mode"] == "Off"


def test_a_vip_may_say_as_little_as_ports_and_backends(rest: Rest) -> None:
    spec = {"ports": [{"port": 80}], "backends": {"service": {"name": "web"}}}
    stored = created(rest, named(VIP, spec=spec))["spec"]
    assert stored["addressFamilies"] == ["IPv4"]
    assert stored["ports"] == [{"port": 80, "protocol": "TCP"}]
    assert stored["healthCheck"]["type"] == "TCP"
    assert stored["timeouts"]["tcpEstablishedSeconds"] == 7440
    assert "interfaces" not in stored
    assert "addresses" not in stored


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"addresses": ["203.0.113.10/32"]}, "spec.addresses[0]"),
        ({"addresses": ["203.0.113.10", "web"]}, "spec.addresses[1]"),
        ({"ports": [{"port": 70000}]}, "spec.ports[0].port"),
        ({"backends": {"endpoints": [{"address": "10.1.2.3/8"}]}}, "spec.backends.endpoints[0].address"),
    ],
)
def test_one_mistake_is_one_error(spec: dict[str, Any], field: str, rest: Rest) -> None:
    answer = rest.create(named(VIP, spec=VIP["spec"] | spec))
    assert answer.status == 422, answer.body
    assert answer.fields == [field], answer.message


def test_a_udp_port_needs_no_word_about_health_checks(rest: Rest) -> None:
    spec = {"ports": [{"port": 53}], "backends": {"service": {"name": "dns"}}}
    mine = named(VIP, spec=spec)
    created(rest, mine)
    answer = rest.merge(mine, {"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}})
    assert answer.status == 200, answer.message


def test_a_data_plane_needs_no_spec(rest: Rest) -> None:
    stored = created(rest, named(DATAPLANE, spec=REMOVED))["spec"]
    assert stored["natSource"] == {"type": "NodeAddress", "portFirst": 16384, "portLast": 28671}
    assert stored["announcement"] == {"type": "None"}


IMMUTABLE = [
    (VIP, {"spec": {"dataPlaneName": "other"}}, "spec.dataPlaneName"),
    (
        VIP,
        {
            "spec": {
                "addressFamilies": ["IPv6"],
                "addresses": ["2001:db8::1"],
                "backends": {"endpoints": [{"address": "2001:db8::2"}]},
            }
        },
        "spec.addressFamilies",
    ),
    (NODE, {"spec": {"nodeName": "node-2"}}, "spec.nodeName"),
    (NODE, {"spec": {"dataPlaneName": "other"}}, "spec.dataPlaneName"),
    (REPORT, {"report": {"nodeName": "node-2"}}, "report.nodeName"),
]


@pytest.mark.parametrize(
    ("obj", "patch", "field"), IMMUTABLE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_cannot_be_changed(obj: dict[str, Any], patch: dict[str, Any], field: str, rest: Rest) -> None:
    mine = named(obj)
    created(rest, mine)
    answer = rest.merge(mine, patch)
    assert answer.status == 422, answer.body
    assert f"{field}: Invalid value" in answer.message
    assert "can't be changed; delete the object and create it anew" in answer.message


def test_what_can_be_changed(rest: Rest) -> None:
    mine = named(VIP)
    created(rest, mine)
    patch = {
        "spec": {
            "addresses": ["203.0.113.11"],
            "ports": [{"port": 443, "targetPort": 8443}],
            "backends": {"endpoints": None, "service": {"name": "web"}},
            "policyName": "web",
        }
    }
    answer = rest.merge(mine, patch)
    assert answer.status == 200, answer.message
    assert answer.body["metadata"]["generation"] == 2


@pytest.mark.parametrize("name", ["http-metrics-of-the-web-server", "8080", "0", "a" * 63, "1-2"])
def test_target_ports_have_the_names_of_service_ports(name: str, rest: Rest) -> None:
    mine = named(VIP, spec__ports=[{"port": 80, "targetPort": name}], spec__backends={"service": {"name": "web"}})
    created(rest, mine)
    assert parse(LoadBalancerVIP, rest.get(mine).body).spec.ports[0].target_port == name


def test_the_same_families_in_another_order_are_no_change(rest: Rest) -> None:
    mine = named(VIP, spec__addressFamilies=["IPv4", "IPv6"], spec__addresses=["203.0.113.10", "2001:db8::1"])
    created(rest, mine)
    assert rest.merge(mine, {"spec": {"addressFamilies": ["IPv6", "IPv4"]}}).status == 200


def test_status_is_a_subresource(rest: Rest) -> None:
    mine = named(POLICY)
    created(rest, mine)
    rest.merge(mine, {"status": {"summary": {"vips": "7"}}})
    assert "summary" not in rest.get(mine).body["status"]
    rest.merge(mine, {"status": {"summary": {"vips": "7"}}}, subresource="/status")
    stored = rest.get(mine).body
    assert stored["status"]["summary"] == {"vips": "7"}
    assert stored["metadata"]["generation"] == 1


def test_columns_are_for_people(rest: Rest, installed: ControlPlane) -> None:
    mine = named(VIP)
    created(rest, mine)
    summary = {"addresses": "203.0.113.10", "ports": "80/TCP", "backends": "3/4", "policy": "little (Active)"}
    rest.merge(mine, {"status": {"summary": summary}}, subresource="/status")
    head, row = installed.kubectl("get", "vip", mine["metadata"]["name"]).splitlines()
    assert head.split() == ["NAME", "ADDRESSES", "PORTS", "BACKENDS", "POLICY", "READY", "REASON", "AGE"]
    assert row.split()[1:7] == ["203.0.113.10", "80/TCP", "3/4", "little", "(Active)", "Unknown"]
    assert row.split()[7] == "Pending"
    wide = installed.kubectl("get", "vip", mine["metadata"]["name"], "-o", "wide").splitlines()
    assert "Waiting for Penstock; if this stays, check that its operator runs" in wide[1]
    heads = {
        "dp": ["NAME", "TYPE", "ANNOUNCEMENT", "NODES", "READY", "REASON", "AGE"],
        "dpn": ["NAME", "DATAPLANE", "NODE", "VIPS", "FLOWS", "READY", "REASON", "AGE"],
        "rlp": ["NAME", "HEURISTIC", "MODE", "VIPS", "READY", "REASON", "AGE"],
        "pool": ["NAME", "ADDRESSES", "AUTOASSIGN", "USED", "FREE", "READY", "REASON", "AGE"],
        "dpnr": ["NAME", "DATAPLANE", "NODE", "AGE"],
    }
    for obj in (POLICY, GOOD["pool"], DATAPLANE, NODE, REPORT):
        created(rest, named(obj))
    for short_name, expected in heads.items():
        assert installed.kubectl("get", short_name).splitlines()[0].split() == expected


def test_explain_tells_choices_and_their_meaning(installed: ControlPlane) -> None:
    explained = installed.kubectl("explain", "vip.spec.affinity")
    assert "ClientIP: All connections of one client address go to the same backend." in explained
    assert "What stays with a backend" in explained


@pytest.mark.parametrize("folder", ["kubernetes", "standalone"])
def test_examples_are_accepted(folder: str, installed: ControlPlane) -> None:
    applied = installed.kubectl("apply", "--dry-run=server", "-f", str(EXAMPLES / folder))
    assert "loadbalancervip.penstock.dev/web created (server dry run)" in applied


def nullable_places(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every field of an object below spec."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{path}.{key}"
            yield from nullable_places(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield f"{path}.{index}"
            yield from nullable_places(below, f"{path}.{index}")


@pytest.mark.parametrize("kind", ["vip", "policy", "pool", "dataplane"])
def test_nulls_in_files_are_taken_as_the_api_server_takes_them(kind: str, rest: Rest) -> None:
    model = KINDS[GOOD[kind]["kind"]]
    spec = model.model_fields["spec"].annotation
    assert spec is not None
    absent = [f"spec.{field.alias}" for field in spec.model_fields.values()]
    places = {
        *absent,
        *nullable_places(GOOD[kind]["spec"], "spec"),
        "metadata.annotations",
        "metadata.labels",
        "status",
    }
    differing = []
    for place in sorted(places):
        obj = named(GOOD[kind], **{place.replace(".", "__"): None})
        answer = rest.create(obj)
        taken = answer.status == 201
        if taken != (not read_yaml(json.dumps(obj)).errors):
            differing.append((place, answer.status, getattr(answer, "message", "")))
    assert differing == []

"""Two ways of reading: leniently from the API server, strictly from files; one error tree."""

from __future__ import annotations

import pytest
import yaml
from penstock_api import (
    DataPlane,
    DataPlaneNodeReport,
    InvalidObjectError,
    KindError,
    LoadBalancerVIP,
    MalformedDocumentError,
    Source,
    UnknownKindError,
    parse,
    parse_any,
    parse_yaml,
)
from penstock_api.vip import HealthCheck

from tests.support.bad_objects import GOOD, REPORT, VIP, changed

NEWER = {"spec.congestion": "bbr", "spec.healthCheck.jitter": 3, "metadata.somethingNew": {}}


def test_fields_of_a_newer_schema_are_ignored_from_the_api_server() -> None:
    assert parse(LoadBalancerVIP, changed(VIP, NEWER)) == parse(LoadBalancerVIP, VIP)


def test_unknown_fields_in_files_are_typing_errors() -> None:
    with pytest.raises(InvalidObjectError) as caught:
        parse(LoadBalancerVIP, changed(VIP, NEWER), source=Source.FILE)
    assert {error.path for error in caught.value.errors} == {
        "spec.congestion",
        "spec.healthCheck.jitter",
        "metadata.somethingNew",
    }


def test_a_misspelt_field_is_answered_with_its_name() -> None:
    with pytest.raises(InvalidObjectError, match=r"spec\.backends\.endpoints\[0\]\.adress: .*did you mean address\?"):
        parse(LoadBalancerVIP, changed(VIP, {"spec.backends.endpoints.0.adress": "x"}), source=Source.FILE)


def test_all_errors_come_at_once_and_say_everything() -> None:
    with pytest.raises(InvalidObjectError) as caught:
        parse(LoadBalancerVIP, changed(VIP, {"spec.ports.0.port": 0, "spec.drainSeconds": -1}))
    assert caught.value.kind == "LoadBalancerVIP"
    assert caught.value.name == "default/web"
    assert str(caught.value) == (
        "LoadBalancerVIP default/web: spec.ports[0].port: must be at least 1 (is 0); use a value of at least 1\n"
        "LoadBalancerVIP default/web: spec.drainSeconds: must be at least 0 (is -1); use a value of at least 0"
    )
    assert caught.value.brief().count(";") == 3


def test_long_values_are_cut() -> None:
    with pytest.raises(InvalidObjectError) as caught:
        parse(LoadBalancerVIP, changed(VIP, {"spec.policyName": "x" * 500}))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_written_is_read_back(kind: str) -> None:
    obj = parse_any(GOOD[kind])
    assert parse_yaml(yaml.safe_dump(obj.to_dict())) == [obj]


def test_a_file_may_hold_many_documents_and_those_of_others() -> None:
    text = yaml.safe_dump_all([GOOD["vip"], {"apiVersion": "v1", "kind": "Service"}, GOOD["dataplane"]]) + "---\n"
    assert [obj.info.kind for obj in parse_yaml(text, foreign="skip")] == ["LoadBalancerVIP", "DataPlane"]
    with pytest.raises(UnknownKindError, match="write apiVersion"):
        parse_yaml(text)


def test_a_namespace_is_filled_in_where_there_is_one() -> None:
    text = yaml.safe_dump_all([changed(VIP, {"metadata": {"name": "web"}}), GOOD["dataplane"]])
    assert [obj.key for obj in parse_yaml(text)] == ["default/web", "edge"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "not YAML"),
        ("- 1", "must be an object"),
        ("just words", "must be an object"),
        ("a: 1\na: 2", "'a' appears twice"),
        ("apiVersion: penstock.dev/v2\nkind: DataPlane", "penstock.dev/v1alpha1"),
        ("apiVersion: penstock.dev/v1alpha1\nkind: DataPlan", "DataPlane"),
        ("apiVersion: penstock.dev/v1alpha1\nkind: DataPlane", "metadata: is required"),
        ("apiVersion: penstock.dev/v1alpha1\nkind: DataPlane\nmetadata: x", "metadata: must be a map"),
        ("apiVersion: penstock.dev/v1alpha1\nkind: [DataPlane]", "not a kind of Penstock"),
    ],
)
def test_what_is_no_object_is_refused_with_the_one_error_tree(text: str, words: str) -> None:
    with pytest.raises(KindError, match=words.replace(".", r"\.")):
        parse_yaml(text)


def test_times_stay_text_as_in_kubernetes() -> None:
    text = yaml.safe_dump(VIP).replace("  name: web\n", "  name: web\n  creationTimestamp: 2026-01-01T00:00:00Z\n", 1)
    assert parse_yaml(text)[0].metadata.creation_timestamp is not None


def test_an_item_of_a_list_answer_has_no_kind_of_its_own() -> None:
    raw = {key: value for key, value in VIP.items() if key not in ("apiVersion", "kind")}
    assert parse(LoadBalancerVIP, raw).info.kind == "LoadBalancerVIP"


def test_malformed_is_a_kind_error() -> None:
    assert issubclass(MalformedDocumentError, KindError)


def test_annotations_and_deletion_are_seen() -> None:
    raw = changed(
        GOOD["dataplane"],
        {"metadata.annotations": {"penstock.dev/paused": "true"}, "metadata.deletionTimestamp": "2026-01-01T00:00:00Z"},
    )
    obj = parse(DataPlane, raw)
    assert obj.paused
    assert obj.deleting
    assert not obj.ready


def test_defaults_that_depend_on_other_fields() -> None:
    vip = parse(LoadBalancerVIP, changed(VIP, {"spec.ports": [{"port": 443}]}))
    assert vip.spec.ports[0].target == 443
    assert HealthCheck().accepts(302)
    assert not HealthCheck().accepts(500)
    check = HealthCheck.model_validate({"type": "HTTP", "path": "/", "expectedStatuses": ["200", "500-503"]})
    assert [status for status in (200, 201, 499, 500, 503, 504) if check.accepts(status)] == [200, 500, 503]


@pytest.mark.parametrize("name", ["http-metrics-of-the-web-server", "8080", "0", "a" * 63, "1-2"])
def test_target_ports_have_the_names_of_service_ports(name: str) -> None:
    by_service = {"spec.ports.0.targetPort": name, "spec.backends": {"service": {"name": "web"}}}
    for source in Source:
        assert parse(LoadBalancerVIP, changed(VIP, by_service), source=source).spec.ports[0].target_port == name


def test_reasons_of_findings_may_be_of_a_newer_agent() -> None:
    findings = [{"reason": "Entangled", "message": "of a newer version"}]
    ports = [{"port": 80, "protocol": "TCP", "family": "IPv4", "reason": "Entangled"}]
    read = parse(
        DataPlaneNodeReport, changed(REPORT, {"report.vips.0.findings": findings, "report.vips.0.ports": ports})
    )
    assert read.report.vips[0].findings[0].reason == "Entangled"

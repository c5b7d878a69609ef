"""The chart renders what a real API server accepts, and refuses values that it would not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from penstock_api import KINDS

from e2e.cluster import ControlPlane
from e2e.cluster.binaries import program

ROOT = Path(__file__).resolve().parents[2]
CHART = str(ROOT / "charts" / "penstock")
NAMESPACE = "penstock-system"

Helm = Callable[..., subprocess.CompletedProcess[str]]
VARIANTS = {
    "defaults": (),
    "two replicas": ("--set", "operator.replicas=2"),
    "no kinds": ("--set", "crds.enabled=false"),
    "everything": (
        *("--set", "operator.replicas=3", "--set", "crds.keep=false", "--set", "images.pullSecrets={registry}"),
        *("--set", "operator.priorityClassName=system-cluster-critical", "--set", "operator.podLabels.team=net"),
        *("--set", "operator.nodeSelector.pool=infra", "--set", "operator.podAnnotations.why=test"),
        *("--set-json", 'operator.tolerations=[{"operator":"Exists"}]'),
    ),
}
EACH_VARIANT = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)


def rendered(helm: Helm, *values: str) -> list[dict[str, Any]]:
    done = helm("template", "penstock", CHART, *values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [obj for obj in objects if obj["kind"] == kind]


@EACH_VARIANT
def test_lint(values: tuple[str, ...], helm: Helm) -> None:
    done = helm("lint", CHART, "--strict", *values)
    assert done.returncode == 0, done.stdout


@pytest.mark.apiserver
@EACH_VARIANT
def test_kubeconform_finds_nothing(values: tuple[str, ...], helm: Helm, schemas: Path) -> None:
    manifest = helm("template", "penstock", CHART, *values).stdout
    location = f"{schemas}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    command = [str(program("kubeconform")), "-strict", "-summary", "-schema-location", location]
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


@pytest.mark.apiserver
def test_kubeconform_would_find_a_slip(helm: Helm, schemas: Path) -> None:
    manifest = helm("template", "penstock", CHART).stdout.replace("imagePullPolicy:", "imagePulPolicy:")
    location = f"{schemas}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    command = [str(program("kubeconform")), "-strict", "-schema-location", location]
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "imagePulPolicy" in done.stdout


@pytest.mark.apiserver
@EACH_VARIANT
def test_the_api_server_would_take_it(values: tuple[str, ...], helm: Helm, apiserver: ControlPlane) -> None:
    apiserver.kubectl("create", "namespace", NAMESPACE, check=False)
    manifest = helm("template", "penstock", CHART, *values).stdout
    apiserver.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=manifest)


def test_no_objects_of_our_kinds(helm: Helm) -> None:
    assert not {obj["kind"] for obj in rendered(helm)} & set(KINDS)


def test_monitors_only_where_asked_for(helm: Helm) -> None:
    assert not of_kind(rendered(helm), "ServiceMonitor")
    objects = rendered(helm, "--set", "monitoring.serviceMonitor=true", "--set", "monitoring.labels.release=prom")
    assert of_kind(objects, "ServiceMonitor")[0]["metadata"]["labels"]["release"] == "prom"
    assert of_kind(objects, "PodMonitor")[0]["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "30s"}]


@pytest.mark.parametrize(("keep", "expected"), [("true", "keep"), ("false", None)])
def test_kinds_are_kept_unless_told(keep: str, expected: str | None, helm: Helm) -> None:
    crds = of_kind(rendered(helm, "--set", f"crds.keep={keep}"), "CustomResourceDefinition")
    assert len(crds) == len(KINDS)
    for crd in crds:
        assert crd["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == expected


def test_the_operators_pod_is_restricted_and_knows_its_images(helm: Helm) -> None:
    values = ("--set", "images.agent.repository=registry:5000/agent", "--set", "images.agent.tag=v9")
    pod = of_kind(rendered(helm, *values), "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["PENSTOCK_AGENT_IMAGE"] == "registry:5000/agent:v9"
    assert environment["PENSTOCK_DATAPLANE_IMAGE"] == "penstock/dataplane:0.1.0"
    assert environment["PENSTOCK_IMAGE_PULL_POLICY"] == "IfNotPresent"
    assert container["command"] == ["penstock", "operator"]


def test_every_account_can_pull(helm: Helm) -> None:
    accounts = of_kind(rendered(helm, "--set", "images.pullSecrets={registry}"), "ServiceAccount")
    assert len(accounts) == 3
    assert all(account["imagePullSecrets"] == [{"name": "registry"}] for account in accounts)


def test_the_namespace_is_the_releases(helm: Helm) -> None:
    objects = rendered(helm)
    assert {obj["metadata"]["namespace"] for obj in objects if "namespace" in obj["metadata"]} == {NAMESPACE}
    for policy in of_kind(objects, "ValidatingAdmissionPolicy"):
        assert f"system:serviceaccount:{NAMESPACE}:" in policy["spec"]["matchConditions"][0]["expression"]


def test_what_kubectl_applies_is_what_helm_applies(helm: Helm) -> None:
    manifests = [
        document
        for file in sorted((ROOT / "crds" / "manifests").glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]
    by_helm = {(obj["kind"], obj["metadata"]["name"]): obj for obj in rendered(helm, "--set", "crds.keep=false")}
    for manifest in manifests:
        assert by_helm[manifest["kind"], manifest["metadata"]["name"]] == manifest


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("operator.replicas=0", "replicas"),
        ("operator.replica=2", "replica"),
        ("images.pullPolicy=Sometimes", "pullPolicy"),
        ("images.agent.repository=", "repository"),
        ("images.agent.repository=penstock/agent:v1", "repository"),
        ("crds.enabled=maybe", "enabled"),
        ("monitoring.interval=often", "interval"),
    ],
)
def test_bad_values_are_refused_by_name(value: str, field: str, helm: Helm) -> None:
    done = helm("template", "penstock", CHART, "--set", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_every_value_is_explained() -> None:
    readme = (ROOT / "charts" / "penstock" / "README.md").read_text()
    values = yaml.safe_load((ROOT / "charts" / "penstock" / "values.yaml").read_text())
    for section, fields in values.items():
        for name in fields:
            assert f"{section}.{name}" in readme or f"`.{name}`" in readme, f"{section}.{name}"


DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), "penstock/operator:0.1.0"),
        (("images.operator.digest=" + DIGEST,), "penstock/operator@" + DIGEST),
        (("images.operator.tag=1.2@" + DIGEST,), "penstock/operator:1.2@" + DIGEST),
        (("images.operator.tag=@" + DIGEST,), "penstock/operator@" + DIGEST),
        (("images.operator.tag=1.2", "images.operator.digest=" + DIGEST), "penstock/operator@" + DIGEST),
    ],
)
def test_images_by_digest(values: tuple[str, ...], image: str, helm: Helm) -> None:
    objects = rendered(helm, *(word for value in values for word in ("--set", value)))
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize("value", ["digest=sha256:short", "digest=0.1.0", "tag=0.1.0@sha256:short", "tag=@"])
def test_digests_that_are_none(value: str, helm: Helm) -> None:
    assert helm("template", "penstock", CHART, "--set", f"images.agent.{value}").returncode != 0


def test_network_policies_select_pods_and_bound_what_they_reach(helm: Helm) -> None:
    objects = rendered(helm)
    policies = {obj["metadata"]["name"]: obj["spec"] for obj in of_kind(objects, "NetworkPolicy")}
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    operator, agent = policies["penstock-operator"], policies["penstock-agent"]
    assert operator["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert operator["policyTypes"] == ["Ingress", "Egress"]
    named = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["port"] for rule in operator["ingress"] for port in rule["ports"]} == named
    assert {port["port"] for rule in operator["egress"] for port in rule["ports"]} == {443, 6443, 8443, 16443}
    assert agent["policyTypes"] == ["Ingress"]
    assert not of_kind(rendered(helm, "--set", "networkPolicy.enabled=false"), "NetworkPolicy")

"""`penstock validate` and `penstock init`: the operator's plan without an operator."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from penstock_api import parse_yaml
from penstock_operator.init import LOAD_BALANCER_LABEL, InitError, gather, propose
from penstock_operator.plan.dry import Surroundings, dry_run
from penstock_operator.plan.facts import ServiceFacts

from tests.support.operator_rig import Cluster
from tests.support.plan_builders import data_plane, node, pool, vip

FILES = """
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata: {name: first, namespace: shop}
spec:
  ports: [{port: 80}]
  backends: {service: {name: web}}
  policyName: absent
---
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata: {name: second, namespace: shop}
spec:
  addresses: [203.0.113.10]
  ports: [{port: 80}]
  backends: {service: {name: web}}
---
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata: {name: third, namespace: shop}
spec:
  addresses: [203.0.113.10]
  ports: [{port: 80}]
  backends: {service: {name: web}}
---
apiVersion: penstock.dev/v1alpha1
kind: AddressPool
metadata: {name: public}
spec: {addresses: [203.0.113.10-203.0.113.11]}
---
apiVersion: penstock.dev/v1alpha1
kind: DataPlane
metadata: {name: edge, annotations: {penstock.dev/default: "true"}}
spec: {nodeSelector: {role: lb}}
---
apiVersion: penstock.dev/v1alpha1
kind: RLPolicy
metadata: {name: web, namespace: shop}
spec: {heuristic: little}
"""


def test_files_are_judged_as_the_operator_would() -> None:
    report = dry_run(parse_yaml(FILES))
    found = {outcome.name: outcome for outcome in report.outcomes}
    assert found["shop/first"].addresses == ("203.0.113.11",)  # leaves the address that another file asks for
    assert found["shop/first"].data_plane == "edge"
    assert "lsq is used" in found["shop/first"].warnings[0]
    assert found["shop/second"].addresses == ("203.0.113.10",)
    assert not found["shop/third"].accepted
    assert found["shop/third"].reason == "AddressConflict"
    assert "203.0.113.10:80/TCP is held by shop/second" in found["shop/third"].message
    assert found["public"].accepted
    assert found["shop/web"].accepted
    assert "not checked" in found["edge"].message
    assert not report.accepted


def test_a_cluster_that_is_known_is_taken_into_account() -> None:
    surroundings = Surroundings(
        nodes=[node("lb-1", "203.0.113.11"), node("web", "192.0.2.9", labels={})],
        services=[ServiceFacts(("shop", "other"))],
        existing=[vip("there", held=["203.0.113.10"], servedBy="edge"), data_plane(nodeSelector={"role": "lb"})],
    )
    report = dry_run(parse_yaml(FILES), surroundings)
    found = {outcome.name: outcome for outcome in report.outcomes}
    assert found["shop/first"].reason == "NoAddressAvailable"
    assert "is held by shop/there" in found["shop/second"].message
    assert "selects lb-1" in found["edge"].message
    missing = dry_run([vip("new")], Surroundings(services=[], existing=[pool("203.0.113.9"), data_plane()]))
    assert missing.outcomes[0].reason == "ServiceNotFound"
    nowhere = dry_run([data_plane("core", nodeSelector={"no": "node"})], surroundings)
    assert nowhere.outcomes[0].reason == "NoNodesSelected"
    torn = dry_run([data_plane("core", age=1, nodeSelector={"role": "lb"})], surroundings)
    assert "lb-1 belongs to DataPlane edge" in torn.outcomes[0].message


def test_a_proposal_fits_the_cluster() -> None:
    linux = {"kubernetes.io/os": "linux"}
    taint = ("node-role.kubernetes.io/control-plane", "", "NoSchedule")
    nodes = [
        node("control", "192.0.2.10", labels=linux, taints=[taint]),
        node("worker-1", "192.0.2.11", labels=linux, pods=["192.0.2.224/27"]),
        node("worker-2", "192.0.2.12", labels=linux),
    ]
    proposal = propose(Surroundings(nodes=nodes))
    plane, addresses = proposal.objects()
    assert plane.spec.announcement.type == "L2"
    assert "worker-1, worker-2." in proposal.notes[1] + proposal.notes[2]
    assert [block.text for block in addresses.spec.addresses] == ["192.0.2.208-192.0.2.223"]
    documents = list(yaml.safe_load_all(proposal.to_yaml()))
    assert [document["kind"] for document in documents] == ["DataPlane", "AddressPool"]
    assert proposal.to_yaml().startswith("# ")
    report = dry_run(parse_yaml(proposal.to_yaml()), Surroundings(nodes=nodes))
    assert report.accepted


def test_labelled_nodes_are_taken_with_their_taints() -> None:
    labels = {LOAD_BALANCER_LABEL: "true"}
    nodes = [
        node("lb-1", "192.0.2.1", labels=labels, taints=[("dedicated", "lb", "NoSchedule"), ("x", "", "NoExecute")]),
        node("lb-2", "198.51.100.1", labels=labels),
        node("worker", "192.0.2.9", labels={}),
    ]
    existing = [data_plane("core", default=True)]
    plane, addresses = propose(Surroundings(nodes=nodes, existing=existing)).objects()
    assert plane.spec.node_selector == labels
    assert [(t.key, t.operator) for t in plane.spec.tolerations] == [("dedicated", "Equal"), ("x", "Exists")]
    assert plane.spec.announcement.type == "None"  # two networks: routes must lead there
    assert addresses.spec.addresses[0].text == "203.0.113.0/28"
    assert not plane.metadata.annotations  # core is the default


def test_no_fitting_node_is_an_error() -> None:
    with pytest.raises(InitError, match="kubectl label node"):
        propose(Surroundings(nodes=[node(labels={})]))
    with pytest.raises(InitError, match="role=lb"):
        propose(Surroundings(nodes=[]), selector={"role": "lb"})


@pytest.mark.apiserver
async def test_a_real_cluster_is_gathered(cluster: Cluster) -> None:
    labels: dict[str, Any] = {LOAD_BALANCER_LABEL: "true"}
    await cluster.node("lb-1", "192.0.2.1", **labels)
    await cluster.pool("192.0.2.239-192.0.2.254")
    surroundings = await gather(cluster.client)
    assert [facts.name for facts in surroundings.nodes] == ["lb-1"]
    assert [str(network) for network in surroundings.service_networks] == ["10.96.0.0/16"]
    assert surroundings.services
    body: dict[str, Any] = dict(propose(surroundings).pool)
    assert body["spec"]["addresses"] == ["192.0.2.208-192.0.2.223"]


def service(*ports: dict[str, Any], **spec: Any) -> ServiceFacts:
    return ServiceFacts.from_raw(
        {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": list(ports), **spec}}
    )


HTTP = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
NAMED = {"name": "named", "port": 443, "targetPort": "https", "protocol": "TCP"}


@pytest.mark.parametrize(
    ("port", "facts", "warning"),
    [
        ({"port": 80}, service(HTTP), ""),
        ({"port": 8080}, service(HTTP), ""),
        ({"port": 81, "targetPort": 8080}, service(HTTP), ""),
        ({"port": 81, "targetPort": "http"}, service(HTTP), ""),
        ({"port": 81, "targetPort": 8443}, service(NAMED), ""),  # pods say which number it is
        ({"port": 81}, service(HTTP), "no port for 81/TCP (it has: http 80/TCP to 8080)"),
        ({"port": 80, "targetPort": 9}, service(HTTP), "no port for 9/TCP"),
        ({"port": 80, "targetPort": "htp"}, service(HTTP), "no port for htp/TCP"),
        ({"port": 80, "protocol": "UDP"}, service(HTTP), "no port for 80/UDP"),
        ({"port": 80}, service(), "(it has: none)"),
        ({"port": 80}, service(type="ExternalName", externalName="example.com"), "is an ExternalName"),
    ],
)
def test_ports_are_held_against_those_of_the_service(port: dict[str, Any], facts: ServiceFacts, warning: str) -> None:
    surroundings = Surroundings(services=[facts], existing=[pool("203.0.113.9"), data_plane()])
    unchecked: dict[str, Any] = {"backends": {"service": {"name": "web"}}, "healthCheck": {"type": "None"}}
    (outcome,) = dry_run([vip("web", ports=[port], **unchecked)], surroundings).outcomes
    found = [text for text in outcome.warnings if "Service web" in text or "ExternalName" in text]
    assert (warning in found[0]) if warning else not found

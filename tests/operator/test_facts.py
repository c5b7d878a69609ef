"""What is cut out of Kubernetes' objects."""

from __future__ import annotations

from penstock_operator.plan.facts import NodeFacts, ServiceFacts


def test_facts_are_cut_out_of_kubernetes_objects() -> None:
    raw = {
        "metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}},
        "spec": {"podCIDRs": ["10.0.1.0/24", "2001:db8:1::/64"], "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "192.0.2.2"},
                {"type": "Hostname", "address": "a.example"},
            ],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }
    found = NodeFacts.from_raw(raw)
    assert [str(address) for address in found.primary()] == ["192.0.2.1", "2001:db8::1"]
    assert len(found.addresses) == 3
    assert found.ready
    service = ServiceFacts.from_raw(
        {
            "metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["198.51.100.1"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "x.example"}]}},
        }
    )
    assert [str(address) for address in service.addresses] == ["198.51.100.1", "198.51.100.2"]

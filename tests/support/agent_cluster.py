"""Objects at a real API server that an agent works with, made as its operator and kube-controller-manager would."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.dataplanenodereport import DataPlaneNodeReport
from penstock_api.names import AGENT_ACCOUNT, INSTALL_NAMESPACE, node_object_name
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP
from penstock_kube import ENDPOINT_SLICES, NODES, SERVICES, NotFound, Resource

from tests.support.agent_objects import KEY

MANIFESTS = Path(__file__).parents[2] / "crds" / "manifests"
VIPS = Resource(*LoadBalancerVIP.resource())
POLICIES = Resource(*RLPolicy.resource())
DATAPLANE_NODES = Resource(*DataPlaneNode.resource())
REPORTS = Resource(*DataPlaneNodeReport.resource())


class AgentCluster:
    """A DataPlane of its own for one test, so that tests may share an API server."""

    def __init__(self, client, plane, namespace):
        self.client = client
        self.plane = plane
        self.namespace = namespace
        self.dataplane = f"edge-{uuid4().hex[:6]}"

    async def node(self, name, *, address="2001:db8::1", l2=False, nodes=1):
        """A Node, by default where nobody answers, and its DataPlaneNode; returns a kubeconfig of the agent there."""
        node = f"{name}-{self.dataplane}"
        await self.client.apply(NODES, {"metadata": {"name": node}}, field_manager="tests")
        spec = {
            "dataPlaneName": self.dataplane,
            "nodeName": node,
            "schedulerKey": KEY,
            "nodes": nodes,
            "natSource": {"addresses": [address]},
            "announcement": {"type": "L2" if l2 else "None"},
        }
        labels = {"penstock.dev/dataplane": self.dataplane, "penstock.dev/node": node}
        body = {"metadata": {"name": self.object_name(name), "labels": labels}, "spec": spec}
        await self.client.apply(DATAPLANE_NODES, body, field_manager="penstock-operator")
        return self.plane.issue_service_account(INSTALL_NAMESPACE, AGENT_ACCOUNT, node=node)

    def node_name(self, name):
        return f"{name}-{self.dataplane}"

    def object_name(self, name):
        return node_object_name(self.dataplane, self.node_name(name))

    async def vip(self, name="web", *, addresses=("203.0.113.10",), dataplane=None, service="web", **spec):
        """A VIP that the operator has accepted."""
        spec = {
            "ports": [{"port": 80, "targetPort": "http"}],
            "backends": {"service": {"name": service}},
            "healthCheck": {"type": "None"},
            **spec,
        }
        metadata = {"name": name, "namespace": self.namespace}
        await self.client.apply(VIPS, {"metadata": metadata, "spec": spec}, field_manager="tests")
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        status = {
            "observedGeneration": 1,
            "conditions": [condition],
            "dataPlaneName": dataplane or self.dataplane,
            "addresses": list(addresses),
        }
        body = {"metadata": metadata, "status": status}
        await self.client.apply(VIPS, body, field_manager="penstock-operator", subresource="status")

    async def policy(self, name, **spec):
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        await self.client.apply(POLICIES, body, field_manager="tests")

    async def slice(self, service, *addresses, name=None, port=8080, **fields):
        """The EndpointSlice of a Service, all endpoints ready; or as `fields` have it."""
        body = {
            "metadata": {
                "name": name or f"{service}-1",
                "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            **fields,
        }
        await self.client.apply(ENDPOINT_SLICES, body, field_manager="tests")

    async def service(self, name, **spec):
        """A Service, nothing of it left as it was."""
        await self.client.delete(SERVICES, name, self.namespace)
        await self.client.create(SERVICES, {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec})

    async def get(self, resource, name, namespace=None):
        """An object, or None."""
        try:
            return await self.client.get(resource, name, namespace)
        except NotFound:
            return None

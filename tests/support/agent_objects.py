"""Small objects for tests of the agent, as short as they can be written."""

from __future__ import annotations

from ipaddress import ip_address

from penstock_agent.desired import Served, Snapshot, plan
from penstock_agent.slices import Service, ServicePort, Slice, SliceEndpoint, SlicePort
from penstock_api.dataplanenode import DataPlaneNodeSpec
from penstock_api.reading import parse
from penstock_api.rlpolicy import PolicySpec
from penstock_api.vip import LoadBalancerVIP

KEY = "00112233445566778899aabbccddeeff"
WEB = ("shop", "web")


def node(**spec):
    return DataPlaneNodeSpec.model_validate(
        {
            "dataPlaneName": "edge",
            "nodeName": "node-1",
            "schedulerKey": KEY,
            "natSource": {"addresses": ["192.0.2.1"], "portFirst": 16384, "portLast": 28671},
            "staticEndpointCIDRs": ["10.0.0.0/8"],
            **spec,
        }
    )


def vip(name="web", *, addresses=("203.0.113.10",), wanted=None, **options):
    """A VIP that holds `addresses`; `wanted` are those that its spec asks for. Metadata and fields of the spec."""
    namespace, generation = options.pop("namespace", "shop"), options.pop("generation", 1)
    uid, annotations, year = options.pop("uid", None), options.pop("annotations", None), options.pop("year", 2026)
    held = [{"port": port, "protocol": "TCP"} for port in options.pop("held", ())]
    raw = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "LoadBalancerVIP",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": uid or f"uid-{name}",
            "generation": generation,
            "annotations": annotations or {},
            "creationTimestamp": f"{year}-01-01T00:00:00Z",
        },
        "spec": {
            "ports": [{"port": 80, "targetPort": 8080}],
            "backends": {"endpoints": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]},
            **({"addresses": list(wanted)} if wanted else {}),
            **options,
        },
        **({"status": {"addresses": list(addresses), "ports": held}} if held else {}),
    }
    return Served(parse(LoadBalancerVIP, raw), tuple(ip_address(address) for address in addresses))


def policy(**spec):
    return PolicySpec.model_validate({"heuristic": "little", **spec})


def snapshot(*vips, **fields):
    addresses = frozenset(address for served in vips for address in served.addresses)
    return Snapshot(**{"node": node(), "vip_addresses": addresses, **fields, "vips": tuple(vips)})


def endpoints(*addresses, port=8080, name="http", protocol="TCP", service="web", ready=True, of="web-1"):
    """The slice of a Service, all its endpoints in one state."""
    servers = tuple(SliceEndpoint(ip_address(address), ready, ready, False) for address in addresses)
    return Slice(of, service, (SlicePort(name, protocol, port),), servers)


def service(port=80, target=8080, name="http", protocol="TCP", **fields):
    """A Service with one port."""
    return Service(ports=(ServicePort(name, protocol, port, target),), **fields)


def of_service(name="web", target="http", **options):
    """A VIP whose backends are those of a Service."""
    ports = [{"port": 80, **({"targetPort": target} if target else {})}]
    return vip(backends={"service": {"name": name}}, **{"ports": ports, **options})


def backends(result):
    """The servers of a plan, as address:port."""
    return [f"{b.address}:{b.port}" for core in result.vips for b in core.vip.backends]


def planned(*vips, previous=None, **fields):
    """The plan of these VIPs."""
    return plan(snapshot(*vips, **fields), previous)

"""Objects that must be refused: one good object of each kind, and changes that spoil it.

Each case names the field that both the API server and the file reader must name, and words of the message that
tell what to do. `only="files"` marks what CEL can't say.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

REMOVED = object()

VIP: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "LoadBalancerVIP",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "addresses": ["203.0.113.10"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        "backends": {"endpoints": [{"address": "10.1.2.3"}, {"address": "10.1.2.4", "port": 8081}]},
        "healthCheck": {"type": "HTTP", "path": "/healthz"},
    },
}
POLICY: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "RLPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"heuristic": "little"},
}
POOL: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "AddressPool",
    "metadata": {"name": "public"},
    "spec": {"addresses": ["203.0.113.0/24", "198.51.100.10-198.51.100.20", "2001:db8::/64", "192.0.2.7"]},
}
DATAPLANE: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "DataPlane",
    "metadata": {"name": "edge"},
    "spec": {
        "nodeSelector": {"penstock.dev/load-balancer": "true"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "announcement": {"type": "L2", "interfaces": ["eth0"]},
        "staticEndpointCIDRs": ["10.1.0.0/16"],
        "resources": {"agent": {"requests": {"cpu": "100m"}, "limits": {"memory": "256Mi"}}},
    },
}
_CARD: dict[str, Any] = {
    "type": "AfPacket",
    "name": "eth1",
    "addresses": [{"node": "lb-1", "address": "192.0.2.11/24"}],
}
_PCI_CARD: dict[str, Any] = {
    "type": "Dpdk",
    "pciAddress": "0000:3b:00.0",
    "resourceName": "example.com/card",
    "addresses": [{"node": "lb-1", "address": "192.0.2.11/24"}],
}
NODE: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "DataPlaneNode",
    "metadata": {"name": "edge.node-1"},
    "spec": {
        "dataPlaneName": "edge",
        "nodeName": "node-1",
        "schedulerKey": "0123456789abcdef" * 2,
        "natSource": {"addresses": ["192.0.2.21"], "portFirst": 16384, "portLast": 28671},
    },
}
REPORT: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "DataPlaneNodeReport",
    "metadata": {"name": "edge.node-1-0"},
    "report": {
        "nodeName": "node-1",
        "dataPlaneName": "edge",
        "vips": [
            {
                "namespace": "default",
                "name": "web",
                "uid": "u",
                "generation": 1,
                "ready": 3,
                "total": 4,
                "ports": [{"port": 80, "protocol": "TCP", "family": "IPv4", "ready": 3, "total": 4}],
                "findings": [{"reason": "EndpointInvalid", "message": "EndpointSlice web-1: ports[0].port: 70000"}],
            }
        ],
    },
}
GOOD = {"vip": VIP, "policy": POLICY, "pool": POOL, "dataplane": DATAPLANE, "node": NODE, "report": REPORT}


@dataclass(frozen=True)
class Bad:
    """A good object of a kind with some fields changed, and how the refusal must read."""

    name: str
    kind: str
    changes: dict[str, Any]
    field: str
    says: tuple[str, ...] = ()
    only: str = ""
    says_in_files: tuple[str, ...] = ()

    @property
    def object(self) -> dict[str, Any]:
        return changed(GOOD[self.kind], self.changes)


def changed(obj: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of an object with values set, or removed, at dotted paths (`spec.ports.0.port`)."""
    result = copy.deepcopy(obj)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place: Any = result
        for part in parents:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if value is REMOVED:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return result


SHORTEST = ("shortest form", "203.0.113.10")
NEVER_USABLE = (
    *("0.0.0.1", "127.8.9.1", "169.254.169.254", "192.0.0.192", "224.0.0.251", "240.0.0.1", "255.255.255.255"),
    *("100.100.100.200", "168.63.129.16"),
    *("::1", "::a00:1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "fd00:ec2::254", "fd00:c1::a9fe:a9fe"),
    *("fd00:42::42", "fd20:ce::254", "100::1", "2001::1", "2002:a9fe:a9fe::1", "64:ff9b:1::a00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::1", "64:ff9b::e000:1", "64:ff9b::f000:1"),
)
NEVER_POOLS = ("100.100.0.0/16", "168.63.129.0/24", "127.0.0.0/24", "fd00:ec2::/64", "64:ff9b::/96", "2002:a00::/64")
UNICAST = ("loopback", "routes to one host")
LOOP = ("endpoint", "own address")

BAD: tuple[Bad, ...] = (
    # LoadBalancerVIP: ports
    Bad("no ports", "vip", {"spec.ports": []}, "spec.ports", ("at least 1",)),
    Bad("ports missing", "vip", {"spec.ports": REMOVED}, "spec.ports", ()),
    Bad("port 0", "vip", {"spec.ports.0.port": 0}, "spec.ports[0].port", ("1",)),
    Bad("port 70000", "vip", {"spec.ports.0.port": 70000}, "spec.ports[0].port", ("65535",)),
    Bad("port in quotes", "vip", {"spec.ports.0.port": "80"}, "spec.ports[0].port", ("integer",)),
    Bad("protocol SCTP", "vip", {"spec.ports.0.protocol": "SCTP"}, "spec.ports[0].protocol", ("TCP", "UDP")),
    Bad("port twice", "vip", {"spec.ports.1": {"port": 80, "protocol": "TCP"}}, "spec.ports"),
    Bad("port name", "vip", {"spec.ports.0.name": "Web_1"}, "spec.ports[0].name", ("DNS label", "lower-case")),
    Bad("target port 0", "vip", {"spec.ports.0.targetPort": 0}, "spec.ports[0].targetPort", ("1",)),
    Bad("target port name", "vip", {"spec.ports.0.targetPort": "-http"}, "spec.ports[0].targetPort"),
    Bad("target port of 64 characters", "vip", {"spec.ports.0.targetPort": "a" * 64}, "spec.ports[0].targetPort"),
    Bad("target port in capitals", "vip", {"spec.ports.0.targetPort": "HTTP"}, "spec.ports[0].targetPort"),
    Bad("33 ports", "vip", {"spec.ports": [{"port": n} for n in range(1, 34)]}, "spec.ports", ("at most 32",)),
    Bad(
        "target port by name without Service",
        "vip",
        {"spec.ports.0.targetPort": "http"},
        "spec.ports",
        ("Service", "write the number"),
    ),
    # LoadBalancerVIP: addresses
    Bad("address with prefix", "vip", {"spec.addresses": ["203.0.113.10/32"]}, "spec.addresses[0]", SHORTEST),
    Bad("address with leading zero", "vip", {"spec.addresses": ["203.0.113.010"]}, "spec.addresses[0]", SHORTEST),
    Bad(
        "address in upper case",
        "vip",
        {
            "spec.addresses": ["2001:DB8::1"],
            "spec.addressFamilies": ["IPv6"],
            "spec.backends.endpoints": [{"address": "2001:db8::2"}],
        },
        "spec.addresses[0]",
        SHORTEST,
    ),
    Bad("address mapped", "vip", {"spec.addresses": ["::ffff:203.0.113.10"]}, "spec.addresses[0]", SHORTEST),
    Bad("address by name", "vip", {"spec.addresses": ["web.example"]}, "spec.addresses[0]", SHORTEST),
    Bad("loopback address", "vip", {"spec.addresses": ["127.0.0.1"]}, "spec.addresses[0]", UNICAST),
    Bad("link-local address", "vip", {"spec.addresses": ["169.254.1.1"]}, "spec.addresses[0]", UNICAST),
    *(Bad(f"VIP at {text}", "vip", {"spec.addresses": [text]}, "spec.addresses[0]", UNICAST) for text in NEVER_USABLE),
    *(
        Bad(
            f"endpoint at {text}",
            "vip",
            {"spec.backends.endpoints.0.address": text},
            "endpoints[0].address",
            UNICAST,
        )
        for text in NEVER_USABLE
    ),
    *(
        Bad(f"pool of {text}", "pool", {"spec.addresses": [text]}, "spec.addresses[0]", ("must not hold", "routes"))
        for text in (*NEVER_USABLE, *NEVER_POOLS)
    ),
    Bad(
        "pool around a metadata service",
        "pool",
        {"spec.addresses": ["100.100.100.100-100.100.100.250"]},
        "spec.addresses[0]",
        ("must not hold", "routes"),
        only="files",
    ),
    Bad("multicast address", "vip", {"spec.addresses": ["224.0.0.1"]}, "spec.addresses[0]", UNICAST),
    Bad("broadcast address", "vip", {"spec.addresses": ["255.255.255.255"]}, "spec.addresses[0]", UNICAST),
    Bad("unspecified address", "vip", {"spec.addresses": ["0.0.0.0"]}, "spec.addresses[0]", UNICAST),
    Bad("address twice", "vip", {"spec.addresses": ["203.0.113.10", "203.0.113.10"]}, "spec.addresses"),
    Bad(
        "family of address not listed",
        "vip",
        {"spec.addresses": ["203.0.113.10", "2001:db8::1"]},
        "spec.addresses",
        ("list the family in addressFamilies",),
    ),
    Bad(
        "no address of a listed family",
        "vip",
        {"spec.addressFamilies": ["IPv4", "IPv6"]},
        "spec.addresses",
        ("at least one of each",),
    ),
    Bad("unknown family", "vip", {"spec.addressFamilies": ["IPv5"]}, "spec.addressFamilies[0]", ("IPv4", "IPv6")),
    # LoadBalancerVIP: backends
    Bad("no backends", "vip", {"spec.backends": {}}, "spec.backends", ("exactly one of service and endpoints",)),
    Bad(
        "two kinds of backends",
        "vip",
        {"spec.backends.service": {"name": "web"}},
        "spec.backends",
        ("exactly one of service and endpoints", "not both"),
    ),
    Bad(
        "loopback endpoint", "vip", {"spec.backends.endpoints.0.address": "127.0.0.1"}, "endpoints[0].address", UNICAST
    ),
    Bad("endpoint fe80::", "vip", {"spec.backends.endpoints.0.address": "fe80::1"}, "endpoints[0].address", UNICAST),
    Bad(
        "endpoint of other family",
        "vip",
        {"spec.backends.endpoints.0.address": "2001:db8::2"},
        "endpoints",
        ("family",),
    ),
    Bad("endpoint is the VIP", "vip", {"spec.backends.endpoints.0.address": "203.0.113.10"}, "endpoints", LOOP),
    Bad(
        "endpoint twice",
        "vip",
        {"spec.backends.endpoints.2": {"address": "10.1.2.3", "port": 0}},
        "spec.backends.endpoints",
    ),
    Bad("negative weight", "vip", {"spec.backends.endpoints.0.weight": -1}, "endpoints[0].weight", ("0",)),
    Bad(
        "service name",
        "vip",
        {"spec.backends": {"service": {"name": "Web"}}},
        "spec.backends.service.name",
        ("lower-case",),
    ),
    # LoadBalancerVIP: the rest
    Bad("forwarding unknown", "vip", {"spec.forwarding": "IPIP"}, "spec.forwarding", ("NAT",)),
    Bad(
        "L3DSR without DSCP",
        "vip",
        {"spec.forwarding": "L3DSR", "spec.ports.0.targetPort": REMOVED},
        "spec.dscp",
        ("needs it",),
    ),
    Bad("DSCP without L3DSR", "vip", {"spec.dscp": 10}, "spec.dscp", ("forwarding L3DSR",)),
    Bad("DSCP too large", "vip", {"spec.forwarding": "L3DSR", "spec.dscp": 64}, "spec.dscp", ("63",)),
    Bad(
        "GRE to another port",
        "vip",
        {"spec.forwarding": "GRE", "spec.ports.0.targetPort": 8080},
        "spec.ports",
        ("remove targetPort",),
    ),
    Bad("affinity unknown", "vip", {"spec.affinity": "Cookie"}, "spec.affinity", ("Flow", "ClientIP")),
    Bad(
        "timeout 0",
        "vip",
        {"spec.timeouts": {"tcpEstablishedSeconds": 0}},
        "spec.timeouts.tcpEstablishedSeconds",
        ("1",),
    ),
    Bad("drain too long", "vip", {"spec.drainSeconds": 100000}, "spec.drainSeconds", ("86400",)),
    Bad("drain with unit", "vip", {"spec.drainSeconds": "5m"}, "spec.drainSeconds", ("integer",)),
    Bad("HTTP without path", "vip", {"spec.healthCheck": {"type": "HTTP"}}, "spec.healthCheck", ("path", "/healthz")),
    Bad("path without slash", "vip", {"spec.healthCheck.path": "healthz"}, "spec.healthCheck.path", ("start with /",)),
    Bad("path with space", "vip", {"spec.healthCheck.path": "/a b"}, "spec.healthCheck.path", ("no spaces",)),
    Bad("path of a TCP check", "vip", {"spec.healthCheck.type": "TCP"}, "spec.healthCheck", ("type to HTTP",)),
    Bad(
        "timeout above interval",
        "vip",
        {"spec.healthCheck.timeoutSeconds": 5},
        "spec.healthCheck.timeoutSeconds",
        ("at most intervalSeconds",),
    ),
    Bad(
        "statuses reversed",
        "vip",
        {"spec.healthCheck.expectedStatuses": ["399-200"]},
        "spec.healthCheck.expectedStatuses[0]",
        ("200-399",),
    ),
    Bad("status 999", "vip", {"spec.healthCheck.expectedStatuses": ["999"]}, "spec.healthCheck.expectedStatuses[0]"),
    Bad(
        "UDP with an HTTP check",
        "vip",
        {"spec.ports.0.protocol": "UDP", "spec.healthCheck": {"type": "HTTP", "path": "/healthz"}},
        "spec.healthCheck",
        ("healthCheck.port", "None"),
    ),
    Bad(
        "field misspelt",
        "vip",
        {"spec.drainSecond": 3},
        "spec.drainSecond",
        ("unknown field",),
        says_in_files=("drainSeconds?",),
    ),
    Bad("data plane name", "vip", {"spec.dataPlaneName": "edge.one"}, "spec.dataPlaneName", ("DNS label",)),
    Bad("object name", "vip", {"metadata.name": "Web_1"}, "metadata.name", says_in_files=("lower-case",)),
    # RLPolicy
    Bad("heuristic missing", "policy", {"spec": {}}, "spec.heuristic"),
    Bad("heuristic unknown", "policy", {"spec.heuristic": "random"}, "spec.heuristic", ("little", "lsq")),
    Bad("weights ignored", "policy", {"spec.scheduler": "lsq"}, "spec.scheduler", ("remove scheduler",)),
    Bad(
        "lsq with weights",
        "policy",
        {"spec.heuristic": "lsq", "spec.scheduler": "sed"},
        "spec.scheduler",
        ("set both to lsq",),
    ),
    Bad(
        "sed without sed",
        "policy",
        {"spec.heuristic": "sed", "spec.scheduler": "maglev"},
        "spec.scheduler",
        ("heuristic static",),
    ),
    Bad(
        "load that nobody looks at",
        "policy",
        {"spec.scheduler": "maglev", "spec.load": "Active"},
        "spec.load",
        ("sed, lsq or p2c",),
    ),
    Bad("load Busy", "policy", {"spec.load": "Busy"}, "spec.load", ("Open", "Active")),
    Bad("interval 100 ms", "policy", {"spec.intervalMilliseconds": 100}, "spec.intervalMilliseconds", ("200",)),
    Bad(
        "interval 300 ms",
        "policy",
        {"spec.intervalMilliseconds": 300},
        "spec.intervalMilliseconds",
        ("multiple of 200",),
    ),
    Bad("mode On, which YAML makes true of", "policy", {"spec.mode": True}, "spec.mode", ("Active", "Shadow", "Off")),
    Bad("mode Canary", "policy", {"spec.mode": "Canary"}, "spec.mode", ("Active", "Shadow", "Off")),
    Bad("table size not prime", "policy", {"spec.tableSize": 65536}, "spec.tableSize", ("65537",)),
    Bad(
        "ratio below 1",
        "policy",
        {"spec.guardrails": {"maxWeightRatio": 0.5}},
        "spec.guardrails.maxWeightRatio",
        ("1",),
    ),
    Bad("fallback learned", "policy", {"spec.fallback": "little"}, "spec.fallback", ("lsq",)),
    # AddressPool
    Bad("pool empty", "pool", {"spec.addresses": []}, "spec.addresses", ("at least 1",)),
    Bad("host bits", "pool", {"spec.addresses": ["203.0.113.7/24"]}, "spec.addresses[0]", ("203.0.113.0/24",)),
    Bad("range reversed", "pool", {"spec.addresses": ["203.0.113.9-203.0.113.1"]}, "spec.addresses[0]", ()),
    Bad(
        "range of two families",
        "pool",
        {"spec.addresses": ["203.0.113.9-2001:db8::1"]},
        "spec.addresses[0]",
        ("one family",),
    ),
    Bad(
        "range of three",
        "pool",
        {"spec.addresses": ["192.0.2.1-192.0.2.2-192.0.2.3"]},
        "spec.addresses[0]",
        ("first-last",),
    ),
    Bad("everything", "pool", {"spec.addresses": ["0.0.0.0/0"]}, "spec.addresses[0]", ("/16",)),
    Bad("network too wide", "pool", {"spec.addresses": ["2001:db8::/48"]}, "spec.addresses[0]", ("/64",)),
    Bad("range too wide", "pool", {"spec.addresses": ["10.0.0.1-10.9.0.1"]}, "spec.addresses[0]", ("/16", "split it")),
    Bad("loopback pool", "pool", {"spec.addresses": ["127.0.0.0/24"]}, "spec.addresses[0]", ("loopback",)),
    Bad("link-local pool", "pool", {"spec.addresses": ["fe80::1-fe80::9"]}, "spec.addresses[0]", ("link-local",)),
    Bad("pool with broadcast", "pool", {"spec.addresses": ["255.255.255.0/24"]}, "spec.addresses[0]", ("broadcast",)),
    Bad("block twice", "pool", {"spec.addresses": ["192.0.2.0/24", "192.0.2.0/24"]}, "spec.addresses"),
    Bad("namespace", "pool", {"spec.namespaces": ["Shop"]}, "spec.namespaces[0]", ("lower-case",)),
    Bad(
        "IPv6 range reversed",
        "pool",
        {"spec.addresses": ["2001:db8::9-2001:db8::1"]},
        "spec.addresses[0]",
        ("first <= last",),
        only="files",
    ),
    # DataPlane
    Bad("type unknown", "dataplane", {"spec.type": "ebpf"}, "spec.type", ("embedded", "vpp")),
    Bad("name with dot", "dataplane", {"metadata.name": "edge.one"}, "metadata", ("without dots",)),
    Bad("name too long", "dataplane", {"metadata.name": "e" * 33}, "metadata", ("32", "shorter")),
    Bad("table too small", "dataplane", {"spec.flowTableSize": 10}, "spec.flowTableSize", ("1024",)),
    Bad("table too large", "dataplane", {"spec.flowTableSize": 4_194_305}, "spec.flowTableSize", ("4194304",)),
    Bad("features unknown", "dataplane", {"spec.features": "most"}, "spec.features", ("off", "basic", "full")),
    Bad(
        "ports not aligned",
        "dataplane",
        {"spec.natSource": {"portFirst": 16385}},
        "spec.natSource.portFirst",
        ("multiple of 64",),
    ),
    Bad(
        "ports end not aligned",
        "dataplane",
        {"spec.natSource": {"portLast": 28672}},
        "spec.natSource.portLast",
        ("16384 to 28671",),
    ),
    Bad(
        "ports reversed",
        "dataplane",
        {"spec.natSource": {"portFirst": 28672, "portLast": 16383}},
        "spec.natSource.portLast",
        ("above portFirst",),
    ),
    Bad(
        "ports meet NodePorts",
        "dataplane",
        {"spec.natSource": {"portFirst": 29952, "portLast": 30079}},
        "spec.natSource.portFirst",
        ("NodePorts", "16384 to 28671"),
    ),
    Bad("announcement BGP", "dataplane", {"spec.announcement.type": "BGP"}, "spec.announcement.type", ("None", "L2")),
    Bad(
        "interfaces unused",
        "dataplane",
        {"spec.announcement.type": "None"},
        "spec.announcement.interfaces",
        ("type to L2",),
    ),
    Bad(
        "interface name",
        "dataplane",
        {"spec.announcement.interfaces": ["eth/0"]},
        "spec.announcement.interfaces[0]",
        ("eth0",),
    ),
    Bad(
        "static network",
        "dataplane",
        {"spec.staticEndpointCIDRs": ["10.1.2.3/16"]},
        "spec.staticEndpointCIDRs[0]",
        ("10.0.0.0/16",),
    ),
    Bad("memory", "dataplane", {"spec.resources.agent.limits.memory": "256 MB"}, "spec.resources.agent.limits.memory"),
    Bad(
        "toleration",
        "dataplane",
        {"spec.tolerations": [{"effect": "NoExecute"}]},
        "spec.tolerations[0]",
        ("operator: Exists",),
    ),
    Bad("vpp on embedded", "dataplane", {"spec.vpp": {"workers": 1}}, "spec.vpp", ("type: vpp",)),
    Bad(
        "too many workers",
        "dataplane",
        {"spec.type": "vpp", "spec.vpp": {"workers": 17}},
        "spec.vpp.workers",
        ("16",),
    ),
    Bad(
        "hugepages too few",
        "dataplane",
        {"spec.type": "vpp", "spec.vpp": {"hugepages": {"amount": "100Mi"}}},
        "spec.vpp.hugepages.amount",
        ("at least 200Mi", "512Mi"),
    ),
    Bad(
        "hugepages not whole",
        "dataplane",
        {"spec.type": "vpp", "spec.vpp": {"hugepages": {"pageSize": "1Gi", "amount": "512Mi"}}},
        "spec.vpp.hugepages.amount",
        ("whole pages", "1Gi"),
    ),
    Bad(
        "exclusive without size",
        "dataplane",
        {"spec.type": "vpp", "spec.vpp": {"workers": 1, "exclusiveCPUs": True}},
        "spec.resources",
        ("limits.memory", "2Gi"),
    ),
    Bad(
        "exclusive on its own",
        "dataplane",
        {"spec": {"type": "vpp", "vpp": {"exclusiveCPUs": True}}},
        "spec.resources",
        ("limits.memory", "2Gi"),
    ),
    Bad(
        "exclusive with cpu",
        "dataplane",
        {
            "spec.type": "vpp",
            "spec.vpp": {"workers": 1, "exclusiveCPUs": True},
            "spec.resources.dataPlane": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
        },
        "spec.resources",
        ("remove cpu",),
    ),
    Bad(
        "card without name",
        "dataplane",
        {
            "spec.type": "vpp",
            "spec.announcement": {"type": "None"},
            "spec.vpp": {"interfaces": [{key: _CARD[key] for key in ("type", "addresses")}]},
        },
        "spec.vpp.interfaces[0]",
        ("take a name",),
    ),
    Bad(
        "card of both kinds",
        "dataplane",
        {
            "spec.type": "vpp",
            "spec.announcement": {"type": "None"},
            "spec.vpp": {"interfaces": [_CARD | {"pciAddress": "0000:3b:00.0"}]},
        },
        "spec.vpp.interfaces[0]",
        ("remove the others",),
    ),
    Bad(
        "card without prefix length",
        "dataplane",
        {
            "spec.type": "vpp",
            "spec.announcement": {"type": "None"},
            "spec.vpp": {"interfaces": [_CARD | {"addresses": [{"node": "lb-1", "address": "192.0.2.11"}]}]},
        },
        "spec.vpp.interfaces[0].addresses[0].address",
        ("192.0.2.11/24",),
    ),
    Bad(
        "Dpdk without hugepages",
        "dataplane",
        {"spec.type": "vpp", "spec.announcement": {"type": "None"}, "spec.vpp": {"interfaces": [_PCI_CARD]}},
        "spec.vpp.hugepages",
        ("needs hugepages", "1Gi"),
    ),
    Bad(
        "card and announcement",
        "dataplane",
        {"spec.type": "vpp", "spec.vpp": {"interfaces": [_CARD]}},
        "spec.announcement",
        ("announcement.type to None",),
    ),
    # DataPlaneNode and DataPlaneNodeReport
    Bad("key", "node", {"spec.schedulerKey": "secret"}, "spec.schedulerKey"),
    Bad("no source", "node", {"spec.natSource.addresses": []}, "spec.natSource.addresses", ("at least 1",)),
    Bad("VIP twice", "report", {"report.vips.1": REPORT["report"]["vips"][0]}, "report.vips"),
    Bad("negative count", "report", {"report.vips.0.ready": -1}, "report.vips[0].ready", ("0",)),
)

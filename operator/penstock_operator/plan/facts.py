"""What decisions need to know of Kubernetes' own objects, cut down as they arrive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, Self

from penstock_api.fields import IPAddress, IPNetwork
from penstock_api.names import COMPONENT_LABEL, DATAPLANE_LABEL

TEMPLATE_HASH_LABEL = "penstock.dev/template-hash"

Name = tuple[str, str]  # (namespace, name)


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node that keeps pods away."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class NodeFacts:
    """A node of the cluster."""

    name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    internal: tuple[IPAddress, ...] = ()
    pod_networks: tuple[IPNetwork, ...] = ()
    ready: bool = False
    ready_changed: datetime | None = None

    @property
    def owner(self) -> str:
        """DataPlane whose DaemonSets run here, by our label."""
        return self.labels.get(DATAPLANE_LABEL, "")

    def primary(self) -> tuple[IPAddress, ...]:
        """Return the first internal address of each family."""
        first: dict[int, IPAddress] = {}
        for address in self.internal:
            first.setdefault(address.version, address)
        return tuple(first.values())

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        """Cut a Node down."""
        metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        found = [(entry.get("type"), parse_address(entry.get("address"))) for entry in status.get("addresses") or ()]
        ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
        networks = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            labels=metadata.get("labels") or {},
            taints=tuple(
                Taint(taint.get("key", ""), taint.get("value") or "", taint.get("effect", ""))
                for taint in spec.get("taints") or ()
            ),
            addresses=tuple(address for _, address in found if address is not None),
            internal=tuple(address for kind, address in found if kind == "InternalIP" and address is not None),
            pod_networks=parse_networks(networks),
            ready=ready.get("status") == "True",
            ready_changed=parse_time(ready.get("lastTransitionTime")),
        )


@dataclass(frozen=True)
class ServicePort:
    """A port of a Service; its target is a number, or the name of a port of pods."""

    name: str
    port: int
    protocol: str
    target: int | str

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        """Cut a port down; the API server fills in protocol and target."""
        port = int(raw.get("port") or 0)
        return cls(str(raw.get("name") or ""), port, str(raw.get("protocol") or "TCP"), raw.get("targetPort") or port)

    def __str__(self) -> str:
        named = f"{self.name} " if self.name else ""
        return f"{named}{self.port}/{self.protocol} to {self.target}"


@dataclass(frozen=True)
class ServiceFacts:
    """A Service: that it exists, the addresses it has, and the field that each of them is in."""

    name: Name
    addresses: tuple[IPAddress, ...] = ()
    fields: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    external_name: str = ""

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        """Cut a Service down."""
        spec = raw.get("spec") or {}
        balancer = (raw.get("status") or {}).get("loadBalancer") or {}
        texts = [
            *((text, "spec.clusterIPs") for text in spec.get("clusterIPs") or [spec.get("clusterIP")]),
            *((text, "spec.externalIPs") for text in spec.get("externalIPs") or ()),
            *((entry.get("ip"), "status.loadBalancer") for entry in balancer.get("ingress") or ()),
        ]
        found = [(address, field) for text, field in texts if (address := parse_address(text)) is not None]
        metadata = raw["metadata"]
        addresses, fields = tuple(a for a, _ in found), tuple(field for _, field in found)
        ports = tuple(ServicePort.from_raw(port) for port in spec.get("ports") or ())
        external = str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else ""
        return cls((metadata["namespace"], metadata["name"]), addresses, fields, ports, external)


@dataclass(frozen=True)
class PodFacts:
    """A pod in our namespace."""

    name: Name
    uid: str
    node: str
    data_plane: str  # that it belongs to; empty for other pods
    forwards: bool  # rather than steers
    template_hash: str
    ready: bool
    deleting: bool
    trouble: str = ""  # why it does not start, for example "ErrImagePull penstock/vpp:0.1.0"
    created: datetime | None = None

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        """Cut a Pod down."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        labels = metadata.get("labels") or {}
        return cls(
            name=(metadata["namespace"], metadata["name"]),
            uid=metadata.get("uid", ""),
            node=_node_of_pod(raw.get("spec") or {}),
            data_plane=labels.get(DATAPLANE_LABEL, ""),
            forwards=labels.get(COMPONENT_LABEL) == "dataplane",
            template_hash=labels.get(TEMPLATE_HASH_LABEL, ""),
            ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
            deleting="deletionTimestamp" in metadata,
            trouble=pod_trouble(status),
            created=parse_time(metadata.get("creationTimestamp")),
        )


_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_TEXT_LIMIT = 200  # characters of what another program says


def _node_of_pod(spec: Mapping[str, Any]) -> str:
    """Return the node that a pod is on, or that its DaemonSet made it for."""
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for match in term.get("matchFields") or ():
            if match.get("key") == "metadata.name" and match.get("values"):
                return str(match["values"][0])
    return ""


def pod_trouble(status: Mapping[str, Any]) -> str:
    """Return why a pod does not start; empty where it runs, or is starting."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {str(condition.get('message', ''))[:_TEXT_LIMIT]}"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason and reason not in _STARTING:
            return _container_trouble(container, reason, str(waiting.get("message", "")))
    return ""


def _container_trouble(container: Mapping[str, Any], reason: str, message: str) -> str:
    image = container.get("image", "")
    if reason in ("ErrImagePull", "ImagePullBackOff"):  # a kubelet alternates between the two
        return f"ErrImagePull {image}"
    if "Image" in reason:
        return f"{reason} {image}"
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if ended:
        return f"{reason} {container.get('name', '')}: exit status {ended.get('exitCode')}"
    return f"{reason} {container.get('name', '')}: {message[:_TEXT_LIMIT]}"


def parse_address(text: object) -> IPAddress | None:
    """Read an address; None for what is none (`None` of headless Services, host names)."""
    try:
        return ip_address(_decimal(text)) if isinstance(text, str) and text else None
    except ValueError:
        return None


def parse_networks(texts: Iterable[object]) -> tuple[IPNetwork, ...]:
    """Read networks, but for those that are none."""
    return tuple(network for text in texts if (network := _parse_network(text)) is not None)


def _parse_network(text: object) -> IPNetwork | None:
    try:
        return ip_network(_decimal(text), strict=False) if isinstance(text, str) and text else None
    except ValueError:
        return None


def _decimal(text: str) -> str:
    """Strip leading zeros of IPv4 addresses: Kubernetes stored such ones once, and reads them as decimal."""
    return _LEADING_ZEROS.sub("", text) if ":" not in text else text


_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def parse_time(text: object) -> datetime | None:
    """Read a time of the API server; None for what is none."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) and text else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found

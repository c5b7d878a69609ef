"""Our kinds as the API client addresses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_api import (
    AddressPool,
    DataPlane,
    DataPlaneNode,
    DataPlaneNodeReport,
    KubeObject,
    LoadBalancerVIP,
    RLPolicy,
)
from penstock_kube import Object, Resource

VIPS = Resource(*LoadBalancerVIP.resource())
POLICIES = Resource(*RLPolicy.resource())
POOLS = Resource(*AddressPool.resource())
DATA_PLANES = Resource(*DataPlane.resource())
DATA_PLANE_NODES = Resource(*DataPlaneNode.resource())
REPORTS = Resource(*DataPlaneNodeReport.resource())

USER_KINDS: Mapping[Resource, type[KubeObject]] = {
    POOLS: AddressPool,
    DATA_PLANES: DataPlane,
    POLICIES: RLPolicy,
    VIPS: LoadBalancerVIP,
}
"""Kinds that people write."""


def identity(obj: KubeObject) -> Object:
    """Return what an apply needs to name exactly this object: with its UID, a deleted one isn't brought back."""
    metadata: dict[str, Any] = {"name": obj.metadata.name, "uid": obj.metadata.uid}
    if obj.metadata.namespace:
        metadata["namespace"] = obj.metadata.namespace
    return metadata


def reference(obj: KubeObject) -> Object:
    """Return an object as Events refer to it."""
    return {"apiVersion": obj.api_version, "kind": obj.info.kind, "metadata": identity(obj)}

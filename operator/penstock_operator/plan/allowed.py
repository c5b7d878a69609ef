"""Addresses that VIPs may have, as data planes are told them: in a ConfigMap that agents can neither read nor write."""

from __future__ import annotations

import json
from collections.abc import Iterable

from penstock_api import AddressPool, DataPlane, LoadBalancerVIP
from penstock_api.fields import AddressBlock, IPAddress
from penstock_api.names import API_VERSION, DATAPLANE_LABEL, PART_OF_LABEL

from penstock_operator.plan.pods import ALLOWED_FILE, Manifest, allowed_name

VERSION = 1


def config_map(
    data_plane: DataPlane, pools: Iterable[AddressPool], vips: Iterable[LoadBalancerVIP], namespace: str
) -> Manifest:
    """Render the ConfigMap of a DataPlane: all pools, and what its VIPs hold beside them since a pool shrank."""
    name = data_plane.metadata.name
    blocks = {block for pool in pools for block in pool.spec.addresses}
    held = {address for vip in vips if vip.status.data_plane_name == name for address in vip.status.addresses}
    beside = {str(address) for address in held if not _within(address, blocks)}
    content = {"version": VERSION, "blocks": sorted({block.text for block in blocks} | beside)}
    owner = {"apiVersion": API_VERSION, "kind": DataPlane.info.kind, "name": name, "uid": data_plane.metadata.uid}
    return {
        "metadata": {
            "name": allowed_name(name),
            "namespace": namespace,
            "labels": {PART_OF_LABEL: "penstock", DATAPLANE_LABEL: name},
            "ownerReferences": [owner],
        },
        "data": {ALLOWED_FILE: json.dumps(content)},
    }


def _within(address: IPAddress | str, blocks: Iterable[AddressBlock]) -> bool:
    return any(block.contains_any([str(address)]) for block in blocks)

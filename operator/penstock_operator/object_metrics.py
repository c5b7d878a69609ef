"""Metrics of users' objects: how full pools are, which VIPs are Ready, and which node announces which address.

They are computed from the objects' status in the store, so the operator and `kubectl` show the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock_api import AddressPool, DataPlane, LoadBalancerVIP
from prometheus_client.core import GaugeMetricFamily, Metric

from penstock_operator import kinds
from penstock_operator.plan.allocation import World
from penstock_operator.plan.pools import pool_use
from penstock_operator.store import Store


def object_metrics(store: Store, world: World) -> Iterator[Metric]:
    """Yield the metrics of all objects."""
    yield from _pools(list(store.all(kinds.POOLS).values()), world)
    yield from _vips(list(store.all(kinds.VIPS).values()))
    yield from _data_planes(list(store.all(kinds.DATA_PLANES).values()))


def _pools(pools: list[AddressPool], world: World) -> Iterator[Metric]:
    used = GaugeMetricFamily("penstock_pool_addresses_used", "Addresses of a pool that VIPs hold.", labels=["pool"])
    free = GaugeMetricFamily("penstock_pool_addresses_free", "Addresses of a pool that are left.", labels=["pool"])
    held_addresses = world.ledger.held_addresses()
    for pool in pools:
        held, left = pool_use(pool, held_addresses, world.reserved)
        used.add_metric([pool.metadata.name], held)
        free.add_metric([pool.metadata.name], left)
    yield from (used, free)


def _vips(vips: list[LoadBalancerVIP]) -> Iterator[Metric]:
    names = ["namespace", "name"]
    ready = GaugeMetricFamily("penstock_vip_ready", "Whether clients of a VIP are served.", labels=names)
    nodes = GaugeMetricFamily("penstock_vip_nodes_programmed", "Nodes that forward a VIP.", labels=names)
    announced = GaugeMetricFamily(
        "penstock_vip_announced",
        "1 for each address of a VIP and the node that announces it.",
        labels=[*names, "address", "node"],
    )
    for vip in vips:
        labels = [vip.metadata.namespace, vip.metadata.name]
        ready.add_metric(labels, float(vip.ready))
        nodes.add_metric(labels, vip.status.nodes.programmed if vip.status.nodes else 0)
        for each in vip.status.announcements:
            announced.add_metric([*labels, str(each.address), each.node_name], 1.0)
    yield from (ready, nodes, announced)


def _data_planes(data_planes: list[DataPlane]) -> Iterator[Metric]:
    selected = GaugeMetricFamily("penstock_dataplane_nodes", "Nodes of a DataPlane.", labels=["dataplane"])
    name, text = "penstock_dataplane_nodes_ready", "Nodes of a DataPlane that forward."
    ready = GaugeMetricFamily(name, text, labels=["dataplane"])
    for data_plane in data_planes:
        counts = data_plane.status.nodes
        selected.add_metric([data_plane.metadata.name], counts.selected if counts else 0)
        ready.add_metric([data_plane.metadata.name], counts.ready if counts else 0)
    yield from (selected, ready)

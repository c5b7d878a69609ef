"""Addresses that are given to no VIP: those of nodes, pods and Services. A VIP keeps one that it holds already."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_network
from itertools import repeat

from penstock_api.fields import AddressBlock, IPAddress, IPNetwork

from penstock_operator.plan.facts import NodeFacts, ServiceFacts


class Reserved:
    """Answers for any address whose it is. Networks are found by prefix length, so many nodes cost little."""

    def __init__(
        self,
        nodes: Iterable[NodeFacts] = (),
        services: Iterable[ServiceFacts] = (),
        service_networks: Iterable[IPNetwork] = (),
        extra: Iterable[IPNetwork] = (),
    ) -> None:
        self._owners: dict[IPAddress, str] = {}
        self._networks: dict[IPNetwork, str] = {}
        for service in services:
            for address, field in zip(service.addresses, service.fields or repeat(""), strict=False):
                where = f" ({field})" if field else ""
                self._owners[address] = f"of Service {'/'.join(service.name)}{where}"
        for node in nodes:
            for network in node.pod_networks:
                self._networks[network] = f"in the pod network {network} of node {node.name}"
            for address in node.addresses:
                self._owners[address] = f"of node {node.name}"
        for network in service_networks:
            self._networks[network] = f"in the Service network {network}"
        for network in extra:
            self._networks[network] = f"in the reserved network {network}"
        self._lengths = {(network.version, network.prefixlen) for network in self._networks}

    def owner(self, address: IPAddress) -> str | None:
        """Say whose an address is ("of node lb-1"); None if a VIP may have it."""
        if owner := self._owners.get(address):
            return owner
        for version, length in self._lengths:
            if version == address.version:
                network = ip_network((address, length), strict=False)
                if owner := self._networks.get(network):
                    return owner
        return None

    def network_meeting(self, block: AddressBlock) -> str | None:
        """Say which network meets a block of a pool ("in the pod network ..."); single addresses don't count."""
        for network, owner in self._networks.items():
            if block.overlaps(AddressBlock(network[0], network[-1], str(network))):
                return owner
        return None

    def count_in(self, block: AddressBlock, without: Collection[IPAddress] = ()) -> int:
        """Count single reserved addresses in a block, but those that VIPs hold."""
        return sum(1 for address in self._owners if address in block and address not in without)

"""The pair of devices between the kernel and a data plane with drivers of its own."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from typing import TYPE_CHECKING

from penstock_node import devconf
from penstock_node.constants import DEVICE_ALIAS, DEVICE_GROUP, VETH_ADDRESS, VETH_PEER_ADDRESS
from penstock_node.desired import Veth
from penstock_node.devconf import Ipv4Setting

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_SIOCETHTOOL = 0x8946
# ETHTOOL_STXCSUM, STSO, SGSO, SGRO: what the data plane's packet sockets take has whole checksums and is no longer
# than a frame.
_OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)


def create(channel: IPRoute, veth: Veth) -> None:
    """Make the pair."""
    peer = {"ifname": veth.peer, "address": VETH_PEER_ADDRESS}
    channel.link("add", ifname=veth.name, kind="veth", address=VETH_ADDRESS, peer=peer)


def configure(channel: IPRoute, veth: Veth) -> None:
    """Set both ends and bring them up."""
    near, far = socket.if_nametoindex(veth.name), socket.if_nametoindex(veth.peer)
    # rp_filter off and accept_local on: what comes out of the device has a VIP or the node's own address as source.
    devconf.set_ipv4(near, {Ipv4Setting.FORWARDING: 1, Ipv4Setting.RP_FILTER: 0, Ipv4Setting.ACCEPT_LOCAL: 1})
    for index, name in ((near, veth.name), (far, veth.peer)):
        devconf.disable_ipv6_addresses(index)
        _switch_offloads_off(name)
    settings = {"mtu": veth.mtu, "txqlen": veth.tx_queue_length, "arp": False, "state": "up"}
    channel.link("set", index=far, **settings)
    ours = {"ifalias": DEVICE_ALIAS, "group": DEVICE_GROUP, "address": VETH_ADDRESS}
    channel.link("set", index=near, **ours, **settings)


def _switch_offloads_off(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _OFFLOADS:
            value = array.array("I", (command, 0))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), value.buffer_info()[0]))

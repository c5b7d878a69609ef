"""Numbers and names by which everything of ours is recognised on a node, also by a process that has just started."""

from __future__ import annotations

TUN_NAME = "penstock"
"""Name of the data plane's device unless another is asked for."""

VETH_PEER_NAME = "penstock-vpp"
"""Name of the end of a veth pair that the data plane takes."""

VETH_ADDRESS = "02:70:65:6e:73:74"
"""Ethernet address at both sides of the wire: a device that resolves no neighbours sends to its own address."""

VETH_PEER_ADDRESS = "02:70:65:6e:73:75"
"""What the kernel thinks the data plane's end has: frames are not for it, so only the data plane takes them."""

PROTOCOL = 112
"""Protocol id that our rules and routes carry (`ip rule list protocol 112`, `ip route list table all proto 112`)."""

SOURCE_TABLE = 11200
"""Routing table of NAT source traffic: everything goes to the TUN."""

VIP_TABLE = 11201
"""Routing table of VIPs: one host route for each."""

SOURCE_RULE_PREFERENCE = 0
"""Steering of NAT ports must come before the local table, which would deliver them to the node itself."""

LOCAL_RULE_PREFERENCE = 1
"""Where the local table's rule moves from 0, so that there is room before it."""

VIP_RULE_PREFERENCE = 2
"""VIPs are not local addresses: after the local table, before everything else."""

DEVICE_METRIC = 100
"""Metric of routes to the TUN."""

BLACKHOLE_METRIC = 4000
"""Metric of the blackholes behind them, in force while the TUN is gone."""

MARK = 0x70656E73
"""Packet mark of ICMP errors about NAT source traffic; rules on ports cannot see into their inner headers."""

NFT_TABLE = "penstock"
"""Name of our nft tables (families inet and netdev)."""

DEVICE_ALIAS = "penstock data plane"
"""Alias of our device: it is recognised by it even when the configured name has changed."""

DEVICE_GROUP = 11200
"""Group of our device (`ip link show group 11200`), by which nft rules recognise what comes from it."""

LOCAL_TABLE = 255
"""The kernel's table of the node's own addresses."""

MAIN_TABLE = 254
"""The kernel's table of ordinary routes."""

KERNEL_PROTOCOL = 2
"""Protocol id of rules that the kernel made itself."""

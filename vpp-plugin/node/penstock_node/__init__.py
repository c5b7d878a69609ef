"""What touches the node's kernel: devices, routes, rules, nft, ARP and NDP. Knows nothing of load balancing.

`reconcile(DesiredNode(...))` makes the node right and `provide` its device alone, `open_tun` gives the packet threads
their descriptors, `Announcer` answers for addresses, `preflight` says what the node lacks, `withdraw` removes all.
Everything is done by rtnetlink, ioctl on /dev/net/tun, raw sockets and `nft`: uid 0 with NET_ADMIN (NET_RAW
to announce) is enough, and /proc/sys may be read-only.
"""

from penstock_node.announcer import Announcer
from penstock_node.changes import Change, CreateTun, CreateVeth
from penstock_node.checks import Finding, Severity, Surroundings, preflight, what_blocks_forwarding
from penstock_node.desired import Address, DesiredNode, NatSource, Tun, Veth
from penstock_node.errors import AnnounceError, ApplyError, NodeError, ObserveError, TunError
from penstock_node.netlink import occupied_addresses
from penstock_node.reconciliation import provide, reconcile, withdraw
from penstock_node.tun import VNET_HEADER_BYTES, dropped_by_queue, open_tun
from penstock_node.watch import NodeWatch

__all__ = [
    "VNET_HEADER_BYTES",
    "Address",
    "AnnounceError",
    "Announcer",
    "ApplyError",
    "Change",
    "CreateTun",
    "CreateVeth",
    "DesiredNode",
    "Finding",
    "NatSource",
    "NodeError",
    "NodeWatch",
    "ObserveError",
    "Severity",
    "Surroundings",
    "Tun",
    "TunError",
    "Veth",
    "dropped_by_queue",
    "occupied_addresses",
    "open_tun",
    "preflight",
    "provide",
    "reconcile",
    "what_blocks_forwarding",
    "withdraw",
]

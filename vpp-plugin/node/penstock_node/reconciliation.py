"""The outer loop: read the node, decide, change. Safe to call at any time, by a fresh process too."""

from __future__ import annotations

from penstock_node import netlink, plans
from penstock_node.changes import Change
from penstock_node.desired import DesiredNode, Tun, Veth


def reconcile(desired: DesiredNode) -> tuple[Change, ...]:
    """Make the node what is desired and return what had to be changed; nothing when all is right already.

    Blocking (netlink and two to four `nft` processes, some 50 ms): call it off the event loop. Raises
    `ObserveError` when the node cannot be read and `ApplyError` when some changes failed. If the result
    holds a `CreateTun` or `CreateVeth`, file descriptors of an earlier device are dead: call `open_tun` again.
    """
    changes = plans.plan(desired, netlink.observe())
    netlink.apply(changes)
    return changes


def provide(device: Tun | Veth) -> tuple[Change, ...]:
    """Make the device alone, as `reconcile` would, and return what had to be changed. Raises as `reconcile` does.

    For who must open the device before anybody knows what else the node should have: nothing else is touched.
    """
    changes = plans.plan_device(device, netlink.observe())
    netlink.apply(changes)
    return changes


def withdraw() -> tuple[Change, ...]:
    """Remove everything of ours from the node and return what was removed; the only function that does.

    Whoever reads the TUN should have closed it. Raises as `reconcile` does.
    """
    changes = plans.plan_withdrawal(netlink.observe())
    netlink.apply(changes)
    return changes

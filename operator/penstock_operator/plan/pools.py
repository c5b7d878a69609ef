"""AddressPools: which are usable, which contain an address, how full they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock_api import AddressPool, PoolStatus, PoolSummary, Reason, set_condition
from penstock_api.conditions import ConditionType
from penstock_api.fields import AddressBlock, AddressFamily, IPAddress, family_of

from penstock_operator.plan.reserved import Reserved

BLOCKS_SHOWN = 3  # as long as IPv6 ranges are, more of them make no column

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PoolVerdict:
    """Whether addresses of a pool may be given out."""

    usable: bool
    reason: Reason
    message: str


def age_order(pool: AddressPool) -> tuple[datetime, str, str]:
    """Order pools: the older first."""
    return pool.metadata.creation_timestamp or _EPOCH, pool.metadata.uid, pool.metadata.name


def judge_pool(pool: AddressPool, pools: Iterable[AddressPool], reserved: Reserved) -> PoolVerdict:
    """Decide on a pool: it meets no network of the cluster, and no older pool."""
    for block in pool.spec.addresses:
        if owner := reserved.network_meeting(block):
            message = f"spec.addresses: {block} has addresses {owner}; use addresses of no other use"
            return PoolVerdict(False, Reason.ADDRESS_NOT_ALLOWED, message)
    for other in pools:
        if age_order(other) >= age_order(pool) or other.deleting:
            continue
        for block in pool.spec.addresses:
            for theirs in other.spec.addresses:
                if block.overlaps(theirs):
                    message = (
                        f"spec.addresses: {block} overlaps {theirs} of AddressPool {other.metadata.name}, "
                        f"which is older; take the common addresses out of one of them"
                    )
                    return PoolVerdict(False, Reason.POOL_OVERLAP, message)
    return PoolVerdict(True, Reason.ACCEPTED, "addresses can be given out")


class Pools:
    """All pools, the older first; those refused or on their way out give out nothing."""

    def __init__(self, pools: Iterable[AddressPool], reserved: Reserved) -> None:
        ordered = sorted(pools, key=age_order)
        self.verdicts: Mapping[str, PoolVerdict] = {
            pool.metadata.name: judge_pool(pool, ordered, reserved) for pool in ordered
        }
        self.by_name: Mapping[str, AddressPool] = {pool.metadata.name: pool for pool in ordered}
        self.usable: Sequence[AddressPool] = [
            pool for pool in ordered if self.verdicts[pool.metadata.name].usable and not pool.deleting
        ]

    def containing(self, address: IPAddress) -> AddressPool | None:
        """Return the usable pool that an address lies in; usable pools don't overlap."""
        return next((pool for pool in self.usable if pool.spec.contains(address)), None)

    def open_to(self, namespace: str, name: str | None, family: AddressFamily) -> list[AddressPool]:
        """Return the usable pools that may serve a VIP: the named one, or all that assign by themselves."""
        return [
            pool
            for pool in self.usable
            if (pool.metadata.name == name if name else pool.spec.auto_assign)
            and pool.spec.allows(namespace)
            and any(family_of(block.first) is family for block in pool.spec.addresses)
        ]


def assignable(block: AddressBlock) -> tuple[int, int]:
    """Return the first and last address of a block that are given out unasked.

    A subnet's first address is nobody's (IPv6: the routers'), an IPv4 subnet's last one everybody's; where a block
    isn't a subnet of the link they work too, so a user may still choose them.
    """
    first, last = int(block.first), int(block.last)
    if "/" in block.text and block.size > 2:  # a /31 or /127 has two hosts and no such addresses
        return first + 1, last - 1 if block.first.version == 4 else last
    return first, last


def pool_use(pool: AddressPool, held: Iterable[IPAddress], reserved: Reserved) -> tuple[int, int]:
    """Return how many addresses of a pool VIPs hold, and how many are left."""
    used = {address for address in held if pool.spec.contains(address)}
    total = sum(last - first + 1 for first, last in map(assignable, pool.spec.addresses))
    claimed = sum(reserved.count_in(block, without=used) for block in pool.spec.addresses)
    return len(used), max(total - len(used) - claimed, 0)


def pool_status(
    pool: AddressPool, pools: Pools, held: Iterable[IPAddress], reserved: Reserved, now: datetime
) -> PoolStatus:
    """Return the status of a pool: usable, and how full."""
    verdict = pools.verdicts[pool.metadata.name]
    generation = pool.metadata.generation
    used, free = pool_use(pool, held, reserved)
    conditions = set_condition(
        pool.status.conditions,
        ConditionType.ACCEPTED,
        verdict.usable,
        verdict.reason,
        verdict.message,
        generation,
        now,
    )
    ready_reason = Reason.READY if verdict.usable and free else verdict.reason
    if verdict.usable and not free:
        ready_reason, message = Reason.NO_ADDRESS_AVAILABLE, "all addresses are held; add some to spec.addresses"
    else:
        message = verdict.message
    conditions = set_condition(
        conditions, ConditionType.READY, verdict.usable and free > 0, ready_reason, message, generation, now
    )
    conditions = set_condition(
        conditions, ConditionType.STALLED, not verdict.usable, verdict.reason, verdict.message, generation, now
    )
    return PoolStatus(
        observed_generation=generation,
        conditions=conditions,
        summary=PoolSummary(addresses=block_list(pool), used=str(used), free=_count(free)),
    )


def block_list(pool: AddressPool) -> str:
    """Name a pool's blocks, the first few of them, for people."""
    texts = [block.text for block in pool.spec.addresses]
    more = len(texts) - BLOCKS_SHOWN
    return ", ".join(texts[:BLOCKS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(number: int) -> str:
    return str(number) if number < 10**9 else f"2^{number.bit_length() - 1}"

"""Which addresses a VIP gets: the ones it holds, the ones it asks for, or free ones of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_api import AddressPool, LoadBalancerVIP, Reason
from penstock_api.fields import AddressBlock, AddressFamily, IPAddress, family_of

from penstock_operator.plan.ledger import Claim, Ledger
from penstock_operator.plan.pools import Pools, assignable, block_list
from penstock_operator.plan.reserved import Reserved


@dataclass(frozen=True)
class Problem:
    """Why a VIP can't have what its spec says, and what to do about it."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class World:
    """What addresses are decided by."""

    pools: Pools
    reserved: Reserved
    ledger: Ledger


@dataclass(frozen=True)
class Assignment:
    """Addresses to record in the status, and what is wrong with the spec if anything is.

    With a problem, a VIP keeps what it holds and gets nothing new: a bad edit doesn't stop traffic.
    """

    addresses: tuple[IPAddress, ...]
    problem: Problem | None = None


def assign(vip: LoadBalancerVIP, world: World) -> Assignment:
    """Decide on a VIP's addresses."""
    claim = Claim.of(vip)
    kept = tuple(a for a in vip.status.addresses if _obstacle(claim, a, world) is None)
    problem = _chosen_problem(vip, claim, world) if vip.spec.addresses else None
    if problem:
        return Assignment(kept, problem)
    if vip.spec.addresses:
        return Assignment(vip.spec.addresses)
    return _allocate(vip, kept, world)


def _chosen_problem(vip: LoadBalancerVIP, claim: Claim, world: World) -> Problem | None:
    for address in vip.spec.addresses or ():
        if problem := _obstacle(claim, address, world) or _membership(claim, address, world.pools):
            return problem
    return None


def _obstacle(claim: Claim, address: IPAddress, world: World) -> Problem | None:
    """Say why the VIP must not have an address, whatever the pools say."""
    if owner := world.reserved.owner(address):
        message = f"{address} is {owner}; choose an address that nothing else uses"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    rivals = world.ledger.rivals(claim, address)
    rival = next((rival for rival in rivals if not _makes_room(rival, address, claim, world)), None)
    if rival is None:
        return None
    holder = "/".join(rival.name)
    common = sorted(rival.ports & claim.ports)
    if rival.name[0] == claim.name[0] and common:
        held = ", ".join(f"{address_and_port(address, port)}/{protocol}" for port, protocol in common)
        fix = "choose another address or port"
    elif common:
        port, protocol = common[0]
        held, fix = f"{address_and_port(address, port)}/{protocol}", "choose another address"
    else:
        held, fix = str(address), "only VIPs of one namespace and one DataPlane share an address; choose another one"
    return Problem(Reason.ADDRESS_CONFLICT, f"{held} is held by {holder}; {fix}")


def _makes_room(rival: Claim, address: IPAddress, claim: Claim, world: World) -> bool:
    """Tell whether a holder is about to leave an address, be it in exchange for one of the claimant's.

    It leaves when it asks for other addresses that it can have. Where these are held too, by VIPs that leave in turn,
    all of them move together: a ring of VIPs that exchange their addresses needs no free one, and no order. Nobody
    is expected to move to an address that a third one may not have, or wants as well: then all stay where they are.
    """
    pending, moving = [(rival, address)], {claim.name}
    while pending:
        holder, given_up = pending.pop()
        if not holder.leaves(given_up):
            return False
        if holder.name in moving:
            continue
        moving.add(holder.name)
        for wanted in holder.wanted - holder.held:
            if world.reserved.owner(wanted) or _membership(holder, wanted, world.pools):
                return False
            pending += [(other, wanted) for other in world.ledger.excluded_by(holder, wanted)]
    return True


def address_and_port(address: IPAddress, port: int) -> str:
    """Write an address with a port, IPv6 in brackets."""
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _membership(claim: Claim, address: IPAddress, pools: Pools) -> Problem | None:
    pool = pools.containing(address)
    namespace, wanted = claim.name[0], claim.pool
    if pool is None:
        have = "; ".join(f"{p.metadata.name} has {block_list(p)}" for p in pools.usable) or "there is none, create one"
        message = f"{address} is in no usable AddressPool ({have}); choose an address of a pool"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    name = pool.metadata.name
    if not pool.spec.allows(namespace):
        message = (
            f"{address} belongs to AddressPool {name}, which namespace {namespace} may not use; "
            f"choose another address, or have {namespace} added to spec.namespaces of the pool"
        )
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    if wanted and wanted != name:
        message = f"{address} belongs to AddressPool {name}, not to spec.addressPool {wanted}; change one of them"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    return None


def _allocate(vip: LoadBalancerVIP, kept: tuple[IPAddress, ...], world: World) -> Assignment:
    chosen: list[IPAddress] = []
    problem: Problem | None = None
    for family in vip.spec.address_families:
        of_family = [address for address in kept if family_of(address) is family]
        pools = world.pools.open_to(vip.metadata.namespace, vip.spec.address_pool, family)
        fitting = [a for a in of_family if any(pool.spec.contains(a) for pool in _may_keep(vip, world, pools))]
        if fitting:
            chosen.append(fitting[0])
        elif (free := _first_free(pools, family, world)) is not None:
            chosen.append(free)
        else:
            chosen += of_family[:1]
            problem = problem or _none_left(vip, family, of_family, pools, world.pools)
    if problem:
        return Assignment(tuple(address for address in chosen if address in kept), problem)
    return Assignment(tuple(chosen))


def _may_keep(vip: LoadBalancerVIP, world: World, pools: list[AddressPool]) -> list[AddressPool]:
    """Return pools whose addresses a VIP may keep: `autoAssign` switched off later takes none away."""
    if vip.spec.address_pool:
        return pools
    return [pool for pool in world.pools.usable if pool.spec.allows(vip.metadata.namespace)]


def _first_free(pools: list[AddressPool], family: AddressFamily, world: World) -> IPAddress | None:
    for pool in pools:
        for block in pool.spec.addresses:
            if family_of(block.first) is family and (found := _first_free_in(block, world)) is not None:
                return found
    return None


def _first_free_in(block: AddressBlock, world: World) -> IPAddress | None:
    first, last = assignable(block)
    make, version = type(block.first), block.first.version
    while (number := world.ledger.first_unheld(version, first, last)) is not None:
        address = make(number)
        if world.ledger.is_free(address) and world.reserved.owner(address) is None:
            return address
        first = number + 1
    return None


def _none_left(
    vip: LoadBalancerVIP, family: AddressFamily, held: list[IPAddress], open_pools: list[AddressPool], pools: Pools
) -> Problem:
    wanted, namespace = vip.spec.address_pool, vip.metadata.namespace
    if held:
        message = (
            f"{held[0]} is in no AddressPool that the VIP may use and no other address is free; it is kept for now"
        )
        return Problem(Reason.NO_ADDRESS_AVAILABLE, f"{message}; put it back into a pool or add free addresses")
    if open_pools:
        names = ", ".join(pool.metadata.name for pool in open_pools)
        message = f"no {family} address is free in AddressPool {names}; add addresses to it or delete unused VIPs"
        return Problem(Reason.NO_ADDRESS_AVAILABLE, message)
    if not wanted:
        message = (
            f"no AddressPool with {family} addresses and autoAssign is open to namespace {namespace}; "
            f"create one, or name a pool in spec.addressPool"
        )
        return Problem(Reason.POOL_NOT_FOUND, message)
    return _named_pool_problem(wanted, namespace, family, pools)


def _named_pool_problem(wanted: str, namespace: str, family: AddressFamily, pools: Pools) -> Problem:
    pool = pools.by_name.get(wanted)
    if pool is None:
        have = ", ".join(pools.by_name) or "none"
        return Problem(Reason.POOL_NOT_FOUND, f"AddressPool {wanted} does not exist (there is: {have}); create it")
    if not pools.verdicts[wanted].usable or pool.deleting:
        why = pools.verdicts[wanted].message if not pool.deleting else "it is being deleted"
        return Problem(Reason.POOL_NOT_FOUND, f"AddressPool {wanted} can't be used: {why}")
    if not pool.spec.allows(namespace):
        message = f"AddressPool {wanted} is not open to namespace {namespace}; have it added to spec.namespaces there"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    message = f"AddressPool {wanted} has no {family} addresses; add some, or name another pool"
    return Problem(Reason.NO_ADDRESS_AVAILABLE, message)

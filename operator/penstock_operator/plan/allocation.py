"""Which addresses a VIP gets: the ones it holds, the ones it requests, or free ones of a pool.

A VIP keeps an address that it holds, whatever nodes, Services, networks and pools become later: it is warned, and moves
when its own spec or annotation says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock_api import AddressPool, LoadBalancerVIP, Reason
from penstock_api.fields import AddressBlock, AddressFamily, IPAddress, family_of
from penstock_api.names import MOVE_ANNOTATION

from penstock_operator.plan.ledger import Claim, Ledger, Rival
from penstock_operator.plan.pools import Pools, assignable, block_list
from penstock_operator.plan.reserved import Reserved


@dataclass(frozen=True)
class Problem:
    """Why a VIP cannot have what its spec says, and what to do about it."""

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

    With a problem, a VIP keeps what it holds and gets nothing new: a bad edit does not stop traffic. `warnings` are
    about addresses that it keeps.
    """

    addresses: tuple[IPAddress, ...]
    problem: Problem | None = None
    warnings: tuple[Problem, ...] = ()


def assign(vip: LoadBalancerVIP, world: World, data_plane: str = "") -> Assignment:
    """Decide on a VIP's addresses; `data_plane` is to serve it."""
    claim = Claim.of(vip, data_plane)
    held = tuple(a for a in vip.status.addresses if world.ledger.other_holder(claim, a) is None)
    if not vip.spec.addresses:
        return _allocate(vip, claim, held, world)
    problem = _chosen_problem(vip, claim, held, world)
    if problem:
        return Assignment(held, problem, _warnings(vip, held, world))
    return Assignment(vip.spec.addresses, None, _warnings(vip, held, world))


def _chosen_problem(vip: LoadBalancerVIP, claim: Claim, held: tuple[IPAddress, ...], world: World) -> Problem | None:
    chosen = vip.spec.addresses or ()
    for address in chosen:
        if problem := _rival_problem(claim, address, world):
            return problem
        if address not in held and (problem := _not_for(claim, address, world, beside=chosen)):
            return problem
        if _pool_was_changed(vip) and (problem := _membership(claim, address, world.pools)):
            return problem
    return None


def _pool_was_changed(vip: LoadBalancerVIP) -> bool:
    """Return whether the spec names another pool than the one that the addresses were given for."""
    return vip.spec.address_pool is not None and vip.spec.address_pool != vip.status.address_pool


def _warnings(vip: LoadBalancerVIP, addresses: Iterable[IPAddress], world: World) -> tuple[Problem, ...]:
    """Return what a VIP could not be given now of what it holds and keeps."""
    chosen = vip.spec.addresses
    fix = "choose another one in spec.addresses" if chosen else f'annotate the VIP {MOVE_ANNOTATION}: "true"'
    found = []
    for address in addresses:
        if chosen and address not in chosen:
            continue
        if problem := _held_problem(vip, address, world):
            message = f"{problem.message}; the VIP keeps it: end the conflict there, or {fix} to move the VIP"
            found.append(Problem(problem.reason, message))
    return tuple(found)


def _held_problem(vip: LoadBalancerVIP, address: IPAddress, world: World) -> Problem | None:
    """Return why a held address would not be given again; `autoAssign` switched off later is no reason."""
    if owner := world.reserved.owner(address):
        return Problem(Reason.ADDRESS_CONFLICT, f"{address} is also {owner}")
    pool = world.pools.containing(address)
    if pool is None:
        return Problem(Reason.ADDRESS_NOT_ALLOWED, f"{address} is in no usable AddressPool any more")
    if not pool.spec.allows(vip.metadata.namespace):
        message = f"{address} belongs to AddressPool {pool.metadata.name}, which is not open to this namespace any more"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    return None


def _not_for(claim: Claim, address: IPAddress, world: World, beside: Iterable[IPAddress] = ()) -> Problem | None:
    """Return why the VIP is not given an address, whoever else requests it; `beside` are its other new ones."""
    if owner := world.reserved.owner(address):
        message = f"{address} is {owner}; choose an address that nothing else uses"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    if server := world.ledger.served_by(address):
        message = f"{address} is an endpoint of VIP {'/'.join(server)}; choose an address that nothing else uses"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    return _membership(claim, address, world.pools) or _quota_problem(claim, address, beside, world)


def _quota_problem(claim: Claim, address: IPAddress, beside: Iterable[IPAddress], world: World) -> Problem | None:
    pool = world.pools.containing(address)
    if pool is None or pool.spec.addresses_per_namespace is None:
        return None
    return _quota_excess(claim, {address, *beside}, pool, world)


def _quota_excess(claim: Claim, new: Iterable[IPAddress], pool: AddressPool, world: World) -> Problem | None:
    quota, namespace = pool.spec.addresses_per_namespace, claim.name[0]
    if quota is None:
        return None
    used = {a for a in world.ledger.held_in(namespace, claim.name) if pool.spec.contains(a)}
    if len(used | {a for a in new if pool.spec.contains(a)}) <= quota:
        return None
    message = (
        f"namespace {namespace} holds {len(used)} of {quota} addresses that AddressPool {pool.metadata.name} allows it "
        f"(spec.addressesPerNamespace); delete unused VIPs, let VIPs share an address, or have the number raised"
    )
    return Problem(Reason.QUOTA_EXCEEDED, message)


def _rival_problem(claim: Claim, address: IPAddress, world: World) -> Problem | None:
    """Return which VIP has precedence on an address."""
    rivals = world.ledger.rivals(claim, address)
    rival = next((rival for rival in rivals if not _makes_room(rival.claim, address, claim, world)), None)
    if rival is None:
        return None
    holder = "/".join(rival.claim.name)
    held, fix = _what_is_held(rival, claim, address)
    return Problem(Reason.ADDRESS_CONFLICT, f"{held} is held by {holder}; {fix}")


def _what_is_held(rival: Rival, claim: Claim, address: IPAddress) -> tuple[str, str]:
    if rival.ports:
        held = ", ".join(f"{address_and_port(address, port)}/{protocol}" for port, protocol in sorted(rival.ports))
        return held, "choose another address or port"
    if common := sorted(rival.claim.held_ports & claim.ports):
        port, protocol = common[0]
        return f"{address_and_port(address, port)}/{protocol}", "choose another address"
    return str(address), "only VIPs of one namespace and one DataPlane share an address; choose another one"


def _makes_room(rival: Claim, address: IPAddress, claim: Claim, world: World) -> bool:
    """Return whether a holder is about to leave an address, be it in exchange for one of the claimant's.

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
            if _not_for(holder, wanted, world, beside=holder.wanted):
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


def _allocate(vip: LoadBalancerVIP, claim: Claim, held: tuple[IPAddress, ...], world: World) -> Assignment:
    chosen: list[IPAddress] = []
    problem: Problem | None = None
    for family in vip.spec.address_families:
        keeps = _keeps(vip, [a for a in held if family_of(a) is family], world)
        if keeps and not _gives_up(vip, keeps, world):
            problem = problem or _rival_problem(claim, keeps, world)
            chosen.append(keeps)
        elif (free := _first_free(vip, claim, family, world)) is not None:
            chosen.append(free)
        elif keeps and not _pool_was_changed(vip):
            chosen.append(keeps)
        else:
            chosen += [keeps] if keeps else []
            problem = problem or _none_left(vip, claim, family, keeps, world)
    if problem:
        kept = tuple(address for address in chosen if address in held)
        return Assignment(kept, problem, _warnings(vip, kept, world))
    return Assignment(tuple(chosen), None, _warnings(vip, (a for a in chosen if a in held), world))


def _keeps(vip: LoadBalancerVIP, held: list[IPAddress], world: World) -> IPAddress | None:
    """Return the one of several held addresses of a family that stays: one without conflict if there is one."""
    return min(held, key=lambda address: _held_problem(vip, address, world) is not None, default=None)


def _gives_up(vip: LoadBalancerVIP, address: IPAddress, world: World) -> bool:
    """Return whether the user wants a VIP to leave an allocated address."""
    pool = world.pools.by_name.get(vip.spec.address_pool or "")
    if _pool_was_changed(vip) and not (pool is not None and pool.spec.contains(address)):
        return True
    moves = vip.metadata.annotations.get(MOVE_ANNOTATION) == "true"
    return moves and _held_problem(vip, address, world) is not None


def _first_free(vip: LoadBalancerVIP, claim: Claim, family: AddressFamily, world: World) -> IPAddress | None:
    for pool in world.pools.open_to(vip.metadata.namespace, vip.spec.address_pool, family):
        found = _free_of(pool, family, world)
        if found is not None and _quota_excess(claim, {found}, pool, world) is None:
            return found
    return None


def _free_of(pool: AddressPool, family: AddressFamily, world: World) -> IPAddress | None:
    blocks = (block for block in pool.spec.addresses if family_of(block.first) is family)
    return next((found for block in blocks if (found := _first_free_in(block, world)) is not None), None)


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
    vip: LoadBalancerVIP, claim: Claim, family: AddressFamily, keeps: IPAddress | None, world: World
) -> Problem:
    wanted, namespace = vip.spec.address_pool, vip.metadata.namespace
    kept = f"; {keeps} is kept until then" if keeps else ""
    open_pools = world.pools.open_to(namespace, wanted, family)
    for pool in open_pools:
        free = _free_of(pool, family, world)
        if free is not None and (problem := _quota_excess(claim, {free}, pool, world)):
            return Problem(problem.reason, f"{problem.message}{kept}")
    if open_pools:
        names = ", ".join(pool.metadata.name for pool in open_pools)
        message = f"no {family} address is free in AddressPool {names}; add addresses to it or delete unused VIPs{kept}"
        return Problem(Reason.NO_ADDRESS_AVAILABLE, message)
    if not wanted:
        message = (
            f"no AddressPool with {family} addresses and autoAssign is open to namespace {namespace}; "
            f"create one, or name a pool in spec.addressPool"
        )
        return Problem(Reason.POOL_NOT_FOUND, message)
    problem = _named_pool_problem(wanted, namespace, family, world.pools)
    return Problem(problem.reason, f"{problem.message}{kept}")


def _named_pool_problem(wanted: str, namespace: str, family: AddressFamily, pools: Pools) -> Problem:
    pool = pools.by_name.get(wanted)
    if pool is None:
        have = ", ".join(pools.by_name) or "none"
        return Problem(Reason.POOL_NOT_FOUND, f"AddressPool {wanted} does not exist (there is: {have}); create it")
    if not pools.verdicts[wanted].usable or pool.deleting:
        why = pools.verdicts[wanted].message if not pool.deleting else "it is being deleted"
        return Problem(Reason.POOL_NOT_FOUND, f"AddressPool {wanted} cannot be used: {why}")
    if not pool.spec.allows(namespace):
        message = f"AddressPool {wanted} is not open to namespace {namespace}; have it added to spec.namespaces there"
        return Problem(Reason.ADDRESS_NOT_ALLOWED, message)
    message = f"AddressPool {wanted} has no {family} addresses; add some, or name another pool"
    return Problem(Reason.NO_ADDRESS_AVAILABLE, message)

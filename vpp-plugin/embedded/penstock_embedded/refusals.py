"""VIPs that cannot be as they are wanted, found before anything is moved for them. Computation only."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

from penstock_embedded.addresses import unusable
from penstock_embedded.allowed import Allowed
from penstock_embedded.messages import Address, DesiredState, Error, Forwarding, Vip
from penstock_embedded.state import State

Place = tuple[Address, str, int]


@dataclass(frozen=True)
class Bounds:
    """What bounds addresses that VIPs take anew."""

    occupied: Mapping[Address, str] = dataclasses.field(default_factory=dict)  # by the node and its gateways
    allowed: Allowed | None = None  # None: all


UNBOUNDED = Bounds()


# IPv6 knows no smaller MTU, and clients ignore who tells them one; around it come GRE (4) and the outer header.
_IPV6_MTU_MIN = 1280
_TUNNEL_OVERHEAD = {4: 24, 6: 44}


def places(vip: Vip) -> frozenset[Place]:
    """Return what no two VIPs may have at once."""
    return frozenset((address, vip.protocol.value, vip.port) for address in vip.addresses)


def refusals(
    desired: DesiredState,
    actual: State,
    changed: Collection[str],
    bounds: Bounds = UNBOUNDED,
) -> dict[str, Error]:
    """Return why VIPs are refused, by id: for what they are, for what they were, or for what others have.

    `changed` are those that are not as wanted. Who is refused stays as it is and keeps its places, which may refuse
    others in turn. Of two that want the same the later one goes.
    """
    known = actual.removing | actual.vips
    owners = {address: vip for vip in desired.vips for address in vip.addresses}
    refused: dict[str, Error] = {}
    ids: set[str] = set()
    for vip in desired.vips:
        if vip.id in ids:
            refused[vip.id] = _error("conflict", "id", f"VIP id {vip.id} appears twice", "send each VIP once")
        elif vip.id in changed and (
            problem := _impossible(vip)
            or _loop(vip, owners)
            or _fixed(known.get(vip.id), vip)
            or _out_of_bounds(vip, known.get(vip.id), bounds)
        ):
            refused[vip.id] = problem
        ids.add(vip.id)
    sources = {source.address for source in desired.nat_sources}
    return refused | dict(_conflicts([vip for vip in desired.vips if vip.id not in refused], sources, refused, actual))


def source_refusals(desired: DesiredState, actual: State, refused: Collection[str]) -> Iterator[Error]:
    """Yield why the NAT sources cannot be: VIPs that are refused keep their addresses, those that drain need them."""
    wanted = {vip.id for vip in desired.vips}
    keeping = {vip.id: vip for vip in (*actual.removing.values(), *actual.vips.values())}
    for known, vip in keeping.items():
        drains = known not in wanted
        for place, source in enumerate(desired.nat_sources):
            if source.address in vip.addresses and (drains or known in refused):
                message = f"{source.address} is an address of {vip.key}, which {'drains' if drains else 'keeps it'}"
                fix = "wait until it has drained" if drains else "give the node another address for NAT"
                yield _error("conflict", f"nat_sources.{place}.address", message, fix)


def _error(code: str, field: str, message: str, fix: str) -> Error:
    return Error(code=code, field=field, message=message, fix=fix)


def _impossible(vip: Vip) -> Error | None:
    """Refuse what the core would refuse."""
    return next((_error("invalid", *fault) for fault in _faults(vip)), None)


def _faults(vip: Vip) -> Iterator[tuple[str, str, str]]:
    """Yield field, message and fix of what the core takes in no VIP."""
    if int(vip.id, 16) == 0:
        yield "id", f"{vip.id} is no id", "give the VIP another one"
    if not is_prime(vip.scheduler.table_size):
        yield "scheduler.table_size", f"{vip.scheduler.table_size} is not a prime", "use one, for example 65537"
    for place, address in enumerate(vip.addresses):
        if kind := _unusable(address):
            yield f"addresses.{place}", f"{address} is {kind}", "give one that clients can reach"
        if address in vip.addresses[:place]:
            yield f"addresses.{place}", f"{address} appears twice", "send each address once"
    yield from _backend_faults(vip)
    if vip.tunnel_mtu < (least := _least_tunnel_mtu(vip)):
        message = f"{vip.tunnel_mtu} leaves less than the {_IPV6_MTU_MIN} bytes of IPv6 within the tunnel"
        yield "tunnel_mtu", message, f"give {least} or more, or a path that carries it"


def _backend_faults(vip: Vip) -> Iterator[tuple[str, str, str]]:
    for place, backend in enumerate(vip.backends):
        if kind := _unusable(backend.address):
            yield f"backends.{place}.address", f"{backend.address} is {kind}", "give the server's own address"
        if backend.address in vip.addresses:
            yield f"backends.{place}.address", f"{backend.address} is the VIP's own address", "give the server's"
        if vip.forwarding is not Forwarding.GRE and backend.address.version != vip.addresses[0].version:
            message = f"{backend.address} is of another family than the VIP"
            yield f"backends.{place}.address", message, "make one VIP per family, or forward by GRE"


def _loop(vip: Vip, owners: Mapping[Address, Vip]) -> Error | None:
    """Refuse a backend at the address of another VIP: its packets would return to this data plane and be dropped."""
    for place, backend in enumerate(vip.backends):
        if (owner := owners.get(backend.address)) is not None:
            message = f"{backend.address} is an address of {owner.key}, which would be a loop"
            return _error("conflict", f"backends.{place}.address", message, "give the server's own address")
    return None


def _least_tunnel_mtu(vip: Vip) -> int:
    if vip.forwarding is not Forwarding.GRE or vip.addresses[0].version == 4:
        return 0
    return _IPV6_MTU_MIN + max((_TUNNEL_OVERHEAD[b.address.version] for b in vip.backends), default=_TUNNEL_OVERHEAD[4])


@lru_cache(maxsize=64)
def is_prime(number: int) -> bool:
    """Tell whether a number, at least 2, is a prime; those of tables are few and come again."""
    return all(number % divisor for divisor in range(2, isqrt(number) + 1))


def _fixed(before: Vip | None, vip: Vip) -> Error | None:
    """Refuse a change of what a VIP is for as long as it has its id."""
    if before is None:
        return None
    fixed = {
        "protocol": before.protocol is vip.protocol,
        "port": before.port == vip.port,
        "forwarding": before.forwarding is vip.forwarding,
        "addresses": before.addresses[0].version == vip.addresses[0].version,
    }
    for field, same in fixed.items():
        if not same:
            message = "protocol, port, forwarding and address family of a VIP cannot change"
            return _error("unsupported", field, message, "send it under another id")
    return None


def _out_of_bounds(vip: Vip, before: Vip | None, bounds: Bounds) -> Error | None:
    """Refuse an address that is another's, or that no VIP may have; one that the VIP has in force it keeps."""
    for address in vip.addresses:
        if before is not None and address in before.addresses:
            continue
        if address in bounds.occupied:
            message = f"{address} is {bounds.occupied[address]}"
            return _error("conflict", "addresses", message, "give the VIP an address of its own")
        if bounds.allowed is not None and address not in bounds.allowed:
            message = f"{address} is in no AddressPool that this node was told of"
            return _error("invalid", "addresses", message, "use an address of a pool; of a new one wait for a minute")
    return None


def _conflicts(
    vips: Collection[Vip], sources: Collection[Address], refused: Collection[str], actual: State
) -> Iterator[tuple[str, Error]]:
    """Yield VIPs that want what is the node's, or another VIP's that keeps it, or that comes first.

    One that is refused keeps what it has in force, which may refuse others in turn.
    """
    held = [actual.vips[known] for known in refused if known in actual.vips]
    taken = {place: holder for holder in held for place in places(holder)}
    keeping: list[Vip] = []  # whose places have not been taken from others yet
    for vip in vips:
        problem = _conflict(vip, sources, taken)
        if problem is None:
            taken.update(dict.fromkeys(places(vip), vip))
        else:
            yield vip.id, problem
            keeping += [actual.vips[vip.id]] if vip.id in actual.vips else []
    while keeping:
        holder = keeping.pop()
        for place in sorted(places(holder), key=str):
            loser = taken.get(place)
            taken[place] = holder
            if loser is None or loser.id == holder.id:
                continue
            for given_up in places(loser):
                if taken.get(given_up) is loser:
                    del taken[given_up]
            yield loser.id, _held(place, holder)
            keeping += [actual.vips[loser.id]] if loser.id in actual.vips else []


def _conflict(vip: Vip, sources: Collection[Address], taken: Mapping[Place, Vip]) -> Error | None:
    for address in vip.addresses:
        if address in sources:
            message = f"{address} is a NAT source of this node"
            return _error("conflict", "addresses", message, "give the VIP an address of its own")
        place = (address, vip.protocol.value, vip.port)
        if (holder := taken.get(place)) is not None:
            return _held(place, holder)
    return None


def _held(place: Place, holder: Vip) -> Error:
    address, protocol, port = place
    message = f"{address}:{port}/{protocol} is held by {holder.key}"
    return _error("conflict", "addresses", message, "choose another address or port")


# The same servers come again with each apply.
_unusable = lru_cache(maxsize=65_536)(unusable)

"""The short way in: a second nft table that moves plain packets from where they arrive straight to the TUN.

What it takes never meets the node's routing, connection tracking or filters on its way in, which is a good part of
what a packet costs. It is a shortcut and nothing else: whatever it does not take, and everything while it is missing,
comes to the TUN by the rules and routes of `plans`. So it leaves alone what those treat in ways of their own:
fragments, packets at the end of their hops, ICMP, packets of other hosts, and IPv6 with extension headers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from penstock_node import nftables
from penstock_node.actual import Shortcut
from penstock_node.constants import NFT_TABLE
from penstock_node.desired import Address, NatSource

# After whatever an administrator may have put there against floods, whose priorities are below that of filters.
_PRIORITY = 0

_SETS = {"vips4": "typeof ip daddr", "vips6": "typeof ip6 daddr"}
_CHAIN = "shortcut"
_JUMP = f"jump {_CHAIN}"

# The next hop that `fwd` asks for. A TUN has no neighbours, so that nothing ever looks at it: IPv4's is the dummy
# address of RFC 7600.
_NEXT_HOPS = {4: "ip to 192.0.0.8", 6: "ip6 to fe80::1"}

_PLAIN = {
    4: "ip frag-off & 0x3fff == 0 ip ttl > 1 meta pkttype host",
    6: "ip6 hoplimit > 1 meta pkttype host",
}

_PROBE = """table netdev penstock_probe {
  chain probe {
    type filter hook ingress device "lo" priority 0
    fwd ip to 192.0.0.8 device "lo"
  }
}
"""


def wanted(
    device: str, interfaces: Iterable[str], vips: Iterable[Address], sources: Iterable[NatSource]
) -> Shortcut | None:
    """Our table as it should be, or None where there is nothing to come by it."""
    names, addresses, nat_sources = sorted(set(interfaces)), frozenset(vips), frozenset(sources)
    if not names or not (addresses or nat_sources):
        return None
    skeleton = (
        *(f"set {name}" for name in _SETS),
        f"chain {_CHAIN}",
        *(f"chain {_hook(number)} filter ingress {_PRIORITY} accept" for number in range(len(names))),
        *(f"rule {_CHAIN} {nftables.comment(rule)} {device}" for rule in _rules(device, nat_sources)),
        *(f"rule {_hook(number)} {_jump_comment(name)} " for number, name in enumerate(names)),
    )
    return Shortcut(skeleton, addresses, tuple(names), nat_sources)


def replace(device: str, table: Shortcut) -> None:
    """Put the whole table in place, in one transaction, whatever was there. The device must be there."""
    nftables.run(["-f", "-"], render(device, table))


def remove() -> None:
    """Delete the table."""
    nftables.run(["delete", "table", "netdev", NFT_TABLE])


def update(add: Iterable[Address], remove: Iterable[Address]) -> None:
    """Change only which VIPs it takes, in one transaction."""
    nftables.run(["-f", "-"], render_update(add, remove))


def observe() -> Shortcut | None:
    """Our table as the kernel has it, or None."""
    listing = nftables.list_table("netdev")
    return None if listing is None else parse(listing)


def is_possible() -> bool:
    """Whether nft and kernel know `fwd`; nothing is changed."""
    try:
        nftables.run(["-c", "-f", "-"], _PROBE)
    except nftables.NftError:
        return False
    return True


def render(device: str, table: Shortcut) -> str:
    """Text for `nft -f` that replaces the table."""
    lines = [f"add table netdev {NFT_TABLE}", f"delete table netdev {NFT_TABLE}", f"table netdev {NFT_TABLE} {{"]
    for name, definition in _SETS.items():
        members = _members(name, table.vips)
        content = f"; elements = {{ {', '.join(members)} }}" if members else ""
        lines.append(f"  set {name} {{ {definition}{content}; }}")
    lines.append(f"  chain {_CHAIN} {{")
    lines += [f'    {rule} comment "{nftables.comment(rule)}"' for rule in _rules(device, table.nat_sources)]
    lines.append("  }")
    for number, name in enumerate(table.interfaces):
        lines.append(f"  chain {_hook(number)} {{")
        lines.append(f'    type filter hook ingress device "{name}" priority {_PRIORITY}; policy accept;')
        lines.append(f'    {_JUMP} comment "{_jump_comment(name)}"')
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def render_update(add: Iterable[Address], remove: Iterable[Address]) -> str:
    """Text for `nft -f` that changes only which VIPs it takes."""
    lines = []
    for verb, vips in (("delete", frozenset(remove)), ("add", frozenset(add))):
        for name in _SETS:
            if members := _members(name, vips):
                lines.append(f"{verb} element netdev {NFT_TABLE} {name} {{ {', '.join(members)} }}")
    return "\n".join([*lines, ""])


def parse(listing: str) -> Shortcut:
    """Read what `nft -j list table` printed.

    A device that is gone is listed as a number, so that rules to an earlier TUN differ from those to its successor.
    """
    sets: list[str] = []
    chains: list[str] = []
    rules: list[str] = []
    vips: list[Any] = []
    for item in json.loads(listing)["nftables"]:
        match item:
            case {"set": {"name": name, **rest}}:
                sets.append(f"set {name}")
                vips += nftables.elements(rest.get("elem"))
            case {"chain": {"name": name, **rest}}:
                parts = (str(rest[key]) for key in ("type", "hook", "prio", "policy") if key in rest)
                chains.append(" ".join(["chain", name, *parts]))
            case {"rule": {"chain": chain, "expr": expressions, **rest}}:
                device = next((each["fwd"].get("dev", "") for each in expressions if "fwd" in each), "")
                rules.append(f"rule {chain} {rest.get('comment', '')} {device}")
    return Shortcut((*sets, *chains, *rules), frozenset(ip_address(nftables.plain(vip)) for vip in vips))


def _hook(number: int) -> str:
    """Name of the chain of one interface. One for all would do, but not every nft tells which interfaces it has."""
    return f"in_{number}"


def _jump_comment(interface: str) -> str:
    return nftables.comment(f"{_JUMP} {interface}")


def _rules(device: str, sources: frozenset[NatSource]) -> list[str]:
    """What most packets are about comes first: clients', then backends'."""
    to = {version: f'{_PLAIN[version]} fwd {hop} device "{device}"' for version, hop in _NEXT_HOPS.items()}
    rules = [f"ip daddr @vips4 ip protocol {{ tcp, udp }} {to[4]}"]
    for source in sorted(sources, key=lambda source: (source.address.version, str(source.address))):
        version = source.address.version
        protocols = "ip protocol { tcp, udp }" if version == 4 else "ip6 nexthdr { tcp, udp }"
        ports = f"th dport {source.port_first}-{source.port_last}"
        rules.append(f"{'ip' if version == 4 else 'ip6'} daddr {source.address} {protocols} {ports} {to[version]}")
    return [*rules, f"ip6 daddr @vips6 ip6 nexthdr {{ tcp, udp }} {to[6]}"]


def _members(name: str, vips: Iterable[Address]) -> list[str]:
    return sorted(str(vip) for vip in vips if name == f"vips{vip.version}")

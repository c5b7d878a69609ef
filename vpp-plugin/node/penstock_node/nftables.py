"""Our nft table as text, and back from what `nft` lists.

Each rule carries a comment that ends in a digest of its own text. A listing is compared by these comments, not
by the rules themselves, whose listed form differs between versions of nft: a rule that somebody changed,
removed or added has no such comment.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from penstock_node.actual import Family, NftTable
from penstock_node.constants import DEVICE_GROUP, MARK, NFT_TABLE
from penstock_node.desired import Address, NatSource
from penstock_node.errors import NodeError

# Before the "raw" table of iptables (-300): a conntrack template attached there would make our notrack too late.
_NOTRACK_PRIORITY = -310
# After everything that a network plugin may do to marks on the way to the routing decision.
_MARK_PRIORITY = 0

_TIMEOUT_SECONDS = 10.0

# `typeof`, since nft 1.0.6 ends by SIGSEGV at a set of one plain `type` that 1.1.3 wrote: so may programs of the node.
_SETS = {
    "vips4": "typeof ip daddr",
    "vips6": "typeof ip6 daddr",
    "sources4": "type ipv4_addr . inet_service; flags interval",
    "sources6": "type ipv6_addr . inet_service; flags interval",
    # Interfaces that did not forward before us: kept here because the table outlives the process.
    "switched_on4": "typeof iifname",
    "switched_on6": "typeof iifname",
}

# Rules that steer by port see no ports in fragments, so these are reassembled first, as wherever connections are
# tracked; on their way to the TUN they are cut as they came. A `tproxy` rule has the kernel do so, though nothing
# ever jumps to its chain. Where the kernel has no `tproxy`, the table goes without.
_REASSEMBLY_CHAIN = "reassemble"
_REASSEMBLY = f'  chain {_REASSEMBLY_CHAIN} {{\n    meta l4proto udp tproxy to :1 comment "never reached"\n  }}'

_ERRORS4 = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
_ERRORS6 = "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"


class NftError(NodeError):
    """`nft` is missing or refused what it was given."""


@dataclass(frozen=True)
class _Chain:
    name: str
    type: str
    hook: str
    priority: int
    rules: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return f"chain {self.name} {self.type} {self.hook} {self.priority} accept"


def wanted(
    vips: Iterable[Address], sources: Iterable[NatSource], switched_on: Iterable[tuple[Family, str]]
) -> NftTable:
    """Our table as it should be."""
    nat_sources = frozenset(sources)
    return NftTable(
        skeleton=_skeleton(_chains(nat_sources)),
        vips=frozenset(vips),
        nat_sources=nat_sources,
        switched_on=frozenset(switched_on),
    )


def replace_table(table: NftTable) -> None:
    """Put the whole table in place, in one transaction, whatever was there."""
    try:
        run(["-f", "-"], render_table(table, reassemble=True))
    except NftError:
        run(["-f", "-"], render_table(table, reassemble=False))


def update_sets(add: NftTable, remove: NftTable) -> None:
    """Change only what the sets hold, in one transaction."""
    run(["-f", "-"], render_update(add, remove))


def render_table(table: NftTable, *, reassemble: bool) -> str:
    """Text for `nft -f` that replaces the table."""
    chains = _chains(table.nat_sources)
    lines = [f"add table inet {NFT_TABLE}", f"delete table inet {NFT_TABLE}", f"table inet {NFT_TABLE} {{"]
    elements = _elements(table)
    for name, definition in _SETS.items():
        content = f"; elements = {{ {', '.join(elements[name])} }}" if elements[name] else ""
        lines.append(f"  set {name} {{ {definition}{content}; }}")
    for chain in chains:
        lines.append(f"  chain {chain.name} {{")
        lines.append(f"    type {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;")
        lines += [f'    {rule} comment "{comment(rule)}"' for rule in chain.rules]
        lines.append("  }")
    return "\n".join([*lines, *([_REASSEMBLY] if reassemble else []), "}", ""])


def render_update(add: NftTable, remove: NftTable) -> str:
    """Text for `nft -f` that changes only what the sets hold."""
    lines = []
    for verb, table in (("delete", remove), ("add", add)):
        for name, members in _elements(table).items():
            if members:
                lines.append(f"{verb} element inet {NFT_TABLE} {name} {{ {', '.join(members)} }}")
    return "\n".join([*lines, ""])


def parse_table(listing: str) -> NftTable:
    """Read what `nft -j list table` printed: sets come before chains, or after them from nft 1.1."""
    sets: list[str] = []
    chains: list[str] = []
    rules: list[str] = []
    found: dict[str, list[Any]] = {name: [] for name in _SETS}
    for item in json.loads(listing)["nftables"]:
        match item:
            case {"set": {"name": name, **rest}}:
                sets.append(f"set {name}")
                found[name] = [plain(element) for element in elements(rest.get("elem"))]
            case {"chain": {"name": name}} | {"rule": {"chain": name}} if name == _REASSEMBLY_CHAIN:
                pass
            case {"chain": {"name": name, **rest}}:
                parts = " ".join(str(rest.get(key)) for key in ("type", "hook", "prio", "policy"))
                chains.append(f"chain {name} {parts}")
            case {"rule": {"chain": chain, **rest}}:
                rules.append(f"rule {chain} {rest.get('comment', '')}")
    return NftTable(
        skeleton=(*sets, *chains, *rules),
        vips=frozenset(ip_address(element) for element in found["vips4"] + found["vips6"]),
        nat_sources=frozenset(_source(element) for element in found["sources4"] + found["sources6"]),
        switched_on=frozenset(
            [(Family.IPV4, name) for name in found["switched_on4"]]
            + [(Family.IPV6, name) for name in found["switched_on6"]]
        ),
    )


def observe_table() -> NftTable | None:
    """Our table as the kernel has it, or None."""
    listing = list_table("inet")
    return None if listing is None else parse_table(listing)


def list_table(family: str) -> str | None:
    """Return our table of an nft family as JSON, or None where there is none."""
    try:
        return run(["-j", "list", "table", family, NFT_TABLE])
    except NftError as error:
        if "No such file or directory" in str(error):
            return None
        raise


def list_ruleset() -> list[dict[str, Any]]:
    """The complete rule set of the node, as nft's JSON objects."""
    objects: list[dict[str, Any]] = json.loads(run(["-j", "list", "ruleset"]))["nftables"]
    return objects


def run(arguments: Sequence[str], script: str | None = None) -> str:
    """Run `nft` and return its output."""
    command = ["nft", *arguments]
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise NftError("nft: no such program; install it: apt-get install nftables") from error
    except subprocess.TimeoutExpired as error:
        raise NftError(f"{' '.join(command)}: no answer within {_TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise NftError(f"{' '.join(command)}: {_reason(done)}")
    return done.stdout


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        # nft reads the tables of all programs first. 1.0.6 ends by SIGSEGV at a set that 1.1.3 wrote.
        name = signal.Signals(-done.returncode).name
        return f"ended by {name}; a newer nft may have written another table of this node: install as new a one here"
    said = " ".join(done.stderr.split())
    if "Operation not permitted" in said:
        return "not permitted; run as uid 0 with CAP_NET_ADMIN"
    return said or f"exit status {done.returncode}"


def _chains(sources: frozenset[NatSource]) -> tuple[_Chain, ...]:
    untracked = (
        "ip daddr @vips4 notrack accept",
        "ip6 daddr @vips6 notrack accept",
        "meta l4proto { tcp, udp } ip daddr . th dport @sources4 notrack accept",
        "meta l4proto { tcp, udp } ip6 daddr . th dport @sources6 notrack accept",
    )
    errors = tuple(_about(source) for source in sorted(sources, key=lambda source: str(source.address)))
    untracked_errors = tuple(f"{error} notrack accept" for error in errors)
    marked_errors = tuple(f"{error} meta mark set {MARK:#x}" for error in errors)
    # By group, which is a comparison of two numbers; this is the first rule, because what comes from there is never
    # for us.
    from_device = f"meta iifgroup {DEVICE_GROUP}"
    untracked_in = (f"{from_device} notrack accept", *untracked, *untracked_errors)
    return (
        _Chain("untrack_in", "filter", "prerouting", _NOTRACK_PRIORITY, untracked_in),
        _Chain("untrack_out", "filter", "output", _NOTRACK_PRIORITY, (*untracked, *untracked_errors)),
        _Chain("steer_in", "filter", "prerouting", _MARK_PRIORITY, (f"{from_device} accept", *marked_errors)),
        # Type route: the node's own ICMP errors are routed again once they carry the mark.
        _Chain("steer_out", "route", "output", _MARK_PRIORITY, marked_errors),
    )


def _about(source: NatSource) -> str:
    """Match ICMP errors whose inner packet was sent from this source.

    Offsets in bits from the ICMP header: 8 bytes of it, then the inner IP header (without options: our own
    packets have none), then the inner ports.
    """
    ports = f"{source.port_first}-{source.port_last}"
    address = f"0x{int(source.address):x}"
    if source.address.version == 4:
        return f"{_ERRORS4} @th,160,32 {address} @th,224,16 {ports}"
    return f"{_ERRORS6} @th,128,128 {address} @th,384,16 {ports}"


def _skeleton(chains: tuple[_Chain, ...]) -> tuple[str, ...]:
    rules = (f"rule {chain.name} {comment(rule)}" for chain in chains for rule in chain.rules)
    return (*(f"set {name}" for name in _SETS), *(chain.fingerprint for chain in chains), *rules)


def comment(rule: str) -> str:
    """Return what a rule of ours carries: a digest of its own text."""
    return f"penstock {hashlib.sha256(rule.encode()).hexdigest()[:12]}"


def _elements(table: NftTable) -> dict[str, list[str]]:
    elements: dict[str, list[str]] = {name: [] for name in _SETS}
    for vip in sorted(table.vips, key=str):
        elements[f"vips{vip.version}"].append(str(vip))
    for source in sorted(table.nat_sources, key=str):
        ports = f"{source.port_first}-{source.port_last}"
        elements[f"sources{source.address.version}"].append(f"{source.address} . {ports}")
    for family, name in sorted(table.switched_on):
        elements["switched_on4" if family is Family.IPV4 else "switched_on6"].append(f'"{name}"')
    return elements


def elements(value: object) -> list[Any]:
    """Return what a set holds, given its "elem", which an empty one lacks."""
    return value if isinstance(value, list) else []


def plain(element: Any) -> Any:
    """Return an element of a set without what somebody may have hung on it, such as a comment."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _source(element: Any) -> NatSource:
    address, ports = element["concat"]
    first, last = ports["range"] if isinstance(ports, dict) else (ports, ports)
    return NatSource(ip_address(address), first, last)

"""Checks what a node must offer before a data plane can work on it; changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from penstock_node import netlink, nftables, tun
from penstock_node.actual import ActualNode, Family
from penstock_node.desired import Address, DesiredNode, NatSource, Tun
from penstock_node.firewalls import Chain, Packet, RuleSet, Verdict
from penstock_node.netlink import read_sysctl

_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13
_PORTS_PER_PARTITION_STEP = 64  # NAT port ranges begin and end at multiples of this
_MEBIBYTE = 1 << 20
_TCP_LISTEN, _UDP_BOUND = "0A", "07"


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # traffic will not flow, or the node's own traffic would suffer
    WARNING = "warning"  # works now, but some traffic or a later change of the node may be hit


@dataclass(frozen=True)
class Finding:
    """Something that the node lacks, and the exact commands that give it."""

    check: str  # stable name, for example "forward-policy"
    severity: Severity
    message: str
    remedy: tuple[str, ...]  # shell commands, to be run as root on the node, in this order


@dataclass(frozen=True)
class Surroundings:
    """What the checks must know beside the desired state."""

    announce: bool = False  # needs CAP_NET_RAW
    node_ports: tuple[int, int] = (30000, 32767)  # the API server's --service-node-port-range
    shared_memory: Path = Path("/dev/shm")  # noqa: S108 - a mount point of its own, not a temporary file
    shared_memory_bytes: int = 0  # arena and frames of the data plane


def preflight(desired: DesiredNode, surroundings: Surroundings | None = None) -> tuple[Finding, ...]:
    """Return what stands in the way of `desired`, worst first; empty when the node is fit.

    Raises `ObserveError` when the node cannot be read at all.
    """
    node = _Node(desired, surroundings or Surroundings())
    found = [finding for check in _CHECKS for finding in check(node)]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def what_blocks_forwarding(desired: DesiredNode) -> tuple[Finding, ...]:
    """Return the firewall chains that drop packets between the device and the network.

    Raises `ObserveError` when the node cannot be read.
    """
    return tuple(_check_forward_policy(_Node(desired, Surroundings())))


class _Node:
    """What the checks look at, read once and only if asked for."""

    def __init__(self, desired: DesiredNode, surroundings: Surroundings) -> None:
        self.desired = desired
        self.surroundings = surroundings

    @cached_property
    def privileged(self) -> bool:
        return _has_capability(_CAP_NET_ADMIN)

    @cached_property
    def actual(self) -> ActualNode:
        return netlink.observe()

    @cached_property
    def rule_set(self) -> RuleSet:
        return RuleSet(nftables.list_ruleset())

    @property
    def readable(self) -> bool:
        """Whether `actual` and `rule_set` can be had; what stands in the way is a finding of its own."""
        return self.privileged and shutil.which("nft") is not None

    @property
    def interfaces(self) -> tuple[str, ...]:
        return self.desired.interfaces or self.actual.default_interfaces

    @property
    def families(self) -> set[Family]:
        addresses = {*self.desired.vips, *(source.address for source in self.desired.nat_sources)}
        return {Family.of(address) for address in addresses}


def _check_privileges(node: _Node) -> Iterator[Finding]:
    wanted = {"NET_ADMIN": _CAP_NET_ADMIN} | ({"NET_RAW": _CAP_NET_RAW} if node.surroundings.announce else {})
    for name, number in wanted.items():
        if not _has_capability(number):
            yield Finding(
                "privileges",
                Severity.ERROR,
                f"this process lacks CAP_{name}; in a pod, add {name} to securityContext.capabilities.add",
                ("sudo penstock run -f examples/standalone/",),
            )


def _check_nft(node: _Node) -> Iterator[Finding]:
    if shutil.which("nft") is None:
        yield Finding("nft", Severity.ERROR, "the program nft is not installed", ("apt-get install -y nftables",))


def _check_tun(node: _Node) -> Iterator[Finding]:
    if not isinstance(node.desired.tun, Tun):
        return
    path = Path(tun.DEVICE_PATH)
    remedy: tuple[str, ...]
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        message = "is missing; in a pod, mount the host's"
        remedy = (f"mkdir -p {path.parent}", f"mknod -m 0600 {path} c 10 200")
    except PermissionError:
        message = "may not be opened; run as uid 0, and in a pod let the container runtime allow the device"
        remedy = (f"chown root:root {path}", f"chmod 0600 {path}")
    except OSError as error:
        message = f"cannot be opened ({error.strerror}); is the driver loaded?"
        remedy = ("modprobe tun",)
    else:
        return
    yield Finding("tun-device", Severity.ERROR, f"{path} {message}", remedy)


def _check_interfaces(node: _Node) -> Iterator[Finding]:
    if not node.readable:
        return
    if not node.interfaces:
        message = "there is no default route to tell the interface that traffic arrives on; name it in `interfaces`"
        yield Finding("interfaces", Severity.ERROR, message, ("ip -br link",))
    for name in node.interfaces:
        if name not in node.actual.links:
            message = f"there is no interface {name}; name one of the node's in `interfaces`"
            yield Finding("interfaces", Severity.ERROR, message, ("ip -br link",))


def _check_forwarding(node: _Node) -> Iterator[Finding]:
    if Family.IPV4 in node.families and read_sysctl("ipv4/ip_forward") == "0":
        yield Finding(
            "ipv4-forwarding",
            Severity.WARNING,
            "IPv4 forwarding is off; it is switched on for the interfaces in use only, and answers of backends "
            "that arrive on others are dropped",
            ("sysctl -w net.ipv4.ip_forward=1",),
        )
    if Family.IPV6 in node.families and read_sysctl("ipv6/conf/all/forwarding") == "0" and node.readable:
        # A router does not listen to routers, so addresses and default route would go without accept_ra=2.
        autoconfigured = [name for name in node.interfaces if read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1"]
        keep = tuple(f"sysctl -w net.ipv6.conf.{name}.accept_ra=2" for name in autoconfigured)
        yield Finding(
            "ipv6-forwarding",
            Severity.WARNING if _can_force_ipv6() else Severity.ERROR,
            "IPv6 forwarding is off"
            + ("; it is switched on for the interfaces in use only" if _can_force_ipv6() else ", for all interfaces"),
            (*keep, netlink.IPV6_FORWARDING_REMEDY),
        )


def _check_reverse_path(node: _Node) -> Iterator[Finding]:
    if Family.IPV4 in node.families and read_sysctl("ipv4/conf/all/rp_filter") == "1":
        yield Finding(
            "rp-filter",
            Severity.WARNING,
            "the strict reverse path filter is on for all interfaces; it drops clients and backends whose packets "
            "arrive by another interface than the best route to them, and on older kernels packets of the data plane",
            ("sysctl -w net.ipv4.conf.all.rp_filter=2",),
        )


def _check_forward_policy(node: _Node) -> Iterator[Finding]:
    """A drop in any chain is final, so our own table could not overrule it."""
    if not node.readable:
        return
    device = node.desired.tun.name
    ways = (("iifname", "oifname"), ("oifname", "iifname"))
    for chain in node.rule_set.base_chains("forward", "filter"):
        blocked = [
            ours
            for ours, other in ways
            for packet in _packets(node, {f"meta {ours}": device, f"meta {other}": _first(node.interfaces)})
            if node.rule_set.verdict(chain, packet, unclear=lambda _: False) is Verdict.DROP
        ]
        if blocked:
            accepts = (f'nft insert rule {chain} {ours} "{device}" counter accept' for ours in sorted(set(blocked)))
            message = f"chain {chain} drops packets that are forwarded from or to {device}"
            yield Finding("forward-policy", Severity.ERROR, message, tuple(accepts))
    yield from _check_legacy_forward_policy(node)


def _check_legacy_forward_policy(node: _Node) -> Iterator[Finding]:
    """Rules of the old iptables are not in nft's listing."""
    device = node.desired.tun.name
    for program, names, family in (
        ("iptables-legacy", "ip_tables_names", Family.IPV4),
        ("ip6tables-legacy", "ip6_tables_names", Family.IPV6),
    ):
        if family not in node.families or "filter" not in _read_proc(names).split() or shutil.which(program) is None:
            continue
        listing = subprocess.run([program, "-S", "FORWARD"], capture_output=True, text=True, timeout=10, check=False)
        missing = [way for way in ("-i", "-o") if f"-A FORWARD {way} {device} -j ACCEPT" not in listing.stdout]
        if missing and re.search(r"-P FORWARD DROP|-A FORWARD -j (DROP|REJECT)", listing.stdout):
            remedy = tuple(f"{program} -I FORWARD {way} {device} -j ACCEPT" for way in missing)
            message = f"chain FORWARD of {program} drops packets that are forwarded from or to {device}"
            yield Finding("forward-policy", Severity.ERROR, message, remedy)


def _check_masquerade(node: _Node) -> Iterator[Finding]:
    """Our notrack rules keep every NAT rule off our packets; this is about the time while they are missing."""
    if not node.readable or node.actual.nft is not None:
        return
    ways: dict[str, str | int] = {"meta iifname": node.desired.tun.name, "meta oifname": _first(node.interfaces)}
    for chain in node.rule_set.base_chains("postrouting", "nat"):
        for packet in _packets(node, ways):
            verdict = node.rule_set.verdict(chain, packet, unclear=lambda verdict: verdict is not Verdict.REWRITE)
            if verdict is Verdict.REWRITE:
                message = f"chain {chain} rewrites our source {_saddr(packet)} whenever our nft table is missing"
                yield Finding("masquerade", Severity.WARNING, message, (_exempt(node, chain, packet),))


def _check_ports(node: _Node) -> Iterator[Finding]:
    ranges = sorted({(source.port_first, source.port_last) for source in node.desired.nat_sources})
    low, high = (int(port) for port in (read_sysctl("ipv4/ip_local_port_range") or "32768 60999").split())
    reserved = read_sysctl("ipv4/ip_local_reserved_ports")
    for first, last in ranges:
        ephemeral = (max(first, low), min(last, high))
        if ephemeral[0] <= ephemeral[1] and not _covered(ephemeral, reserved):
            ports = ",".join(filter(None, [reserved, f"{first}-{last}"]))
            yield Finding(
                "ephemeral-ports",
                Severity.ERROR,
                f"NAT ports {first}-{last} overlap the node's ephemeral ports {low}-{high}: answers to the node's own "
                "connections would go to the data plane",
                (f"sysctl -w net.ipv4.ip_local_reserved_ports={ports}",),
            )
        node_first, node_last = node.surroundings.node_ports
        if first <= node_last and node_first <= last:
            new_first, new_last = _free_range(last - first + 1, node.surroundings.node_ports)
            patch = f'{{"spec":{{"natSource":{{"portFirst":{new_first},"portLast":{new_last}}}}}}}'
            yield Finding(
                "node-ports",
                Severity.ERROR,
                f"NAT ports {first}-{last} overlap the cluster's NodePorts {node_first}-{node_last}; choose other ones",
                (f"kubectl patch dataplane --type=merge -p '{patch}' $(kubectl get dataplane -o name | cut -d/ -f2)",),
            )


def _check_listeners(node: _Node) -> Iterator[Finding]:
    for source in sorted(node.desired.nat_sources, key=str):
        taken = sorted({port for port in _bound_ports(source) if source.port_first <= port <= source.port_last})
        if taken:
            listed = ", ".join(map(str, taken[:5])) + (", ..." if len(taken) > 5 else "")
            yield Finding(
                "listeners",
                Severity.ERROR,
                f"programs of the node listen on {source.address} at NAT ports ({listed}) and would be cut off; "
                "have them listen elsewhere, or choose other NAT ports",
                (f"ss -Hlntup '( sport >= :{source.port_first} and sport <= :{source.port_last} )'",),
            )


def _check_shared_memory(node: _Node) -> Iterator[Finding]:
    path, wanted = node.surroundings.shared_memory, node.surroundings.shared_memory_bytes
    try:
        usage = shutil.disk_usage(path)
    except FileNotFoundError:
        yield Finding("shared-memory", Severity.ERROR, f"{path} is missing", (f"mkdir -p {path}",))
        return
    if usage.free < wanted:
        size = -(-(usage.used + wanted) // _MEBIBYTE)
        yield Finding(
            "shared-memory",
            Severity.ERROR,
            f"{path} has {usage.free // _MEBIBYTE} MiB free; flow table and frames need {-(-wanted // _MEBIBYTE)} MiB",
            (f"mount -o remount,size={size}m {_mount_point(path)}",),
        )


_CHECKS: tuple[Callable[[_Node], Iterator[Finding]], ...] = (
    _check_privileges,
    _check_nft,
    _check_tun,
    _check_interfaces,
    _check_forwarding,
    _check_reverse_path,
    _check_forward_policy,
    _check_masquerade,
    _check_ports,
    _check_listeners,
    _check_shared_memory,
)


def _packets(node: _Node, fields: dict[str, str | int]) -> Iterator[Packet]:
    """One packet of each kind that leaves the data plane, or comes back to it, for a look at filters."""
    always: dict[str, str | int] = {"meta mark": 0, "ct state": "untracked", "meta l4proto": "tcp", **fields}
    for vip in sorted(node.desired.vips, key=str):
        yield _packet(Family.of(vip), {**always, "saddr": str(vip)})
    for source in sorted(node.desired.nat_sources, key=str):
        ports: dict[str, str | int] = {"tcp sport": source.port_first, "th sport": source.port_first}
        yield _packet(Family.of(source.address), {**always, **ports, "saddr": str(source.address)})
    if not node.desired.vips and not node.desired.nat_sources:
        yield _packet(Family.IPV4, always)


def _packet(family: Family, fields: dict[str, str | int]) -> Packet:
    name, version = ("ip", "ipv4") if family is Family.IPV4 else ("ip6", "ipv6")
    renamed = {f"{name} {key}" if key == "saddr" else key: value for key, value in fields.items()}
    return Packet(name, {**renamed, "meta nfproto": version, "meta protocol": name})


def _saddr(packet: Packet) -> str | int:
    return packet.fields.get(f"{packet.family} saddr", "")


def _exempt(node: _Node, chain: Chain, packet: Packet) -> str:
    """The command that keeps a NAT chain off a VIP, or off the ports of a NAT source."""
    match = f"{packet.family} saddr {_saddr(packet)}"
    for source in node.desired.nat_sources:
        if str(source.address) == _saddr(packet):
            match = f"meta l4proto '{{ tcp, udp }}' {match} th sport {source.port_first}-{source.port_last}"
    return f"nft insert rule {chain} {match} counter accept"


def _first(names: tuple[str, ...]) -> str:
    return names[0] if names else ""


def _has_capability(number: int) -> bool:
    status = Path("/proc/thread-self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number & 1)


def _can_force_ipv6() -> bool:
    path = Path("/proc/sys/net/ipv6/conf/all/force_forwarding")
    return path.exists() and os.access(path, os.W_OK)


def _covered(ports: tuple[int, int], reserved: str) -> bool:
    """Whether all these ports are in a list as `1000-2000,3000`."""
    free = set(range(ports[0], ports[1] + 1))
    for part in filter(None, reserved.split(",")):
        first, _, last = part.partition("-")
        free -= set(range(int(first), int(last or first) + 1))
    return not free


def _free_range(count: int, node_ports: tuple[int, int]) -> tuple[int, int]:
    """A port range of this size, if any, else the largest, beside the NodePorts."""
    below = (1024, node_ports[0] // _PORTS_PER_PARTITION_STEP * _PORTS_PER_PARTITION_STEP - 1)
    above = (-(-(node_ports[1] + 1) // _PORTS_PER_PARTITION_STEP) * _PORTS_PER_PARTITION_STEP, 65535)
    first, last = max(below, above, key=lambda room: min(count, room[1] - room[0] + 1))
    return max(first, last - count + 1), last


def _bound_ports(source: NatSource) -> Iterator[int]:
    version = "" if source.address.version == 4 else "6"
    for name, state in (("tcp", _TCP_LISTEN), ("udp", _UDP_BOUND), ("tcp6", _TCP_LISTEN), ("udp6", _UDP_BOUND)):
        for line in _read_proc(name).splitlines()[1:]:
            local, status = line.split()[1], line.split()[3]
            packed, _, port = local.rpartition(":")
            address = _kernel_address(packed)
            everywhere = int(address) == 0 and (name.endswith("6") or not version)
            if status == state and (everywhere or address == source.address):
                yield int(port, 16)


def _kernel_address(text: str) -> Address:
    """An address as /proc/net/tcp prints it: words in the host's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ip_address(b"".join(socket.htonl(word).to_bytes(4, "big") for word in words))


def _mount_point(path: Path) -> Path:
    resolved = path.resolve()
    return next(each for each in (resolved, *resolved.parents) if each.is_mount())


def _read_proc(name: str) -> str:
    """A file of /proc/net, of this thread's network namespace; empty if the kernel does not have it."""
    try:
        return (Path("/proc/thread-self/net") / name).read_text()
    except OSError:
        return ""

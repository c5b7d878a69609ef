"""What VPP is started with in a pod: startup.conf, and the commands that make its interfaces. Text out of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from penstock_node import Veth
from penstock_node.constants import VETH_ADDRESS

XDP_PROGRAM = Path("/opt/penstock/lib/xdp/to_vpp.bpf.o")
INTERFACES_NAME = "interfaces"
CARDS_NAME = "cards"
WIRE_NAME = "wire"
STARTUP_NAME = "startup.conf"

# RFC 7600: what a router without an address of its own puts into ICMP errors. The kernel's end needs no address.
DUMMY_ADDRESS = "192.0.0.8/32"
# Next hops that stand for "the kernel": never asked for, since the neighbour is static.
_KERNEL_ROUTES = (("169.254.1.1", "0.0.0.0/0"), ("fe80::1", "::/0"))

CLIENT_TABLE = 1
"""VPP's table of routes to clients, where it has cards of its own; routes to backends stay in table 0."""

_MEBIBYTE = 1 << 20
_LAZY_HEAP_MEBIBYTES = 1024  # with pages of 4 KiB only what is used counts
_BUFFERS = 16_384  # per NUMA node; 2.4 KB each


class PageSize(StrEnum):
    """Size of the pages that VPP's heap and buffers lie in."""

    SMALL = "4Ki"
    HUGE = "2Mi"
    GIGANTIC = "1Gi"

    @property
    def vpp(self) -> str:
        """Return what VPP calls it."""
        return {"4Ki": "4k", "2Mi": "2M", "1Gi": "1G"}[self.value]

    @property
    def kibibytes(self) -> int:
        """Return the size in KiB, by which Linux names its pools."""
        return {"4Ki": 4, "2Mi": 2048, "1Gi": 1 << 20}[self.value]


class CardType(StrEnum):
    """How VPP takes a network card."""

    AF_PACKET = "AfPacket"
    AF_XDP = "AfXdp"
    DPDK = "Dpdk"


PLUGINS = {
    CardType.AF_PACKET: "af_packet_plugin.so",
    CardType.AF_XDP: "af_xdp_plugin.so",
    CardType.DPDK: "dpdk_plugin.so",
}


@dataclass(frozen=True)
class Card:
    """A network card that VPP takes for itself, as it is on this node; `device` is a name, or a PCI address."""

    type: CardType
    device: str
    addresses: tuple[str, ...]  # with the length of their prefix
    gateways: tuple[str, ...] = ()
    queues: int = 1
    ethernet: str = ""  # address of a card that the kernel keeps


class CpuError(ValueError):
    """There are fewer processors than threads."""


@dataclass(frozen=True)
class Startup:
    """Everything that the two texts depend on."""

    vpp_dir: Path = Path("/run/vpp")
    shm_dir: Path = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
    group: int | None = None  # that may read frames
    plugin_path: str = ""
    flow_table_size: int = 65_536
    max_vips: int = 1024
    max_slots: int = 65_536
    workers: int = 0
    cpus: tuple[int, ...] = ()  # processors that the process may use
    page_size: PageSize = PageSize.SMALL
    hugepages_mebibytes: int = 0
    xdp_program: Path = XDP_PROGRAM
    veth: Veth = field(default_factory=Veth)
    cards: tuple[Card, ...] = ()


def host_interface(device: str) -> str:
    """Return what VPP calls its packet socket on a device of the kernel."""
    return f"host-{device}"


def card_interface(number: int, card: Card) -> str:
    """Return what VPP calls the card of this number."""
    return host_interface(card.device) if card.type is CardType.AF_PACKET else f"card{number}"


def render_cards(startup: Startup) -> str:
    """Return a line for each card: what VPP calls its interface, the card itself, and how VPP takes it."""
    return "".join(
        f"{card_interface(number, card)} {card.device} {card.type.value}\n" for number, card in enumerate(startup.cards)
    )


def render_startup(startup: Startup) -> str:
    """Return startup.conf. Raises CpuError."""
    directory, page = startup.vpp_dir, startup.page_size.vpp
    sections = [
        _section(
            "unix",
            *("nodaemon", f"runtime-dir {directory}", f"cli-listen {directory}/cli.sock"),
            f"exec {directory}/{INTERFACES_NAME}",
        ),
        _section("memory", f"main-heap-size {_heap_mebibytes(startup)}M", f"main-heap-page-size {page}"),
        _section("buffers", f"buffers-per-numa {_BUFFERS}", f"page-size {page}"),
        _section("socksvr", f"socket-name {directory}/api.sock"),
        _section("statseg", f"socket-name {directory}/stats.sock", "size 64M", "page-size 4k"),
        _section("cpu", *_cpu(startup)),
        _section("plugins", *_plugins(startup)),
        _section(
            "lb-rl",
            *(f"directory {startup.shm_dir}", f"flows {startup.flow_table_size}"),
            *(f"vips {startup.max_vips}", f"slots {startup.max_slots}"),
            *([f"client-table {CLIENT_TABLE}"] if startup.cards else []),
            *([f"group {startup.group}"] if startup.group is not None else []),
        ),
        _section("dpdk", *_dpdk(startup.cards)),
    ]
    return "\n".join(section for section in sections if section)


def render_wire(startup: Startup) -> str:
    """Return the commands that make VPP's end of the wire: part of its start, and alone when the pair was made anew."""
    return "\n".join([*_wire(startup.veth), ""])


def render_interfaces(startup: Startup) -> str:
    """Return the commands that VPP executes at its start."""
    tables = [f"{ip} table add {CLIENT_TABLE}" for ip in ("ip", "ip6")] if startup.cards else []
    cards = [
        command for number, card in enumerate(startup.cards) for command in _card(number, card, startup.xdp_program)
    ]
    return "\n".join([*_wire(startup.veth), *tables, *cards, ""])


def leave_wire(veth: Veth) -> list[str]:
    """Return the commands that have VPP let go of its end.

    Routes go first: one that outlives its interface stays dead when another of the same name comes.
    """
    name = host_interface(veth.peer)
    routes = [f"ip route del {everywhere} via {hop} {name}" for hop, everywhere in _KERNEL_ROUTES]
    return [*routes, f"delete host-interface name {veth.peer}"]


def _wire(veth: Veth) -> list[str]:
    name = host_interface(veth.peer)
    commands = [
        # Checksums are whole and no frame is longer than the MTU: offloads of both ends are off.
        f"create host-interface name {veth.peer} hw-addr {VETH_ADDRESS} cksum-gso-disable",
        f"set interface mtu packet {veth.mtu} {name}",
        f"set interface ip address {name} {DUMMY_ADDRESS}",
        f"enable ip6 interface {name}",
        f"set interface state {name} up",
    ]
    for hop, everywhere in _KERNEL_ROUTES:
        # The kernel's end resolves no neighbours and has VPP's own address: see ADR 7.
        commands.append(f"set ip neighbor {name} {hop} {VETH_ADDRESS} static")
        commands.append(f"ip route add {everywhere} via {hop} {name}")
    return commands


def _card(number: int, card: Card, xdp_program: Path) -> list[str]:
    """Return what makes a card an interface of VPP, in the table of clients."""
    name = card_interface(number, card)
    match card.type:
        case CardType.AF_PACKET:
            # With the card's own address, or it would drop what is sent there.
            options = f"hw-addr {card.ethernet} num-rx-queues {card.queues} cksum-gso-disable"
            make = [f"create host-interface name {card.device} {options}"]
        case CardType.AF_XDP:
            options = f"num-rx-queues {card.queues} prog {xdp_program}"
            make = [
                f"create interface af_xdp host-if {card.device} name {name} {options}",
                # Else it draws one at each start: neighbours would send to the last one, cards take only their own.
                f"set interface mac address {name} {card.ethernet}",
            ]
        case CardType.DPDK:
            make = []  # made by the section of this name
    return [
        *make,
        f"set interface ip table {name} {CLIENT_TABLE}",
        f"set interface ip6 table {name} {CLIENT_TABLE}",
        *(f"set interface ip address {name} {address}" for address in card.addresses),
        f"set interface state {name} up",
        *(
            f"ip route add {'::/0' if ':' in gateway else '0.0.0.0/0'} table {CLIENT_TABLE} via {gateway} {name}"
            for gateway in card.gateways
        ),
    ]


def _dpdk(cards: tuple[Card, ...]) -> list[str]:
    return [
        f"dev {card.device} {{ name card{number} num-rx-queues {card.queues} }}"
        for number, card in enumerate(cards)
        if card.type is CardType.DPDK
    ]


def _heap_mebibytes(startup: Startup) -> int:
    """Return the size of VPP's heap: of hugepages, which are taken at once, what buffers leave over, in whole pages."""
    if startup.page_size is PageSize.SMALL:
        return _LAZY_HEAP_MEBIBYTES
    page = startup.page_size.kibibytes // 1024
    buffers = -(-_BUFFERS * 2560 // _MEBIBYTE // page) * page
    return max(page, (startup.hugepages_mebibytes - buffers) // page * page)


def _cpu(startup: Startup) -> list[str]:
    if startup.workers == 0:
        return []
    if len(startup.cpus) <= startup.workers:
        raise CpuError(
            f"{startup.workers} workers and the main thread need {startup.workers + 1} processors; "
            f"this container may use {len(startup.cpus)}"
        )
    main, *rest = sorted(startup.cpus)
    chosen = ",".join(map(str, rest[: startup.workers]))
    return [f"main-core {main}", f"corelist-workers {chosen}"]


def _plugins(startup: Startup) -> list[str]:
    wanted = ["lb_rl_plugin.so", "af_packet_plugin.so", "ping_plugin.so"]
    wanted += sorted({PLUGINS[card.type] for card in startup.cards} - set(wanted))
    path = [f"path {startup.plugin_path}"] if startup.plugin_path else []
    # Anything else would only add to what a packet can reach.
    return [*path, "plugin default { disable }", *(f"plugin {name} {{ enable }}" for name in wanted)]


def _section(name: str, *lines: str) -> str:
    return "\n".join([f"{name} {{", *(f"  {line}" for line in lines), "}"]) + "\n" if lines else ""

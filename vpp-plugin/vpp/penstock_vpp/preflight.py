"""What a node must offer before VPP can run in a pod on it; reads only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock_node import DesiredNode, Finding, Severity, Surroundings, Veth, netlink
from penstock_node import preflight as node_preflight
from penstock_node.actual import Link

from penstock_vpp.settings import CardSettings, PodSettings
from penstock_vpp.startup import PLUGINS, CardType, PageSize

# Of the node's own findings these keep VPP from starting; the others are about packets, and are told as warnings.
_FATAL = frozenset({"privileges", "nft", "shared-memory"})


@dataclass(frozen=True)
class Machine:
    """Where the checks look; tests bring their own."""

    sys: Path = Path("/sys")
    processors: int = 1  # of the whole machine: which of them VPP may use is known when it starts
    links: Mapping[str, Link] = field(default_factory=dict)
    uplinks: tuple[str, ...] = ()  # interfaces of the default routes

    @classmethod
    def here(cls) -> Machine:
        """Return the machine that this process runs on."""
        return cls(processors=os.cpu_count() or 1, links=netlink.links(), uplinks=netlink.default_interfaces())


def preflight(settings: PodSettings) -> tuple[Finding, ...]:
    """Return what stands in the way, worst first. Raises ObserveError when the node cannot be read at all."""
    desired = DesiredNode(tun=Veth(), shortcut=False)
    found = [
        finding
        if finding.check in _FATAL
        else Finding(finding.check, Severity.WARNING, finding.message, finding.remedy)
        for finding in node_preflight(desired, Surroundings(shared_memory=settings.shm_dir))
    ]
    found += check(settings, Machine.here())
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def check(settings: PodSettings, machine: Machine) -> list[Finding]:
    """Return what VPP lacks here."""
    return [finding for each in _CHECKS for finding in each(settings, machine)]


def _check_program(settings: PodSettings, _: Machine) -> Iterator[Finding]:
    if not os.access(settings.program, os.X_OK):
        message = f"{settings.program} is no program; use the image penstock/vpp, or name VPP's program"
        yield Finding("program", Severity.ERROR, message, ())
    directories = [Path(part) for part in settings.plugin_path.split(":")]
    if not any((directory / "lb_rl_plugin.so").exists() for directory in directories):
        message = f"there is no lb_rl_plugin.so in {settings.plugin_path}; use the image penstock/vpp"
        yield Finding("plugin", Severity.ERROR, message, ())


def _check_processors(settings: PodSettings, machine: Machine) -> Iterator[Finding]:
    wanted = settings.workers + 1 if settings.workers else 1
    if machine.processors < wanted:
        message = (
            f"{settings.workers} workers and the main thread need {wanted} processors, and this machine has "
            f"{machine.processors}; set spec.vpp.workers of the DataPlane to {machine.processors - 1} or less"
        )
        yield Finding("processors", Severity.ERROR, message, ())


def _check_hugepages(settings: PodSettings, machine: Machine) -> Iterator[Finding]:
    size = settings.page_size
    if size is PageSize.SMALL:
        return
    pool = machine.sys / f"kernel/mm/hugepages/hugepages-{size.kibibytes}kB"
    wanted = -(-settings.hugepages_mebibytes * 1024 // size.kibibytes)
    try:
        free = int((pool / "free_hugepages").read_text())
    except FileNotFoundError:
        message = f"this kernel has no hugepages of {size.value}; choose another spec.vpp.hugepages.pageSize"
        yield Finding("hugepages", Severity.ERROR, message, (f"ls {pool.parent}",))
        return
    if free < wanted:
        total = int((pool / "nr_hugepages").read_text()) + wanted - free
        message = (
            f"{free} hugepages of {size.value} are free and VPP needs {wanted}; reserve more, and restart the kubelet, "
            "which counts them at its start"
        )
        yield Finding("hugepages", Severity.ERROR, message, (f"echo {total} > {pool}/nr_hugepages",))


def _check_cards(settings: PodSettings, machine: Machine) -> Iterator[Finding]:
    for card in settings.cards:
        if not card.addresses_on(settings.node_name):
            message = f"{card.device}: spec.vpp.interfaces gives VPP no address on node {settings.node_name}; add one"
            yield Finding("card-address", Severity.ERROR, message, ())
        plugin = PLUGINS[card.type]
        if not any((Path(part) / plugin).exists() for part in settings.plugin_path.split(":")):
            message = f"{card.device}: this VPP has no {plugin}, which type {card.type.value} needs"
            yield Finding("card-plugin", Severity.ERROR, message, ())
        if card.type is CardType.AF_XDP and not settings.xdp_program.exists():
            message = (
                f"{card.device}: there is no {settings.xdp_program}, which type AfXdp needs; use the image penstock/vpp"
            )
            yield Finding("card-program", Severity.ERROR, message, ())
        check = _check_bus if card.type is CardType.DPDK else _check_device
        yield from check(card, machine)


def _check_device(card: CardSettings, machine: Machine) -> Iterator[Finding]:
    """Check a card that the kernel keeps."""
    link = machine.links.get(card.device)
    if link is None:
        message = f"there is no interface {card.device}; name one of the node's in spec.vpp.interfaces"
        yield Finding("card", Severity.ERROR, message, ("ip -br link",))
        return
    if card.device in machine.uplinks:
        message = f"{card.device} has the node's default route, and VPP would take the node off the network"
        yield Finding("card", Severity.ERROR, f"{message}; name another interface", ("ip route show default",))
    if not link.up:
        yield Finding("card", Severity.ERROR, f"{card.device} is down", (f"ip link set {card.device} up",))
    if link.receive_queues < card.queues:
        message = f"{card.device} has {link.receive_queues} queues to receive from, and {card.queues} are asked for"
        remedy = (f"ethtool -L {card.device} combined {card.queues}",)
        yield Finding("card-queues", Severity.ERROR, message, remedy)


def _check_bus(card: CardSettings, machine: Machine) -> Iterator[Finding]:
    """Check a card that VPP drives itself."""
    device = machine.sys / "bus/pci/devices" / card.device
    if not device.exists():
        message = f"there is no PCI device {card.device}; correct spec.vpp.interfaces"
        yield Finding("card", Severity.ERROR, message, ("lspci -D -nn -d ::0200",))
        return
    if not (device / "iommu_group").exists():
        message = f"{card.device} is in no IOMMU group: switch the IOMMU on in firmware and kernel, and start anew"
        yield Finding("iommu", Severity.ERROR, message, ("cat /proc/cmdline  # intel_iommu=on, or amd_iommu=on",))
    driver = (device / "driver").resolve().name if (device / "driver").exists() else "none"
    if driver != "vfio-pci":
        message = f"{card.device} has driver {driver} and VPP needs vfio-pci; the kernel loses its interface by this"
        remedy = ("modprobe vfio-pci", f"driverctl set-override {card.device} vfio-pci")
        yield Finding("vfio", Severity.ERROR, message, remedy)


_CHECKS: tuple[Callable[[PodSettings, Machine], Iterator[Finding]], ...] = (
    _check_program,
    _check_processors,
    _check_hugepages,
    _check_cards,
)

"""What VPP is started with in a pod, and what is refused before anything is touched. Needs no VPP."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pyroute2 import IPRoute

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

from penstock_api.dataplane import DataPlaneSpec
from penstock_api.vppspec import VppSpec
from penstock_embedded.settings import Settings as EmbeddedSettings
from penstock_embedded.sizing import size_in_force
from penstock_node import Severity
from penstock_node.actual import Link
from penstock_vpp import cards
from penstock_vpp.preflight import Machine, check
from penstock_vpp.settings import PodSettings
from penstock_vpp.startup import Card, CardType, CpuError, PageSize, Startup, render_interfaces, render_startup

from tests.support.netns import Namespace

GOLDEN = Path(__file__).parent / "golden"

SMALL = Startup(plugin_path="/usr/lib/vpp_plugins:/opt/penstock/lib/vpp_plugins")
LARGE = Startup(
    plugin_path="/usr/lib/vpp_plugins:/opt/penstock/lib/vpp_plugins",
    shm_dir=Path("/dev/shm/penstock/edge"),
    flow_table_size=4_194_304,
    workers=2,
    cpus=(7, 3, 5, 9),
    page_size=PageSize.HUGE,
    hugepages_mebibytes=1024,
)


AF_PACKET = replace(
    SMALL,
    cards=(
        Card(
            CardType.AF_PACKET,
            "eth1",
            ("192.0.2.11/24", "2001:db8::11/64"),
            ("192.0.2.1", "2001:db8::1"),
            ethernet="02:00:00:00:00:01",
        ),
    ),
)
XDP_CARD = Card(CardType.AF_XDP, "eth1", ("192.0.2.11/24",), queues=2, ethernet="02:00:00:00:00:01")
AF_XDP = replace(SMALL, workers=2, cpus=(0, 1, 2), cards=(XDP_CARD,))
DPDK = replace(
    LARGE,
    cards=(
        Card(CardType.DPDK, "0000:3b:00.0", ("192.0.2.11/24",), ("192.0.2.1",), queues=2),
        Card(CardType.DPDK, "0000:3b:00.1", ("198.51.100.11/24",)),
    ),
)
STARTUPS = {"small": SMALL, "large": LARGE, "af-packet": AF_PACKET, "af-xdp": AF_XDP, "dpdk": DPDK}


@pytest.mark.parametrize("name", STARTUPS)
def test_startup_conf(name: str) -> None:
    assert render_startup(STARTUPS[name]) == (GOLDEN / f"startup-{name}.conf").read_text()


@pytest.mark.parametrize("name", STARTUPS)
def test_interfaces(name: str) -> None:
    assert render_interfaces(STARTUPS[name]) == (GOLDEN / f"interfaces-{name}").read_text()


def test_gigantic_pages_are_whole() -> None:
    text = render_startup(Startup(page_size=PageSize.GIGANTIC, hugepages_mebibytes=4096))
    assert "main-heap-size 3072M" in text


def test_threads_without_processors_are_refused() -> None:
    with pytest.raises(CpuError, match="need 3 processors; this container may use 2"):
        render_startup(Startup(workers=2, cpus=(0, 1)))


def installed(tmp_path: Path, **settings: object) -> PodSettings:
    program = tmp_path / "vpp"
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    (tmp_path / "lb_rl_plugin.so").touch()
    return PodSettings(program=program, plugin_path=str(tmp_path), **settings)


def machine(tmp_path: Path, cpus: int = 4, **pools: tuple[int, int]) -> Machine:
    for size, (free, total) in pools.items():
        pool = tmp_path / "kernel/mm/hugepages" / f"hugepages-{size.removeprefix('kb')}kB"
        pool.mkdir(parents=True)
        (pool / "free_hugepages").write_text(f"{free}\n")
        (pool / "nr_hugepages").write_text(f"{total}\n")
    return Machine(sys=tmp_path, processors=cpus)


def test_a_fit_node_has_no_findings(tmp_path: Path) -> None:
    settings = installed(tmp_path, workers=3, page_size="2Mi", hugepages_mebibytes=512)
    assert check(settings, machine(tmp_path, kb2048=(256, 256))) == []


def test_missing_hugepages_are_refused_with_the_command_that_reserves_them(tmp_path: Path) -> None:
    settings = installed(tmp_path, page_size="2Mi", hugepages_mebibytes=512)
    (finding,) = check(settings, machine(tmp_path, kb2048=(100, 300)))
    assert finding.severity is Severity.ERROR
    assert "100 hugepages of 2Mi are free and VPP needs 256" in finding.message
    assert finding.remedy == (f"echo 456 > {tmp_path}/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",)


def test_a_size_of_pages_that_the_kernel_lacks_is_refused(tmp_path: Path) -> None:
    (finding,) = check(installed(tmp_path, page_size="1Gi", hugepages_mebibytes=1024), machine(tmp_path))
    assert "no hugepages of 1Gi" in finding.message


def test_too_many_workers_are_refused(tmp_path: Path) -> None:
    (finding,) = check(installed(tmp_path, workers=4), machine(tmp_path, cpus=2))
    assert "4 workers and the main thread need 5 processors" in finding.message
    assert "to 1 or less" in finding.message


def test_the_flow_table_has_the_size_given_or_one_by_memory(tmp_path: Path) -> None:
    for given, expected in ((4096, 4096), ("auto", size_in_force(None, tmp_path))):
        startup = PodSettings.model_validate({"flow_table_size": given, "shm_dir": tmp_path}).startup(cpus=[0])
        assert f"  flows {expected}\n" in render_startup(startup)


@pytest.mark.parametrize(("field", "limit"), [("workers", 16), ("hugepages_mebibytes", 1 << 20)])
def test_what_no_arena_can_hold_is_refused_before_vpp_is_started(field: str, limit: int) -> None:
    assert getattr(PodSettings.model_validate({field: limit}), field) == limit
    with pytest.raises(ValidationError, match=f"less than or equal to {limit}"):
        PodSettings.model_validate({field: limit + 1})


def test_the_limits_of_a_dataplane_are_those_of_its_programs() -> None:
    spec = DataPlaneSpec.model_json_schema()["properties"]
    for program in (EmbeddedSettings, PodSettings):
        of_program = program.model_json_schema()["properties"]["flow_table_size"]
        assert spec["flowTableSize"]["anyOf"] == of_program["anyOf"]
    workers = PodSettings.model_json_schema()["properties"]["workers"]
    assert VppSpec.model_json_schema()["properties"]["workers"]["maximum"] == workers["maximum"]


@pytest.mark.netns
def test_a_card_may_have_any_name(tmp_path: Path) -> None:
    names = ("10g0", "vlan", "bridge", "eth-1.5")
    with Namespace("pn-vpc") as node:
        for name in names:
            node.sh(f"ip link add name {name} type veth")
        node.run(cards.take, names, tmp_path)
        deaf = node.sh("nft list ruleset")
        assert all(f'device "{name}"' in deaf for name in names)
        node.run(cards.give_back, tmp_path)
        assert node.sh("nft list ruleset") == ""


@pytest.mark.netns
def test_the_program_that_a_vpp_left_is_taken_off_its_card() -> None:
    with Namespace("pn-vpc") as node:
        node.sh("ip link add name eth1 type veth")
        node.run(put_program_before, "eth1")
        assert "xdp" in node.sh("ip -o link show dev eth1")
        for _ in range(2):
            node.run(cards.take_program_off, "eth1")
            assert "xdp" not in node.sh("ip -o link show dev eth1")
        node.run(cards.take_program_off, "gone")


def put_program_before(device: str) -> None:
    """Have the kernel run an XDP program on each frame of a device: the shortest there is, which lets all pass."""
    code = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
    licence = b"GPL\0"
    addresses = [ctypes.cast(ctypes.c_char_p(each), ctypes.c_void_p).value for each in (code, licence)]
    attributes = struct.pack("=IIQQ", 6, 2, *addresses).ljust(128, b"\0")  # BPF_PROG_TYPE_XDP, instructions
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    program = ctypes.CDLL(None, use_errno=True).syscall(number, 5, attributes, len(attributes))  # BPF_PROG_LOAD
    assert program >= 0, os.strerror(ctypes.get_errno())
    with IPRoute() as channel:
        channel.link("set", index=socket.if_nametoindex(device), xdp_fd=program)
    os.close(program)


def test_an_image_without_vpp_is_refused(tmp_path: Path) -> None:
    settings = PodSettings(program=tmp_path / "vpp", plugin_path=str(tmp_path))
    assert [finding.check for finding in check(settings, machine(tmp_path))] == ["program", "plugin"]


def card(tmp_path: Path, **values: Any) -> dict[str, Any]:
    (tmp_path / "af_packet_plugin.so").touch()
    (tmp_path / "dpdk_plugin.so").touch()
    return {"type": "AfPacket", "name": "eth1", "addresses": [{"node": "lb-1", "address": "192.0.2.11/24"}], **values}


def pci(tmp_path: Path, driver: str, *, iommu: bool = True) -> None:
    folder = tmp_path / "bus/pci/devices/0000:3b:00.0"
    folder.mkdir(parents=True)
    (tmp_path / "drivers" / driver).mkdir(parents=True)
    (folder / "driver").symlink_to(tmp_path / "drivers" / driver)
    if iommu:
        (folder / "iommu_group").mkdir()


ETH1 = Link("eth1", 3)


def findings(
    tmp_path: Path, link: Link | None = ETH1, node: str = "lb-1", uplinks: tuple[str, ...] = (), **values: Any
) -> list[str]:
    settings = installed(tmp_path, cards=[card(tmp_path, **values)], node_name=node)
    here = replace(machine(tmp_path), links={link.name: link} if link else {}, uplinks=uplinks)
    return [finding.message for finding in check(settings, here)]


def test_a_card_that_is_fit(tmp_path: Path) -> None:
    assert findings(tmp_path) == []


def test_a_card_that_is_missing(tmp_path: Path) -> None:
    (message,) = findings(tmp_path, None)
    assert "there is no interface eth1" in message


def test_a_card_without_address_on_this_node(tmp_path: Path) -> None:
    (message,) = findings(tmp_path, node="lb-2")
    assert "no address on node lb-2" in message


def test_a_card_that_the_node_needs_itself(tmp_path: Path) -> None:
    (message,) = findings(tmp_path, uplinks=("eth1",))
    assert "has the node's default route" in message


def test_a_card_that_is_down_or_has_too_few_queues(tmp_path: Path) -> None:
    assert findings(tmp_path, replace(ETH1, up=False), queues=2) == [
        "eth1 is down",
        "eth1 has 1 queues to receive from, and 2 are asked for",
    ]


PCI: dict[str, Any] = {"type": "Dpdk", "name": None, "pciAddress": "0000:3b:00.0"}


def test_a_card_for_a_driver_of_vpps_own(tmp_path: Path) -> None:
    pci(tmp_path, "vfio-pci")
    assert findings(tmp_path, **PCI) == []


def test_a_card_that_is_not_on_the_bus(tmp_path: Path) -> None:
    (message,) = findings(tmp_path, **PCI)
    assert "there is no PCI device 0000:3b:00.0" in message


def test_a_card_without_iommu_and_with_the_kernels_driver(tmp_path: Path) -> None:
    pci(tmp_path, "mlx5_core", iommu=False)
    iommu, driver = findings(tmp_path, **PCI)
    assert "is in no IOMMU group" in iommu
    assert "has driver mlx5_core and VPP needs vfio-pci" in driver


def test_a_vpp_without_the_plugin(tmp_path: Path) -> None:
    plugin, program = findings(tmp_path, type="AfXdp")
    assert "this VPP has no af_xdp_plugin.so" in plugin
    assert "to_vpp.bpf.o, which type AfXdp needs" in program

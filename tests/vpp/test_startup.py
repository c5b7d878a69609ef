"""What VPP is started with in a pod, and what is refused before anything is touched. Needs no VPP."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

from penstock_node import Severity
from penstock_vpp.preflight import Machine, check
from penstock_vpp.settings import PodSettings
from penstock_vpp.startup import CpuError, PageSize, Startup, render_interfaces, render_startup

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


@pytest.mark.parametrize(("name", "startup"), [("small", SMALL), ("large", LARGE)])
def test_startup_conf(name: str, startup: Startup) -> None:
    assert render_startup(startup) == (GOLDEN / f"startup-{name}.conf").read_text()


def test_the_wire_to_the_kernel() -> None:
    assert render_interfaces(SMALL) == (GOLDEN / "interfaces-veth").read_text()


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
    return PodSettings(program=program, plugin_path=str(tmp_path), **settings)  # type: ignore[arg-type]


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


def test_an_image_without_vpp_is_refused(tmp_path: Path) -> None:
    settings = PodSettings(program=tmp_path / "vpp", plugin_path=str(tmp_path))
    assert [finding.check for finding in check(settings, machine(tmp_path))] == ["program", "plugin"]

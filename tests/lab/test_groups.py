"""Control groups of both versions: where they are found, what is written to them, and that the kernel obeys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.errors import LabError
from tools.lab.groups import Group, Hierarchies, Throttling, left_behind


def test_hierarchies_of_version_1_are_found_apart_and_together() -> None:
    apart = "none /a/cpu cgroup rw,cpu 0 0\nnone /a/cpuacct cgroup rw,cpuacct 0 0\nnone /a/u cgroup2 rw 0 0\n"
    together = "none /a/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    assert Hierarchies.find(apart) == Hierarchies(1, Path("/a/cpu"), Path("/a/cpuacct"))
    assert Hierarchies.find(together).roots == (Path("/a/cpu,cpuacct"),)


def test_version_2_is_found_where_it_has_the_controller(tmp_path: Path) -> None:
    mounts = f"none {tmp_path} cgroup2 rw 0 0\n"
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    with pytest.raises(LabError, match="no control groups that limit processor time"):
        Hierarchies.find(mounts)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory")
    assert Hierarchies.find(mounts) == Hierarchies(2, tmp_path, tmp_path)


def test_a_limit_of_version_2_is_written_and_read(tmp_path: Path) -> None:
    group = Group(Hierarchies(2, tmp_path, tmp_path), "lab")
    group.make()
    group.limit(0.03, 0.1)
    group.favor()
    (tmp_path / "lab/cpu.stat").write_text("usage_usec 1500000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 250000\n")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / "lab/cpu.max").read_text() == "30000 100000"
    assert (tmp_path / "lab/cpu.weight").read_text() == "10000"
    assert group.used == 1.5
    assert group.throttling == Throttling(7, 3, 0.25)


def test_a_limit_of_version_1_is_written_and_read(tmp_path: Path) -> None:
    hierarchies = Hierarchies(1, tmp_path / "cpu", tmp_path / "cpuacct")
    for root in hierarchies.roots:
        root.mkdir()
    group = Group(hierarchies, "lab")
    group.make()
    group.limit(0.03, 0.1)
    group.favor()
    (tmp_path / "cpuacct/lab/cpuacct.usage").write_text("1500000000\n")
    (tmp_path / "cpu/lab/cpu.stat").write_text("nr_periods 7\nnr_throttled 3\nthrottled_time 250000000\n")
    assert (tmp_path / "cpu/lab/cpu.cfs_quota_us").read_text() == "30000"
    assert (tmp_path / "cpu/lab/cpu.cfs_period_us").read_text() == "100000"
    assert (tmp_path / "cpu/lab/cpu.shares").read_text() == "262144"
    assert group.used == 1.5
    assert group.throttling == Throttling(7, 3, 0.25)


@pytest.mark.parametrize(("quota", "period"), [(0.0005, 0.1), (0.1, 2.0), (0.1, 0.0001)])
def test_a_limit_that_the_kernel_does_not_take_is_refused(tmp_path: Path, quota: float, period: float) -> None:
    group = Group(Hierarchies(2, tmp_path, tmp_path), "lab")
    with pytest.raises(LabError, match=r"quota: .* raise cpus or period"):
        group.limit(quota, period)


def test_groups_of_programs_that_are_gone_are_found(tmp_path: Path) -> None:
    hierarchies = Hierarchies(2, tmp_path, tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"lab-{ended.pid}", f"lab-{os.getpid()}", "lab-other", "another-1"):
        (tmp_path / name).mkdir()
    assert [group.name for group in left_behind(hierarchies, "lab-")] == [f"lab-{ended.pid}"]


@pytest.mark.netns
def test_a_process_gets_no_more_than_its_limit(limits: Hierarchies) -> None:
    group = Group(limits, f"penstock-lab-{os.getpid()}")
    group.make()
    try:
        group.limit(0.02, 0.1)
        program = "import time; until = time.monotonic() + 1\nwhile time.monotonic() < until: pass"
        subprocess.run(group.command([sys.executable, "-c", program]), check=True)
        assert 0 < group.used < 0.4  # a fifth of a processor, for the start of the program and a second
        assert group.throttling.throttled > 0
    finally:
        group.remove()
    assert not any(path.exists() for path in group.paths)

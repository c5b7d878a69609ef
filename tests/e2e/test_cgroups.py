"""Control groups of both versions; where the machine has version 1, real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.cluster.cgroups import Cgroups
from e2e.cluster.errors import StateError

NAME = f"penstock-test.{os.getpid()}"


def test_version_one_wins_where_it_holds_the_controllers() -> None:
    mounts = "\n".join(
        f"cgroup /sys/fs/cgroup/{name} cgroup rw,{name} 0 0" for name in ("cpu,cpuacct", "cpuset", "memory", "pids")
    )
    found = Cgroups.detect(mounts + "\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
    assert found.version == 1
    assert len(found.hierarchies) == 4
    assert found.others == (Path("/sys/fs/cgroup/unified"),)


def test_version_two_alone() -> None:
    found = Cgroups.detect("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert (found.version, found.hierarchies) == (2, (Path("/sys/fs/cgroup"),))


@pytest.mark.parametrize(
    ("mounts", "complaint"),
    [("proc /proc proc rw 0 0", "no control groups"), ("cgroup /c/cpu cgroup rw,cpu 0 0", "cpuset, memory, pids")],
)
def test_what_is_missing_is_named(mounts: str, complaint: str) -> None:
    with pytest.raises(StateError, match=complaint):
        Cgroups.detect(mounts)


def test_version_two_hands_controllers_down(tmp_path: Path) -> None:
    def kernel_files(group: Path) -> None:
        (group / "cgroup.controllers").write_text("cpuset cpu io memory pids")
        (group / "cgroup.subtree_control").write_text("")

    kernel_files(tmp_path)
    (tmp_path / "outer").mkdir()
    kernel_files(tmp_path / "outer")
    Cgroups(2, (tmp_path,)).create("outer/inner")
    assert (tmp_path / "outer" / "inner").is_dir()
    assert (tmp_path / "outer" / "cgroup.subtree_control").read_text() == "+pids"
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    with pytest.raises(StateError, match="lacks the controller cpuset"):
        Cgroups(2, (tmp_path,)).create("outer/other")


@pytest.mark.skipif(os.geteuid() != 0 or Cgroups.detect().version != 1, reason="needs root and cgroup v1")
def test_real_groups_are_ready_for_processes_and_go_away() -> None:
    groups = Cgroups.detect()
    groups.create(f"{NAME}/node-1")
    try:
        made = [hierarchy / NAME / "node-1" for hierarchy in groups.hierarchies]
        assert all(group.is_dir() for group in made)
        (cpuset,) = [group for group in made if (group / "cpuset.cpus").exists()]
        assert (cpuset / "cpuset.cpus").read_text().strip()
        assert (cpuset / "cpuset.mems").read_text().strip()
        groups.create(f"{NAME}/node-1")
    finally:
        groups.delete(NAME)
    assert not any((hierarchy / NAME).exists() for hierarchy in (*groups.hierarchies, *groups.others))
    groups.delete(NAME)

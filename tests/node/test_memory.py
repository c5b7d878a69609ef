"""How much memory a process may use, as the kernel's files say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from penstock_node.memory import memory_of

UNLIMITED_V1 = str(2**63 - 4096)
MIB = 2**20


def files(tmp_path: Path, membership: str, limits: Mapping[str, str]) -> tuple[Path, Path]:
    """Write a process's cgroups and what limits there are; return where both lie."""
    process, cgroups = tmp_path / "self", tmp_path / "cgroup"
    process.mkdir()
    (process / "cgroup").write_text(membership)
    for name, text in limits.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(f"{text}\n")
    return process, cgroups


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {}, None),  # the whole machine
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {"memory.max": str(512 * MIB)}, 512 * MIB),  # a container with its own cgroup as the top
        ("0::/a.slice/b.service\n", {"a.slice/b.service/memory.max": str(MIB)}, MIB),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/b.service/memory.max": str(9 * MIB), "a.slice/memory.max": str(7 * MIB), "memory.max": "max"},
            7 * MIB,
        ),
        ("0::/a.slice\n", {"other.slice/memory.max": str(MIB)}, None),
        ("4:cpu,memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": str(MIB)}, MIB),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": str(MIB)}, MIB),
        ("4:cpu:/a\n", {"cpu/a/memory.limit_in_bytes": str(MIB)}, None),
        ("0::/a:b\n", {"a:b/memory.max": str(MIB)}, MIB),
        ("0::/../..\n", {"memory.max": str(MIB), "../../memory.max": "1"}, MIB),  # moved out of its namespace's top
        ("0::/\n", {"memory.max": ""}, None),
        ("", {"memory.max": str(MIB)}, None),
    ],
)
def test_the_lowest_limit_of_the_cgroups_counts(
    tmp_path: Path, membership: str, limits: Mapping[str, str], expected: int | None
) -> None:
    directory = tmp_path / "x" / "y"
    directory.mkdir(parents=True)
    assert memory_of(*files(directory, membership, limits)).limit == expected


def test_a_version_1_without_limit_bounds_nothing(tmp_path: Path) -> None:
    memory = memory_of(*files(tmp_path, "4:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED_V1}))
    assert memory.limit is None or memory.limit > memory.machine


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_of(tmp_path, tmp_path).limit is None


def test_the_machine_has_what_meminfo_says() -> None:
    (line,) = [each for each in Path("/proc/meminfo").read_text().splitlines() if each.startswith("MemTotal:")]
    assert memory_of().machine == int(line.split()[1]) * 1024

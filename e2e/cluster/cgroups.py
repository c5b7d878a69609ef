"""A control group per node, in every hierarchy of version 1 or in the one of version 2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import StateError
from e2e.cluster.processes import wait_until

_NEEDED = ("cpu", "cpuset", "memory", "pids")


@dataclass(frozen=True)
class Cgroups:
    """The mounted hierarchies that hold controllers: one is version 2, several are version 1."""

    version: int
    hierarchies: tuple[Path, ...]
    others: tuple[Path, ...] = ()  # a version 2 hierarchy beside version 1: runc makes groups there, too

    @classmethod
    def detect(cls, mounts: str | None = None) -> Cgroups:
        """Find the hierarchies in /proc/mounts; version 1 wins where both are mounted and it holds controllers."""
        text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        rows = [line.split() for line in text.splitlines()]
        first = tuple(Path(row[1]) for row in rows if row[2] == "cgroup")
        second = tuple(Path(row[1]) for row in rows if row[2] == "cgroup2")
        if first:
            held = {option for row in rows if row[2] == "cgroup" for option in row[3].split(",")}
            missing = [controller for controller in _NEEDED if controller not in held]
            if missing:
                raise StateError(f"no cgroup-v1 hierarchy for {', '.join(missing)} is mounted: kubelet needs it")
            return cls(1, first, second)
        if not second:
            raise StateError("no control groups are mounted: `mount -t cgroup2 none /sys/fs/cgroup` first")
        return cls(2, second[:1])

    def create(self, path: str) -> None:
        """Make a group (and those above it) in every hierarchy, ready to take processes."""
        for hierarchy in self.hierarchies:
            group = hierarchy
            for part in Path(path).parts:
                if self.version == 2:
                    _delegate(group)
                group /= part
                group.mkdir(exist_ok=True)
                if self.version == 1:
                    _fill_cpuset(group)

    def delete(self, path: str) -> None:
        """Remove a group and all below it, once their processes are gone."""
        for hierarchy in (*self.hierarchies, *self.others):
            for group in _bottom_up(hierarchy / path):
                if not wait_until(lambda group=group: _removed(group), 10):  # type: ignore[misc]
                    raise StateError(f"control group {group} still has processes: see {group}/cgroup.procs")


def _delegate(group: Path) -> None:
    """Let the groups below have controllers of their own."""
    available = (group / "cgroup.controllers").read_text().split()
    for controller in _NEEDED:
        if controller not in available:
            raise StateError(f"control group {group} lacks the controller {controller}: it has {' '.join(available)}")
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _fill_cpuset(group: Path) -> None:
    """Copy the parent's processors and memory nodes: an empty cpuset takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def _bottom_up(group: Path) -> Iterator[Path]:
    if not group.is_dir():
        return
    for child in sorted(group.iterdir()):
        if child.is_dir():
            yield from _bottom_up(child)
    yield group


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()

"""How much memory the machine has and how much of it this process may use.

Only amounts that a restart finds again: what is available at the moment is not among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_V1_CONTROLLER = "memory"


@dataclass(frozen=True)
class Memory:
    """Amounts in bytes."""

    machine: int  # MemTotal
    limit: int | None = None  # the lowest limit of the cgroups that the process is in; none: as much as there is


def memory_of(process: Path = Path("/proc/self"), cgroups: Path = _CGROUPS) -> Memory:
    """Return the memory of this machine and the limit of a process's cgroups; parameters are for tests."""
    limits = [limit for file in _limit_files(process, cgroups) if (limit := _limit_in(file)) is not None]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(machine, min(limits, default=None))


def _limit_files(process: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the files with limits of the cgroups of a process, and of all above them.

    In a container the path may be the one outside, while the mount shows the container's own cgroup as its top.
    """
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, name = cgroups, "memory.max"
        elif _V1_CONTROLLER in controllers.split(","):
            top, name = cgroups / _V1_CONTROLLER, "memory.limit_in_bytes"
        else:
            continue
        directory = top / os.path.normpath(f"/{path}").lstrip("/")  # ".." leads out of a namespace's top
        yield from (each / name for each in (directory, *directory.parents) if each.is_relative_to(top))


def _limit_in(file: Path) -> int | None:
    """Return the limit in a file; None where it has none, or cannot be read."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # version 2 writes "max"
        return None

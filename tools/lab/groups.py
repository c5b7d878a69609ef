"""Control groups of the laboratory: a limit of processor time for each server, and what each group used.

Version 1 has a hierarchy for limits and one for accounts, or one for both; version 2 has one for everything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.lab.errors import LabError

SHORTEST = 0.001  # seconds: the kernel takes no shorter quota or period
LONGEST = 1.0
REMOVAL_SECONDS = 10.0  # that processes which were killed may take to leave a group


@dataclass(frozen=True)
class Hierarchies:
    """Where control groups with processor limits are made."""

    version: int
    limits: Path
    accounts: Path

    @classmethod
    def find(cls, mounts: str | None = None) -> Hierarchies:
        """Read /proc/mounts; LabError where processor time cannot be limited."""
        text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        rows = [line.split() for line in text.splitlines()]
        first = {option: Path(row[1]) for row in rows if row[2] == "cgroup" for option in row[3].split(",")}
        if "cpu" in first and "cpuacct" in first:
            return cls(1, first["cpu"], first["cpuacct"])
        for row in rows:
            if row[2] == "cgroup2" and "cpu" in _words(Path(row[1]) / "cgroup.controllers"):
                return cls(2, Path(row[1]), Path(row[1]))
        raise LabError("no control groups that limit processor time are mounted: run it where they are")

    @property
    def roots(self) -> tuple[Path, ...]:
        """The hierarchies, each once."""
        return tuple(dict.fromkeys((self.limits, self.accounts)))


@dataclass(frozen=True)
class Throttling:
    """What a limit did since its group was made."""

    periods: int
    throttled: int  # periods in which the quota was used up
    seconds: float  # of threads that had to wait, added up over processors


@dataclass(frozen=True)
class Group:
    """A control group, `name` below the hierarchies' roots."""

    hierarchies: Hierarchies
    name: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its folders."""
        return tuple(root / self.name for root in self.hierarchies.roots)

    def below(self, name: str) -> Group:
        """Return the group of this name in this one."""
        return Group(self.hierarchies, f"{self.name}/{name}")

    def make(self) -> None:
        """Make the folders; those above exist."""
        for path in self.paths:
            try:
                if self.hierarchies.version == 2:
                    (path.parent / "cgroup.subtree_control").write_text("+cpu")
                path.mkdir()
            except OSError as error:
                raise LabError(f"{path}: {error.strerror}: control groups can be made by root alone") from error

    def favor(self) -> None:
        """Give the group's processes processors before those of others that have not asked for the same."""
        folder = self.hierarchies.limits / self.name
        name, most = ("cpu.weight", 10_000) if self.hierarchies.version == 2 else ("cpu.shares", 262_144)
        (folder / name).write_text(str(most))

    def limit(self, quota: float, period: float) -> None:
        """Let the group use `quota` seconds of processor time in each period, both in seconds."""
        if quota < SHORTEST or not SHORTEST <= period <= LONGEST:
            raise LabError(
                f"quota: {quota:.6f} s in each {period:.6f} s: the kernel takes quotas from {SHORTEST} s "
                f"and periods from {SHORTEST} to {LONGEST:g} s; raise cpus or period"
            )
        microseconds = round(quota * 1e6), round(period * 1e6)
        folder = self.hierarchies.limits / self.name
        if self.hierarchies.version == 2:
            (folder / "cpu.max").write_text(f"{microseconds[0]} {microseconds[1]}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(microseconds[1]))
            (folder / "cpu.cfs_quota_us").write_text(str(microseconds[0]))

    def command(self, command: Sequence[str], *, accounted_only: bool = False) -> list[str]:
        """Return a command that runs another one in the group, as the same process.

        `accounted_only`: not in the hierarchy of limits where that is another one. Below its root the kernel may refuse
        real-time scheduling.
        """
        paths = (self.hierarchies.accounts / self.name,) if accounted_only else self.paths
        joins = "".join(f'echo $$ > "{path}/cgroup.procs"; ' for path in paths)
        return ["sh", "-ec", f'{joins}exec "$@"', "sh", *command]

    @property
    def used(self) -> float:
        """Seconds of processor time that its processes used, and those of groups below."""
        folder = self.hierarchies.accounts / self.name
        if self.hierarchies.version == 2:
            return _numbers(folder / "cpu.stat")["usage_usec"] / 1e6
        return int((folder / "cpuacct.usage").read_text()) / 1e9

    @property
    def throttling(self) -> Throttling:
        """Return what its limit did."""
        found = _numbers(self.hierarchies.limits / self.name / "cpu.stat")
        seconds = found["throttled_usec"] / 1e6 if self.hierarchies.version == 2 else found["throttled_time"] / 1e9
        return Throttling(found["nr_periods"], found["nr_throttled"], seconds)

    def remove(self) -> None:
        """Remove the group and those below, once their processes are gone; nothing where it is not there."""
        for path in self.paths:
            for each in (*sorted(path.glob("*/")), path):
                _remove(each)


def _remove(folder: Path) -> None:
    until = time.monotonic() + REMOVAL_SECONDS
    while folder.exists():
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        if time.monotonic() > until:
            raise LabError(f"{folder}: still has processes: see cgroup.procs in it")
        time.sleep(0.02)


def left_behind(hierarchies: Hierarchies, prefix: str) -> Iterator[Group]:
    """Yield groups `prefix` + process id of processes that are gone."""
    for path in sorted(hierarchies.limits.glob(f"{prefix}*")):
        pid = path.name.removeprefix(prefix)
        if pid.isdigit() and not Path("/proc", pid).exists():
            yield Group(hierarchies, path.name)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _numbers(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}

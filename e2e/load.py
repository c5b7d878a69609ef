"""Runs the load generator and reads its report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Latency(_Line):
    """Milliseconds from the intended time of sending."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class Counts(_Line):
    """What happened in an interval, or in all."""

    completed: int
    failed: int
    retried: int
    new_connections: int
    failures: dict[str, int] = Field(default_factory=dict)
    backends: dict[str, int]
    latency_ms: Latency


class Interval(Counts):
    """One second, by default."""

    elapsed_s: float
    seconds: float


class Request(_Line):
    """One request, where each is logged."""

    intended: datetime
    latency_ms: float
    backend: str = ""
    retried: bool = False
    kind: str = ""  # of failure

    @property
    def failed(self) -> bool:
        """Whether there was no answer, or a wrong one."""
        return bool(self.kind)


class Failure(_Line):
    """One request that failed."""

    time: datetime
    intended: datetime
    kind: str = ""
    error: str = ""
    backend: str = ""


class Summary(Counts):
    """The whole run."""

    began: datetime
    ended: datetime
    rate: float
    throughput: float
    first_failure: str = ""
    backend_latency_ms: dict[str, Latency]

    @property
    def requests(self) -> int:
        """Requests that ended, one way or the other."""
        return self.completed + self.failed


@dataclass(frozen=True)
class Report:
    """What one run of the load generator wrote."""

    intervals: tuple[Interval, ...]
    failures: tuple[Failure, ...]
    summary: Summary
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True)
class Load:
    """How requests are sent: open loop, so a slow answer delays no later request."""

    target: str
    rate: float
    seconds: float
    new_share: float = 0.5  # of the requests get a connection of their own
    log_requests: bool = False

    def arguments(self, out: Path) -> list[str]:
        """Return the load generator's command line without the program."""
        return [
            f"--target={self.target}",
            f"--rate={self.rate:g}",
            f"--duration={self.seconds:g}s",
            f"--new-share={self.new_share:g}",
            f"--out={out}",
            *(["--log-requests"] if self.log_requests else []),
        ]


class LoadError(RuntimeError):
    """The load generator itself failed, or its report is not whole."""


def read_report(path: Path) -> Report:
    """Read the JSON lines of a finished run."""
    intervals: list[Interval] = []
    failures: list[Failure] = []
    requests: list[Request] = []
    summary = None
    for line in path.read_text().splitlines():
        raw = json.loads(line)
        if raw["type"] == "interval":
            intervals.append(Interval.model_validate(raw))
        elif raw["type"] == "summary":
            summary = Summary.model_validate(raw)
        else:
            requests.append(Request.model_validate(raw))
            if raw["type"] == "error":
                failures.append(Failure.model_validate(raw))
    if summary is None:
        raise LoadError(f"{path}: the load generator was ended before it wrote its summary")
    return Report(tuple(intervals), tuple(failures), summary, tuple(requests))


class Running:
    """A load generator at work."""

    def __init__(self, process: subprocess.Popen[str], out: Path, load: Load) -> None:
        self._process = process
        self._out = out
        self._load = load

    @property
    def active(self) -> bool:
        """Whether it still sends or waits for answers."""
        return self._process.poll() is None

    def intervals(self) -> list[Interval]:
        """Return what has been reported so far."""
        if not self._out.exists():
            return []
        whole = self._out.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [Interval.model_validate(line) for line in lines if line["type"] == "interval"]

    def stop(self) -> None:
        """Send no more requests; those under way are still answered and counted."""
        self._process.terminate()

    def finish(self) -> Report:
        """Wait for its end and read the report."""
        _, errors = self._process.communicate(timeout=self._load.seconds + 60)
        if self._process.returncode != 0:
            raise LoadError(f"loadgen ended with {self._process.returncode}: {errors.strip()}")
        return read_report(self._out)


@contextmanager
def running(program: Sequence[str], load: Load, out: Path) -> Iterator[Running]:
    """Start the load generator (`program` says where and how); it ends with the block."""
    out.unlink(missing_ok=True)
    process = subprocess.Popen([*program, *load.arguments(out)], stderr=subprocess.PIPE, text=True)
    try:
        yield Running(process, out, load)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=20)

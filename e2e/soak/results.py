"""What a run came to: every failed request is attributed to a fault that may cost it, or counts against Penstock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from e2e.load import Failure


@dataclass(frozen=True)
class Injected:
    """A fault that was injected; `loss_seconds`: for so long after its end requests may fail, None: no request may."""

    name: str
    began: datetime
    ended: datetime
    loss_seconds: float | None
    problem: str = ""  # what did not recover

    def may_cost(self, failure: Failure, timeout: timedelta) -> bool:
        """Return whether a request was under way while this fault may cost requests."""
        if self.loss_seconds is None:
            return False
        until = self.ended + timedelta(seconds=self.loss_seconds)
        return self.began <= failure.time and failure.intended <= until and failure.time <= until + timeout


@dataclass(frozen=True)
class Row:
    """One kind of fault in the table: how often it was injected and the requests that it cost."""

    fault: str
    injected: int
    documented: int
    problems: int


@dataclass(frozen=True)
class Result:
    """The table and what counts against Penstock."""

    rows: tuple[Row, ...]
    undocumented: tuple[Failure, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every failure is documented and everything recovered."""
        return not self.undocumented and not self.problems


def attribute(injected: Sequence[Injected], failures: Sequence[Failure], timeout: timedelta) -> Result:
    """Attribute failures to the latest fault that may cost them; `timeout` is the longest that a request waits."""
    cost = dict.fromkeys(range(len(injected)), 0)
    undocumented = []
    for failure in failures:
        causes = [index for index, fault in enumerate(injected) if fault.may_cost(failure, timeout)]
        if causes:
            cost[causes[-1]] += 1
        else:
            undocumented.append(failure)
    rows = [
        Row(
            fault=name,
            injected=sum(fault.name == name for fault in injected),
            documented=sum(cost[index] for index, fault in enumerate(injected) if fault.name == name),
            problems=sum(bool(fault.problem) for fault in injected if fault.name == name),
        )
        for name in sorted({fault.name for fault in injected})
    ]
    problems = tuple(f"{fault.name} at {fault.began:%H:%M:%S}: {fault.problem}" for fault in injected if fault.problem)
    return Result(tuple(rows), tuple(undocumented), problems)


def around(failure: Failure, injected: Sequence[Injected]) -> str:
    """Return the last fault that began before a request failed, for a message."""
    before = [fault for fault in injected if fault.began <= failure.time]
    if not before:
        return "before the first fault"
    seconds = (failure.time - before[-1].began).total_seconds()
    return f"{seconds:.1f} s after {before[-1].name} began"

"""How `penstock simulate --watch` looks: the servers of a simulation while it runs."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from penstock_rl.evaluation.progress import Moment
    from penstock_rl.scenarios import Scenario

WINDOW = 2.0  # seconds of the scenario that rates and times are of
EVENTS = 6  # the latest ones, that are shown
BAR_CELLS = 12
SHOWN = 40  # servers


@contextmanager
def watching(scenario: Scenario, policy: str, pace: float) -> Iterator[Callable[[Moment], None]]:
    """Yield what shows the moments of a run, so many seconds of the scenario in each second."""
    screen = Screen(scenario, policy)
    began = time.monotonic()
    with Live(console=Console(), screen=True, auto_refresh=False) as live:

        def show(moment: Moment) -> None:
            screen.add(moment)
            live.update(screen.render(), refresh=True)
            time.sleep(max(0.0, began + moment.time / pace - time.monotonic()))

        yield show


class Screen:
    """The latest moments as a table; pure."""

    def __init__(self, scenario: Scenario, policy: str) -> None:
        self._scenario = scenario
        self._policy = policy
        self._moments: deque[Moment] = deque(maxlen=max(1, round(WINDOW / scenario.interval)))
        self._events: deque[str] = deque(maxlen=EVENTS)

    def add(self, moment: Moment) -> None:
        """Take up what happened last."""
        self._moments.append(moment)
        self._events.extend(moment.events)

    def render(self) -> RenderableType:
        """Return the table, with what happened below."""
        last = self._moments[-1]
        length = len(self._moments) * self._scenario.interval
        completed = np.sum([each.completed for each in self._moments], axis=0)
        duration = np.sum([each.duration for each in self._moments], axis=0)
        failed = sum(int(each.failed.sum()) for each in self._moments)
        title = Text.assemble(
            (self._scenario.name, "bold"),
            (f"  {self._policy}", "cyan"),
            f"  {last.time:.1f} of {self._scenario.duration:g} s",
            f"  {completed.sum() / length:,.0f} req/s",
            f"  mean {_milliseconds(duration.sum(), completed.sum())}",
            (f"  failed {failed}" if failed else "", "red"),
        )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("server", "cores", "weight", "", "open", "req/s", "share", "mean"):
            table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
        heaviest = max((weight for weight in last.weights if not math.isnan(weight)), default=0.0)
        for index, group in enumerate(self._scenario.each_server[:SHOWN]):
            weight = last.weights[index]
            table.add_row(
                str(index),
                f"{group.cpus * group.speed:.3g}",
                "-" if math.isnan(weight) else f"{weight:.2f}",
                Text("\u2588" * round(BAR_CELLS * weight / heaviest) if weight > 0 else "", style="cyan"),
                f"{last.flows[index]:,}",
                f"{completed[index] / length:,.1f}",
                f"{completed[index] / max(completed.sum(), 1):.1%}",
                _milliseconds(duration[index], completed[index]),
            )
        return Group(title, Text(""), table, Text(""), *(Text(event, style="yellow") for event in self._events))


def _milliseconds(total: float, count: float) -> str:
    return f"{total / count * 1000:,.1f} ms" if count else "-"

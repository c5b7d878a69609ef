"""Follows the agents while a load runs, by the same `penstock top -o json` that a user has."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from penstock_agent.state import AgentState, Durations, VipView
from penstock_cli.table import render
from rich.console import Console, RenderableType
from rich.live import Live

from e2e.demo.report import Quantiles, Times, WeightSample


class Watch:
    """The agents' latest states, and every weight seen since the last `begin`."""

    def __init__(self, process: subprocess.Popen[str], vip: str, backend_name: Callable[[str], str]) -> None:
        self._process = process
        self._vip = vip
        self._backend_name = backend_name
        self._began = time.monotonic()
        self._samples: list[WeightSample] = []
        self._states: tuple[AgentState, ...] = ()
        self._problems: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Start a new series of weights."""
        with self._lock:
            self._began = time.monotonic()
            self._samples = []

    def samples(self) -> tuple[WeightSample, ...]:
        """Return the weights seen since `begin`."""
        with self._lock:
            return tuple(self._samples)

    def show_until(self, done: Callable[[], bool], console: Console) -> None:
        """Wait until `done`, on a terminal with the live table."""
        if not console.is_terminal:
            while not done():
                time.sleep(0.1)
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not done():
                time.sleep(0.25)
                live.update(self._picture(console.width), refresh=True)

    def _picture(self, width: int) -> RenderableType:
        with self._lock:
            return render(self._states, self._problems, width=width)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answers = json.loads(line)
            states = tuple(AgentState.model_validate(state) for state in answers["agents"])
            with self._lock:
                self._states, self._problems = states, tuple(answers["problems"])
                weights = self._weights(states)
                if weights:
                    self._samples.append(WeightSample(time.monotonic() - self._began, weights))

    def _weights(self, states: tuple[AgentState, ...]) -> dict[str, float]:
        """Return the weights in force."""
        busiest = _busiest(states, self._vip)
        return {
            self._backend_name(str(backend.address)): backend.weight
            for backend in (busiest.backends if busiest else ())
            if backend.weight is not None
        }


def times_of(states: Sequence[AgentState], vip: str, backend_name: Callable[[str], str]) -> dict[str, Times]:
    """Return what the data plane measured of each backend's flows."""
    busiest = _busiest(states, vip)
    return {
        backend_name(str(backend.address)): Times(
            _quantiles(backend.handshake), _quantiles(backend.first_byte), _quantiles(backend.fct)
        )
        for backend in (busiest.backends if busiest else ())
    }


def _busiest(states: Sequence[AgentState], name: str) -> VipView | None:
    """Return the VIP on the node that carries its traffic (with L2 that is one node)."""
    views = [vip for state in states for vip in state.vips if f"{vip.namespace}/{vip.name}" == name]
    return max(views, key=_traffic, default=None)


def _traffic(vip: VipView) -> tuple[float, int]:
    """New flows per second; where the load has just ended, all that there were."""
    return sum(backend.flow_rate for backend in vip.backends), sum(backend.flows for backend in vip.backends)


def _quantiles(durations: Durations | None) -> Quantiles | None:
    return Quantiles(durations.p50 * 1e3, durations.p90 * 1e3) if durations else None


@contextmanager
def watching(command: Sequence[str], vip: str, backend_name: Callable[[str], str]) -> Iterator[Watch]:
    """Run `penstock top -o json` (how to reach it is the command's start) for as long as the block."""
    process = subprocess.Popen([*command, "-o", "json", "--interval", "1"], stdout=subprocess.PIPE, text=True)
    try:
        yield Watch(process, vip, backend_name)
    finally:
        process.terminate()
        process.wait(timeout=10)

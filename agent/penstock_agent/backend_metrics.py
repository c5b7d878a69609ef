"""Metrics of backends as Prometheus' text format, written from arrays: there may be thousands of them.

Everything is gathered VIP by VIP, so that the loop gets its turns in between; families are put together at the end,
because the format wants the samples of a family side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from numpy.typing import NDArray
from penstock_embedded.messages import BackendStatus, Vip

from penstock_agent import samples
from penstock_agent.agent import Agent
from penstock_agent.desired import CoreVip
from penstock_agent.loop import Steering

QUANTILES = (0.5, 0.9)
_QUANTILE_ENDS = tuple(f',quantile="{quantile}"}} ' for quantile in QUANTILES)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of backends: its name in the format, type and meaning."""

    name: str
    type: str
    help: str

    def head(self) -> str:
        """Return the lines that come before the samples."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.type}\n"


OPEN_FLOWS = Family("penstock_backend_open_flows", "gauge", "Flows that are open.")
WEIGHT = Family("penstock_backend_weight", "gauge", "Weight written to the data plane.")
POLICY_WEIGHT = Family("penstock_backend_policy_weight", "gauge", "Weight that the policy wants, within guardrails.")
BASE = Family(
    "penstock_backend_base",
    "gauge",
    "Flows added to the backend's count by sed and p2c, written to the data plane; 0: the data plane's own base.",
)
POLICY_BASE = Family("penstock_backend_policy_base", "gauge", "Base that the policy wants, within guardrails.")
HEALTHY = Family("penstock_backend_healthy", "gauge", "1 while the backend passes its checks.")
FLOWS = Family("penstock_backend_flows_total", "counter", "Flows assigned.")
PACKETS = Family("penstock_backend_packets_total", "counter", "Packets in both directions.")
BYTES = Family("penstock_backend_bytes_total", "counter", "Bytes in both directions.")
# Quantiles as a summary shows them; its sum and count would be of the reservoir only, so they are left out.
FCT = Family("penstock_backend_fct_seconds", "summary", "Completion times of flows, from the reservoir.")
FLOW_DURATION = Family(
    "penstock_backend_flow_duration_seconds", "summary", "Ages of flows at each packet, from the reservoir."
)
# Of the next, a VIP has samples only at feature level full.
ACTIVE_FLOWS = Family("penstock_backend_active_flows", "gauge", "Flows with a request outstanding.")
REQUESTS = Family("penstock_backend_requests_total", "counter", "Requests answered, see n_turn in docs/features.md.")
HANDSHAKE = Family(
    "penstock_backend_handshake_seconds", "summary", "Times until the server answered a SYN, from the reservoir."
)
FIRST_BYTE = Family(
    "penstock_backend_first_byte_seconds",
    "summary",
    "Times from a flow's first payload to the server's first answer, from the reservoir.",
)

COUNTERS = ((OPEN_FLOWS, "n_flow_on"), (FLOWS, "n_flow"), (PACKETS, "packets"), (BYTES, "bytes"))
COUNTERS_AT_FULL = ((ACTIVE_FLOWS, "n_active"), (REQUESTS, "n_turn"))
DURATIONS = ((FCT, "fct"), (FLOW_DURATION, "flow_duration"), (HANDSHAKE, "lat_synack"), (FIRST_BYTE, "pt_1st"))
FAMILIES = (
    OPEN_FLOWS,
    ACTIVE_FLOWS,
    WEIGHT,
    POLICY_WEIGHT,
    BASE,
    POLICY_BASE,
    HEALTHY,
    FLOWS,
    REQUESTS,
    PACKETS,
    BYTES,
    FCT,
    FLOW_DURATION,
    HANDSHAKE,
    FIRST_BYTE,
)


class BackendMetrics:
    """Writes the families of all backends; keeps the labels, which are the larger part of the text."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._labels: dict[str, tuple[object, dict[str, str]]] = {}

    async def render(self) -> bytes:
        """Write all families."""
        texts: dict[Family, list[str]] = {family: [family.head()] for family in FAMILIES}
        plan, outcome = self._agent.plan, self._agent.outcome
        known, self._labels = self._labels, {}
        if plan is not None and outcome is not None:
            dumped = {vip.id: vip.backends for vip in self._agent.link.dump.vips} if self._agent.link.dump else {}
            for core, vip in list(zip(plan.vips, outcome.state.vips, strict=True)):
                leaving = _leaving(vip, dumped.get(vip.id, ()))
                labels = self._labels[vip.id] = _labels_of(core, vip, leaving, known.get(vip.id))
                _Writer(self._agent, core, labels[1], texts).write()
                await asyncio.sleep(0)
        parts = []
        for family in FAMILIES:
            parts.append("".join(texts.pop(family)).encode())
            await asyncio.sleep(0)
        return b"".join(parts)


def _leaving(vip: Vip, held: Iterable[BackendStatus]) -> tuple[BackendStatus, ...]:
    """Backends that are not wanted any more, but still have flows."""
    wanted = {backend.id for backend in vip.backends}
    return tuple(status for status in held if status.id not in wanted)


def _labels_of(
    core: CoreVip, vip: Vip, leaving: Sequence[BackendStatus], known: tuple[object, dict[str, str]] | None
) -> tuple[object, dict[str, str]]:
    """Labels by backend id, made anew only where the VIP or its backends are not the same."""
    places = (core.owner.namespace, core.owner.name, vip.port, vip.protocol, vip.addresses[0].version)
    backends = [(b.id, b.address, b.port) for b in vip.backends] + [(s.id, s.address, s.port) for s in leaving]
    source = places, backends
    if known is not None and known[0] == source:
        return known
    namespace, name, port, protocol, version = places
    rest = f'family="IPv{version}",namespace="{namespace}",port="{port}",protocol="{protocol}",vip="{name}"'
    return source, {key: f'backend="{host_port(address, port)}",{rest}' for key, address, port in backends}


def host_port(address: IPv4Address | IPv6Address, port: int) -> str:
    """Write an address with a port, IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the samples of one core VIP."""

    agent: Agent
    core: CoreVip
    labels: dict[str, str]  # by backend id
    texts: dict[Family, list[str]]

    def write(self) -> None:
        self._health()
        steering = self.agent.loop.vips.get(self.core.vip.id)
        slots = {b: slot for slot, b in enumerate(steering.vip.slots.backends) if b} if steering else {}
        placed = [(text, slots[key]) for key, text in self.labels.items() if key in slots]
        self._counters(steering, placed, [text for key, text in self.labels.items() if key not in slots])
        if steering is not None:
            self._column(WEIGHT, placed, steering.weights)
            self._column(POLICY_WEIGHT, placed, steering.wanted)
            self._column(BASE, placed, steering.base)
            self._column(POLICY_BASE, placed, steering.wanted_base)
            for family, channel in DURATIONS:
                self._quantiles(family, channel, steering, placed)

    def _health(self) -> None:
        states, targets = self.agent.checker.states, self.core.targets
        well = (
            (text, (target := targets.get(key)) is None or target not in states or states[target].healthy)
            for key, text in self.labels.items()
        )
        self._add(HEALTHY, [f"{HEALTHY.name}{{{text}}} {int(value)}\n" for text, value in well])

    def _counters(self, steering: Steering | None, placed: Sequence[tuple[str, int]], unplaced: Sequence[str]) -> None:
        frame = steering.frame if steering else None
        for family, counter in COUNTERS:
            name = family.name
            # Which counters there are is up to the VIP's feature level.
            values = frame.counters.get(counter) if frame else None
            column = values.clip(min=0).tolist() if values is not None else []
            size = len(column)
            lines = [f"{name}{{{text}}} {column[slot] if slot < size else 0}\n" for text, slot in placed]
            self._add(family, lines + [f"{name}{{{text}}} 0\n" for text in unplaced])
        for family, counter in COUNTERS_AT_FULL:
            if frame is not None and counter in frame.counters:
                self._column(family, placed, frame.counters[counter].clip(min=0))

    def _column(self, family: Family, placed: Sequence[tuple[str, int]], values: NDArray[Any] | None) -> None:
        if values is not None:
            name, column = family.name, values.tolist()
            size = len(column)
            self._add(family, [f"{name}{{{text}}} {column[slot]}\n" for text, slot in placed if slot < size])

    def _quantiles(self, family: Family, channel: str, steering: Steering, placed: Sequence[tuple[str, int]]) -> None:
        if steering.reader is None:
            return
        try:
            values, _, valid, seen = steering.reader.samples(channel)
        except (KeyError, ValueError):
            return  # not measured at this VIP's feature level
        rows = [(text, slot) for text, slot in placed if slot < len(values)]
        chosen = [slot for _, slot in rows]
        found = samples.quantiles(values[chosen], valid[chosen], seen[chosen], QUANTILES).tolist()
        start, (low_end, high_end) = f"{family.name}{{", _QUANTILE_ENDS
        self._add(
            family,
            [
                # Samples have the precision of single floats; these lines are the larger part of a scrape's cost.
                f"{start}{text}{low_end}{low:.6g}\n{start}{text}{high_end}{high:.6g}\n"
                for (text, _), (low, high) in zip(rows, found, strict=True)
                if low == low  # not-a-number: no sample yet
            ],
        )

    def _add(self, family: Family, lines: list[str]) -> None:
        self.texts[family].append("".join(lines))

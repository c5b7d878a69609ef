"""Prometheus metrics of agent, data plane and VIPs: a collector that turns one `AgentState` into metric families, so
that both always say the same. Those of backends are many, and written by `backend_metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_agent.state import AgentState, VipView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

VIP_LABELS = ("namespace", "vip", "port", "protocol", "family")


def render(state: AgentState) -> bytes:
    """Write the state in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class StateCollector(Collector):
    """All metrics of one state but those of backends."""

    def __init__(self, state: AgentState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield from self._agent()
        yield from self._data_plane()
        yield from self._vips()

    def _agent(self) -> Iterator[Metric]:
        state = self._state
        info = GaugeMetricFamily("penstock_agent_info", "Version and place.", labels=("version", "node", "dataplane"))
        info.add_metric((state.version, state.node, state.dataplane), 1)
        yield info
        yield CounterMetricFamily("penstock_agent_loop_turns", "Turns of the loop over all VIPs.", value=state.turns)
        yield _gauge("agent_loop_seconds", "Time of the last turn of the loop over all VIPs.", state.turn_seconds)
        yield _gauge("agent_loop_late_seconds", "Time by which the last turn began late.", state.late_seconds)
        yield _gauge("agent_health_lag_seconds", "Time by which the last health check began late.", state.health_lag)
        yield CounterMetricFamily("penstock_agent_health_checks", "Health checks done.", value=state.health_checks)
        yield CounterMetricFamily(
            "penstock_agent_health_checks_unmade",
            "Health checks that this machine could not make, for want of descriptors, ports or memory.",
            value=state.health_unmade,
        )
        yield _gauge("agent_findings", "Findings about this node itself; /state names them.", len(state.findings))
        yield _gauge("agent_settled", "1 while the data plane has the desired state.", state.settled)
        yield CounterMetricFamily("penstock_agent_applies", "States sent to the data plane.", value=state.applies)
        yield CounterMetricFamily(
            "penstock_agent_apply_failures", "States that were refused in whole or part.", value=state.apply_failures
        )
        yield _gauge("agent_source_error", "1 while the source cannot be read.", bool(state.source_error))
        ages = GaugeMetricFamily(
            "penstock_agent_watch_age_seconds", "Time since a watch was last known to be current.", labels=("watch",)
        )
        for watch, age in state.source_ages.items():
            ages.add_metric((watch,), age)
        yield ages
        yield _gauge("agent_announced_addresses", "Addresses that this node announces.", len(state.announced))

    def _data_plane(self) -> Iterator[Metric]:
        link = self._state.link
        yield _gauge("dataplane_connected", "1 while the control socket answers.", link.connected)
        yield _gauge("dataplane_flows", "Flows held.", link.flows)
        yield _gauge("dataplane_flow_capacity", "Flows that can be held.", link.flow_capacity)
        yield _gauge("dataplane_half_open_flows", "Flows whose handshake is not done.", link.half_open)
        yield CounterMetricFamily("penstock_dataplane_packets", "Packets seen.", value=link.packets)
        yield CounterMetricFamily("penstock_dataplane_forwarded_packets", "Packets forwarded.", value=link.forwarded)
        yield CounterMetricFamily(
            "penstock_dataplane_recycled_flows",
            "Half-open flows that made room for new ones before their handshake or time-out ended.",
            value=link.recycled,
        )
        yield CounterMetricFamily(
            "penstock_dataplane_evicted_flows",
            "Open flows that made room for new ones, for they had been silent for longest.",
            value=link.evicted,
        )
        yield CounterMetricFamily(
            "penstock_dataplane_queue_dropped_packets",
            "Packets that found the queue to the data plane full.",
            value=link.queue_dropped,
        )
        dropped = CounterMetricFamily("penstock_dataplane_dropped_packets", "Packets dropped.", labels=("reason",))
        for reason, count in link.dropped.items():
            dropped.add_metric((reason,), count)
        yield dropped

    def _vips(self) -> Iterator[Metric]:
        age = GaugeMetricFamily("penstock_vip_frame_age_seconds", "Age of the newest frame.", labels=VIP_LABELS)
        fallback = GaugeMetricFamily(
            "penstock_vip_fallback", "1 while the fallback sets the weights.", labels=(*VIP_LABELS, "policy", "reason")
        )
        fail_open = GaugeMetricFamily(
            "penstock_vip_fail_open", "1 while all backends fail their checks and are used.", labels=VIP_LABELS
        )
        panic = GaugeMetricFamily(
            "penstock_vip_panic", "1 while backends with late checks are used, because few pass.", labels=VIP_LABELS
        )
        no_path = GaugeMetricFamily(
            "penstock_vip_no_path", "1 while clients get no packet of any backend, though some pass.", labels=VIP_LABELS
        )
        steps = CounterMetricFamily(
            "penstock_vip_decisions", "Decisions by outcome: active, or why not.", labels=(*VIP_LABELS, "outcome")
        )
        held = CounterMetricFamily(
            "penstock_vip_guarded_weights",
            "Weights and bases that a guardrail held back.",
            labels=(*VIP_LABELS, "guardrail"),
        )
        errors = CounterMetricFamily(
            "penstock_vip_write_errors", "Weights that could not be written.", labels=VIP_LABELS
        )
        for vip in self._state.vips:
            labels = _labels(vip)
            if vip.frame_age is not None:
                age.add_metric(labels, vip.frame_age)
            fallback.add_metric((*labels, vip.policy, vip.fallback_reason), bool(vip.fallback_reason))
            fail_open.add_metric(labels, vip.fail_open)
            panic.add_metric(labels, vip.panic)
            no_path.add_metric(labels, vip.no_path)
            errors.add_metric(labels, vip.write_errors)
            for outcome, count in vip.steps.items():
                steps.add_metric((*labels, outcome), count)
            for guardrail, count in vip.held.items():
                held.add_metric((*labels, guardrail), count)
        yield from (age, fallback, fail_open, panic, no_path, steps, held, errors)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", text, value=float(value))


def _labels(vip: VipView) -> tuple[str, ...]:
    return vip.namespace, vip.name, str(vip.port), vip.protocol, f"IPv{vip.addresses[0].version}"

"""Status of a VIP: what was decided, and how far its nodes are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock_api import (
    Condition,
    DataPlane,
    DataPlaneNode,
    LoadBalancerVIP,
    PolicyStatus,
    PolicySummary,
    Reason,
    RLPolicy,
    VipAnnouncement,
    VipNodes,
    VipReport,
    VipStatus,
    VipSummary,
    get_condition,
    set_condition,
)
from penstock_api.conditions import ConditionStatus, ConditionType
from penstock_api.dataplanenodereport import FindingReason, PortReport
from penstock_api.names import PAUSED_ANNOTATION
from pydantic import ValidationError

from penstock_operator.plan.acceptance import Verdict
from penstock_operator.plan.facts import NodeFacts
from penstock_operator.plan.heartbeats import NO_BEATS, Beats
from penstock_operator.plan.nodes import works

ADDRESSES_CHANGED = "AddressesChanged"
"""Reason of the Event when a VIP leaves an address."""

ANNOUNCED = "Announced"
"""Reason of the Event when another node announces an address."""

WAITING: frozenset[str] = frozenset({Reason.PROGRESSING, Reason.PENDING, Reason.NO_READY_NODES, Reason.NODES_FAILING})
"""Reasons that end without a change by the user."""

NODE_FAULTS: frozenset[str] = frozenset({FindingReason.REFUSED, FindingReason.INTERNAL})
"""Findings of agents whose cause is the node; the cause of all others is an object that the user can change."""

ANNOUNCEMENTS_LIMIT = 64
NAMES_SHOWN = 3
TEXT_LIMIT = 256  # of the summary's strings


@dataclass(frozen=True)
class NodeView:
    """One load-balancing node as one VIP sees it."""

    name: str
    ready: bool
    report: VipReport | None


@dataclass(frozen=True)
class Finding:
    """Status, reason and message of one condition."""

    status: ConditionStatus
    reason: str
    message: str

    @property
    def true(self) -> bool:
        """Whether the condition holds."""
        return self.status is ConditionStatus.TRUE


def _finding(status: bool, reason: str, message: str) -> Finding:
    return Finding(ConditionStatus.TRUE if status else ConditionStatus.FALSE, reason, message)


def node_views(
    nodes: Mapping[str, DataPlaneNode],
    facts: Mapping[str, NodeFacts],
    reports: Mapping[str, VipReport],
    beats: Beats = NO_BEATS,
) -> list[NodeView]:
    """Join a DataPlane's nodes with what they report of one VIP; `reports` is by node name."""
    return [
        NodeView(
            name=node.spec.node_name,
            ready=works(facts.get(node.spec.node_name), node, beats),
            report=reports.get(node.spec.node_name),
        )
        for _, node in sorted(nodes.items())
        if not node.deleting
    ]


def vip_status(vip: LoadBalancerVIP, verdict: Verdict, nodes: list[NodeView], now: datetime) -> VipStatus:
    """Return the status of a VIP that isn't paused."""
    generation = vip.metadata.generation
    accepted = _accepted(verdict)
    programmed = _programmed(nodes, verdict, generation)
    ready = _ready(accepted, programmed, nodes)
    conditions = _conditions(vip.status.conditions, accepted, programmed, ready, generation, now)
    stalled = accepted if not accepted.true else programmed
    stuck = not accepted.true or (not programmed.true and programmed.reason not in WAITING)
    waiting = accepted.true and not programmed.true and not stuck
    conditions = set_condition(
        conditions, ConditionType.RECONCILING, waiting, Reason.PROGRESSING, programmed.message, generation, now
    )
    conditions = set_condition(
        conditions, ConditionType.STALLED, stuck, stalled.reason, stalled.message, generation, now
    )
    return VipStatus(
        observed_generation=generation,
        conditions=conditions,
        data_plane_name=verdict.data_plane.metadata.name if verdict.data_plane else None,
        addresses=verdict.addresses,
        ports=verdict.ports if verdict.addresses else (),
        address_pool=verdict.address_pool if verdict.addresses else None,
        nodes=_counts(nodes, generation),
        announcements=_announcements(verdict, nodes),
        summary=_summary(vip, verdict, nodes),
    )


def _announcements(verdict: Verdict, nodes: list[NodeView]) -> tuple[VipAnnouncement, ...]:
    found = [
        VipAnnouncement(address=address, node_name=node.name)
        for address in verdict.addresses
        for node in nodes
        if node.ready and node.report and address in node.report.announces
    ]
    return tuple(found[:ANNOUNCEMENTS_LIMIT])


def new_announcers(before: VipStatus, after: VipStatus) -> str:
    """Say which nodes announce addresses that they did not announce before; empty where there is none."""
    new = [each for each in after.announcements if each not in before.announcements]
    return ", ".join(f"{each.address} is announced by node {each.node_name}" for each in new)


def address_change(before: VipStatus, after: VipStatus) -> str:
    """Say which addresses a VIP left and which it has instead; empty where it left none."""
    left = [str(address) for address in before.addresses if address not in after.addresses]
    new = [str(address) for address in after.addresses if address not in before.addresses]
    if not left:
        return ""
    return f"{', '.join(left)} is given up, {', '.join(new) or 'no address'} is held instead"


def paused_status(vip: LoadBalancerVIP, nodes: list[NodeView], now: datetime) -> VipStatus:
    """Return the status of a paused VIP: all that was decided stays, and the pause shows."""
    before = vip.status
    seen = before.observed_generation
    message = f"{PAUSED_ANNOTATION} is set: nothing changes until the annotation is removed"
    accepted = get_condition(before.conditions, ConditionType.ACCEPTED)
    serving = accepted is not None and bool(before.addresses)
    ready = get_condition(before.conditions, ConditionType.READY)
    status = ready.status if serving and ready else ConditionStatus.FALSE
    conditions = set_condition(before.conditions, ConditionType.READY, status, Reason.PAUSED, message, seen, now)
    pending = vip.metadata.generation != seen
    conditions = set_condition(conditions, ConditionType.RECONCILING, pending, Reason.PAUSED, message, seen, now)
    summary = before.summary.model_copy(update={"backends": _backends(nodes) or before.summary.backends})
    return before.model_copy(update={"conditions": conditions, "summary": summary})


def invalid_status(vip_status: VipStatus, generation: int, message: str, now: datetime) -> VipStatus:
    """Return the status of a VIP that can't be read; what it holds stays."""
    refused = _finding(False, Reason.INVALID_SPEC, message)
    conditions = _conditions(vip_status.conditions, refused, None, refused, generation, now)
    conditions = set_condition(conditions, ConditionType.STALLED, True, Reason.INVALID_SPEC, message, generation, now)
    return vip_status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def read_status(raw: Mapping[str, Any] | None) -> VipStatus:
    """Read the status of a VIP whose spec can't be read; an empty one if that can't be read either."""
    try:
        return VipStatus.model_validate_json(json.dumps(raw or {}))
    except ValidationError:
        return VipStatus()


def policy_status(policy: RLPolicy, users: int, now: datetime) -> PolicyStatus:
    """Return the status of a policy: its spec was validated on arrival, so it is accepted as it stands."""
    generation = policy.metadata.generation
    message = "no VIP uses the policy yet" if not users else "in use"
    conditions = policy.status.conditions
    for type_ in (ConditionType.ACCEPTED, ConditionType.READY):
        reason = Reason.ACCEPTED if type_ is ConditionType.ACCEPTED else Reason.READY
        conditions = set_condition(conditions, type_, True, reason, message, generation, now)
    return PolicyStatus(
        observed_generation=generation,
        conditions=conditions,
        summary=PolicySummary(mode=policy.spec.mode, vips=str(users)),
    )


def _conditions(
    before: tuple[Condition, ...],
    accepted: Finding,
    programmed: Finding | None,
    ready: Finding,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    found = {
        ConditionType.ACCEPTED: accepted,
        ConditionType.PROGRAMMED: programmed,
        ConditionType.READY: ready,
    }
    conditions = before
    for type_, finding in found.items():
        if finding is not None:
            conditions = set_condition(
                conditions, type_, finding.status, finding.reason, finding.message, generation, now
            )
    return conditions


def _accepted(verdict: Verdict) -> Finding:
    if verdict.problem:
        return _finding(False, verdict.problem.reason, verdict.problem.message)
    if verdict.warnings:
        first = verdict.warnings[0]
        return _finding(True, first.reason, "; ".join(warning.message for warning in verdict.warnings))
    return _finding(True, Reason.ACCEPTED, "the spec is valid and its addresses are held")


def _programmed(nodes: list[NodeView], verdict: Verdict, generation: int) -> Finding:
    if verdict.data_plane is None and verdict.problem:
        return _finding(False, verdict.problem.reason, verdict.problem.message)
    if verdict.data_plane is None or not verdict.addresses:
        return _finding(False, Reason.PENDING, "there is no address to program yet; see the condition Accepted")
    ready = [node for node in nodes if node.ready]
    if not ready:
        return _no_ready_node(verdict.data_plane, len(nodes))
    if fault := _fault(ready):
        return fault
    behind = [node.name for node in ready if not _has(node, generation)]
    if behind:
        message = f"waiting for {_some(behind)}: {len(ready) - len(behind)} of {len(ready)} nodes forward this spec"
        return _finding(False, Reason.PROGRESSING, message)
    return _finding(True, Reason.PROGRAMMED, f"{len(ready)} of {len(ready)} Ready nodes forward as the spec says")


def _no_ready_node(data_plane: DataPlane, selected: int) -> Finding:
    """Say that nothing forwards; at a first start that is no fault."""
    name = data_plane.metadata.name
    ready = get_condition(data_plane.status.conditions, ConditionType.READY)
    if ready is None or ready.reason in (Reason.PENDING, Reason.PROGRESSING):
        return _finding(False, Reason.PROGRESSING, f"waiting for DataPlane {name}: its nodes are starting")
    message = f"DataPlane {name} has no Ready node ({selected} selected); see `kubectl get dp,dpn`"
    return _finding(False, Reason.NO_READY_NODES, message)


def _fault(ready: list[NodeView]) -> Finding | None:
    """Return why nodes do not forward as the spec says: a fault of an object first, for all nodes have it alike."""
    for node in ready:
        for port in node.report.ports if node.report else ():
            if port.kept:
                return _finding(False, port.reason, f"{_port_name(port)}: {port.message}")
        finding = node.report.findings[0] if node.report and node.report.error and node.report.findings else None
        if finding is not None and finding.reason not in NODE_FAULTS:
            return _finding(False, finding.reason, _with_field(finding.field, finding.message))
    failing = [node for node in ready if node.report and node.report.error]
    if not failing:
        return None
    error = failing[0].report.error if failing[0].report else ""
    more = f" (and {len(failing) - 1} more nodes)" if failing[1:] else ""
    return _finding(False, Reason.NODES_FAILING, f"node {failing[0].name}: {error}{more}")


def _with_field(field: str, message: str) -> str:
    return message if not field or field in message else f"{field}: {message}"


def _port_name(port: PortReport) -> str:
    return f"port {port.port}/{port.protocol}"


def _ready(accepted: Finding, programmed: Finding, nodes: list[NodeView]) -> Finding:
    """Say whether clients are served."""
    if not accepted.true:
        return _finding(False, accepted.reason, accepted.message)
    reports = _that_clients_meet(nodes)
    # A node that is behind forwards the spec before this one, or does not take part yet: traffic is served.
    if not reports or (not programmed.true and programmed.reason in WAITING - {Reason.PROGRESSING}):
        return _finding(False, programmed.reason, programmed.message)
    unserved = [_unserved(report) for report in reports]
    first = next(filter(None, unserved), None)
    faulty = not programmed.true and programmed.reason not in WAITING
    if first is not None and all(unserved):
        unspecific = first.reason == Reason.NO_BACKENDS and faulty
        return _finding(False, programmed.reason, programmed.message) if unspecific else first
    warning = next((report.warning for report in reports if report.warning), "traffic is served")
    return _finding(True, Reason.READY, programmed.message if faulty else warning)


def _that_clients_meet(nodes: list[NodeView]) -> list[VipReport]:
    """Return the reports of the nodes that clients reach: those that announce, where any does."""
    reports = [node.report for node in nodes if node.ready and node.report]
    return [report for report in reports if report.announces] or reports


def _unserved(report: VipReport) -> Finding | None:
    """Return why a node serves no client of one of the VIP's ports."""
    for port in report.ports:
        if not port.ready:
            reason = Reason.FAIL_OPEN if port.reason == FindingReason.ALL_UNHEALTHY else port.reason
            message = port.message or "it has no backends; check the Service's selector and its pods"
            return _finding(False, reason or Reason.NO_BACKENDS, f"{_port_name(port)}: {message}")
    if report.ready:
        return None
    if report.total:
        message = report.warning or "no backend passes its health check; see spec.healthCheck and the servers' logs"
        return _finding(False, Reason.FAIL_OPEN if report.warning else Reason.NO_BACKENDS, message)
    return _finding(False, Reason.NO_BACKENDS, "there are no backends; check the Service's selector and its pods")


def _has(node: NodeView, generation: int) -> bool:
    return node.report is not None and node.report.generation >= generation


def _counts(nodes: list[NodeView], generation: int) -> VipNodes:
    ready = [node for node in nodes if node.ready]
    programmed = [node for node in ready if _has(node, generation) and node.report and not node.report.error]
    return VipNodes(selected=len(nodes), ready=len(ready), programmed=len(programmed))


def _summary(vip: LoadBalancerVIP, verdict: Verdict, nodes: list[NodeView]) -> VipSummary:
    return VipSummary(
        addresses=_fit(",".join(map(str, verdict.addresses))),
        ports=_fit(",".join(f"{port.port}/{port.protocol}" for port in vip.spec.ports)),
        backends=_backends(nodes),
        policy=_policy(nodes),
    )


def _backends(nodes: list[NodeView]) -> str:
    """Return the backends of the node that sees the fewest: what a client may meet at worst."""
    reports = [node.report for node in nodes if node.ready and node.report]
    if not reports:
        return ""
    worst = min(reports, key=lambda report: (report.ready, -report.total))
    return f"{worst.ready}/{worst.total}"


def _policy(nodes: list[NodeView]) -> str:
    shown = sorted(
        {
            f"{node.report.policy} ({node.report.mode})" if node.report.mode else node.report.policy
            for node in nodes
            if node.ready and node.report and node.report.policy
        }
    )
    return _fit(", ".join(shown))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else shown


def _fit(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 3] + "..."

"""What an agent reports of its node: one entry per VIP in shards of 100, and the status of its DataPlaneNode.

Computation only; `reporting` writes what these functions say when it differs from what was written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock_api.conditions import Condition, ConditionType, set_condition
from penstock_api.conditions import Reason as ConditionReason
from penstock_api.dataplanenode import (
    FAILING_LIMIT,
    DataPlaneNode,
    DataPlaneNodeStatus,
    FailingVip,
    NodeSummary,
    NodeVips,
)
from penstock_api.dataplanenodereport import (
    FINDINGS_LIMIT,
    SHARD_SIZE,
    SHARDS_MAX,
    Finding,
    FindingReason,
    NodeReport,
    PortReport,
    VipReport,
)
from penstock_api.fields import Protocol, family_of
from penstock_api.names import report_name
from penstock_embedded.messages import ApplyResult, Backend, BackendState, Hello, Stats, Vip

from penstock_agent.announcer import Address, sort_addresses
from penstock_agent.desired import CoreVip, Findings, Plan
from penstock_agent.endpoints import finding
from penstock_agent.health_overlay import WithHealth
from penstock_agent.loop import Reason
from penstock_agent.shortages import Shortage, describe

TEXT_LIMIT = 1024  # characters of an error in an object
SHARD_BYTES = 500_000  # of reports in one object: etcd refuses objects above 1.5 MiB


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a core VIP has used its fallback for a while."""

    reason: Reason
    error: str


def vip_reports(
    plan: Plan,
    outcome: WithHealth,
    in_force: Mapping[str, int],
    result: ApplyResult | None,
    troubles: Mapping[str, Trouble],
) -> tuple[VipReport, ...]:
    """Say how each VIP is; `in_force` are the data plane's generations by uid, `troubles` is by core VIP."""
    cores: defaultdict[str, list[tuple[CoreVip, Vip]]] = defaultdict(list)
    for core, vip in zip(plan.vips, outcome.state.vips, strict=True):
        cores[core.owner.uid].append((core, vip))
    refusals = {r.id: r.error.message for r in result.vips if r.error} if result else {}
    warnings = {r.id: r.warnings for r in result.vips} if result else {}
    reports = []
    for found in plan.findings:
        owned = cores.get(found.owner.uid, [])
        refused = [refusals[core.vip.id] for core, _ in owned if core.vip.id in refusals]
        noted = [text for core, _ in owned for text in warnings.get(core.vip.id, ())]
        noted += _troubles(owned, troubles)
        reports.append(_report(found, owned, outcome, in_force, refused, noted))
    return tuple(reports)


def _report(
    found: Findings,
    owned: Sequence[tuple[CoreVip, Vip]],
    outcome: WithHealth,
    in_force: Mapping[str, int],
    refused: Sequence[str],
    noted: Sequence[str],
) -> VipReport:
    taking = {b.id for core, _ in owned for b in _taking(core)}
    sick = {b.id for core, _ in owned for b in _taking(core) if b.id not in outcome.well.get(core.vip.id, frozenset())}
    policy = owned[0][0].policy if owned else None
    owner = found.owner
    checks = [each for core, _ in owned if (each := _failing_checks(core, outcome)) is not None]
    pathless = [_no_path(core) for core, _ in owned if core.vip.id in outcome.no_path]
    faults = [*found.faults, *(finding(FindingReason.REFUSED, text) for text in refused), *pathless]
    notes = [*found.notes, *checks, *(finding(FindingReason.POLICY, text) for text in noted)]
    return VipReport(
        namespace=owner.namespace,
        name=owner.name,
        uid=owner.uid,
        generation=in_force.get(owner.uid, 0),
        ready=len(taking - sick),
        total=len(taking),
        policy=policy.heuristic if policy else "",
        mode=policy.mode if policy else "",
        error=_text(each.message for each in faults),
        warning=_text(each.message for each in notes),
        ports=tuple(_port(core, outcome) for core, _ in owned),
        findings=tuple(dict.fromkeys([*faults, *notes]))[:FINDINGS_LIMIT],
    )


def _taking(core: CoreVip) -> list[Backend]:
    """Return the backends that may take new flows, whether or not they are healthy."""
    return [b for b in core.vip.backends if b.state is BackendState.ACTIVE and b.weight > 0]


def _port(core: CoreVip, outcome: WithHealth) -> PortReport:
    taking = _taking(core)
    well = outcome.well.get(core.vip.id, frozenset())
    why = core.shortfall
    if why is None and outcome.used_instead(core.vip.id):
        why = _failing_checks(core, outcome)
    pathless = core.vip.id in outcome.no_path
    if why is None and pathless:
        why = _no_path(core)
    return PortReport(
        port=core.vip.port,
        protocol=Protocol(core.vip.protocol),
        family=family_of(core.vip.addresses[0]),
        total=len(taking),
        ready=0 if pathless else sum(backend.id in well for backend in taking),
        kept=core.kept,
        reason=why.reason if why else "",
        message=why.message if why else "",
    )


def _failing_checks(core: CoreVip, outcome: WithHealth) -> Finding | None:
    """Return what failed health checks make of a core VIP where all or most backends fail them."""
    port = _port_text(core)
    if used := outcome.used_instead(core.vip.id):
        message = f"all backends of port {port} fail their health checks; {used}"
        fix = "check the backends, or spec.healthCheck if they do serve"
        return finding(FindingReason.ALL_UNHEALTHY, f"{message}: {fix}", "spec.healthCheck")
    if core.vip.id in outcome.panic:
        message = (
            f"fewer than {core.rules.panic_percent} % of the backends of port {port} pass their health checks, so "
            "those whose checks are late are used too: add backends, or look at what slows them down"
        )
        return finding(FindingReason.FEW_HEALTHY, message, "spec.healthCheck.panicPercent")
    return None


def _no_path(core: CoreVip) -> Finding:
    message = (
        f"backends of port {_port_text(core)} pass their health checks, but clients get no packet of theirs: let the "
        "firewall of this node forward packets to and from the backends (chain FORWARD), and check the routes"
    )
    return finding(FindingReason.NO_PATH, message)


def _port_text(core: CoreVip) -> str:
    return f"{core.vip.port}/{core.vip.protocol}"


def _troubles(owned: Sequence[tuple[CoreVip, Vip]], troubles: Mapping[str, Trouble]) -> Iterable[str]:
    for core, _ in owned:
        trouble = troubles.get(core.vip.id)
        if trouble is not None:
            policy = core.policy
            yield f"policy {policy.heuristic}: {trouble.reason}, fallback {policy.fallback} is used: {trouble.error}"


def with_announcements(
    entries: Iterable[VipReport], plan: Plan, announced: Collection[Address]
) -> tuple[VipReport, ...]:
    """Add the addresses that the node announces to the reports of their VIPs."""
    addresses: defaultdict[str, set[Address]] = defaultdict(set)
    for core in plan.vips:
        addresses[core.owner.uid].update(a for a in core.vip.addresses if a in announced)
    return tuple(entry.model_copy(update={"announces": sort_addresses(addresses[entry.uid])}) for entry in entries)


def _text(parts: Iterable[str]) -> str:
    text = "; ".join(dict.fromkeys(parts))
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 3] + "..."


def shards(node: DataPlaneNode, reports: Sequence[VipReport]) -> dict[str, NodeReport]:
    """Cut reports into objects, by name; a node without VIPs has one, which is empty.

    What does not fit into the objects that a node may have is left out.
    """
    cut = list(_cut(reports)) or [()]
    return {
        report_name(node.metadata.name, index): NodeReport(
            node_name=node.spec.node_name, data_plane_name=node.spec.data_plane_name, vips=tuple(shard)
        )
        for index, shard in enumerate(cut[:SHARDS_MAX])
    }


def _cut(reports: Sequence[VipReport]) -> Iterator[Sequence[VipReport]]:
    """Cut where an object has as many VIPs, or as much text, as one can have."""
    first, size = 0, 0
    for index, report in enumerate(reports):
        own = _size(report)
        if index > first and (index - first == SHARD_SIZE or size + own > SHARD_BYTES):
            yield reports[first:index]
            first, size = index, 0
        size += own
    if reports:
        yield reports[first:]


def _size(report: VipReport) -> int:
    """Return about how many bytes of JSON a report is, at most."""
    texts = [report.error, report.warning, *(found.message for found in report.findings)]
    texts += [port.message for port in report.ports]
    return 400 + 150 * (len(report.ports) + len(report.findings)) + sum(map(len, texts))


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node's status is made of."""

    hello: Hello | None
    stats: Stats | None
    link_error: str
    source_error: str
    findings: Sequence[str]
    result: ApplyResult | None
    settled: bool
    troubles: Mapping[str, Trouble]
    shortages: Sequence[Shortage]
    agent_version: str


def node_status(
    node: DataPlaneNode, reports: Sequence[VipReport], facts: NodeFacts, now: datetime
) -> DataPlaneNodeStatus:
    """Say how the node is, going on from the status it has."""
    failing = [report for report in reports if report.error]
    before, stats = node.status, facts.stats
    programmed = len(reports) - len(failing)
    return DataPlaneNodeStatus(
        observed_generation=node.metadata.generation,
        conditions=_conditions(node, facts, now),
        instance_id=facts.hello.instance_id if facts.hello else before.instance_id,
        version=facts.hello.version if facts.hello else before.version,
        agent_version=facts.agent_version,
        flows=stats.flows if stats else 0,
        flow_capacity=stats.flow_capacity if stats else 0,
        reattached_flows=facts.hello.reattached_flows if facts.hello else before.reattached_flows,
        vips=NodeVips(programmed=programmed, failing=len(failing)),
        failing_vips=tuple(
            FailingVip(namespace=report.namespace, name=report.name, error=report.error)
            for report in failing[:FAILING_LIMIT]
        ),
        last_error=_text(text for text in (facts.link_error, facts.source_error, *facts.findings) if text),
        summary=NodeSummary(
            vips=f"{programmed}/{len(reports)}", flows=f"{stats.flows}/{stats.flow_capacity}" if stats else ""
        ),
    )


def _conditions(node: DataPlaneNode, facts: NodeFacts, now: datetime) -> tuple[Condition, ...]:
    generation = node.metadata.generation
    reason, message = _ready(facts)
    ready = reason is ConditionReason.READY
    conditions = set_condition(node.status.conditions, ConditionType.READY, ready, reason, message, generation, now)
    overloaded, reason, message = _overloaded(facts, node.spec.data_plane_name)
    return set_condition(conditions, ConditionType.OVERLOADED, overloaded, reason, message, generation, now)


def _overloaded(facts: NodeFacts, dataplane: str) -> tuple[bool | None, ConditionReason, str]:
    """Say whether the node lost flows or packets for want of something; the gravest want gives the reason."""
    if facts.hello is None or facts.stats is None:
        return None, ConditionReason.DATAPLANE_UNREACHABLE, "the data plane tells no counters"
    if facts.shortages:
        message = "; ".join(describe(shortage, dataplane) for shortage in facts.shortages)
        return True, ConditionReason(facts.shortages[0].value), message
    return False, ConditionReason.SUFFICIENT, "there is room for what arrives"


def _ready(facts: NodeFacts) -> tuple[ConditionReason, str]:
    if facts.hello is None:
        return ConditionReason.DATAPLANE_UNREACHABLE, facts.link_error or "the data plane was not reached yet"
    if facts.result is not None and facts.result.errors:
        first = facts.result.errors[0]
        reason = ConditionReason.PREFLIGHT_FAILED if first.code == "preflight" else ConditionReason.ERROR
        return reason, f"{first.message}{'; ' + first.fix if first.fix else ''}"
    if not facts.settled and facts.link_error:
        return ConditionReason.ERROR, facts.link_error
    stale = [t for t in facts.troubles.values() if t.reason in (Reason.STALE, Reason.UNREADABLE)]
    if stale:
        return ConditionReason.FRAMES_STALE, stale[0].error or "the data plane does not publish measurements"
    return ConditionReason.READY, "forwarding"

"""What the limits of a DataPlane leave of what a VIP asks for. Computation only."""

from __future__ import annotations

from penstock_api.dataplanenode import DataPlaneNodeSpec
from penstock_api.dataplanenodereport import Finding, FindingReason
from penstock_api.limits import VipLimits
from penstock_api.rlpolicy import PolicySpec
from penstock_api.vip import FlowTimeouts, VipSpec
from pydantic.alias_generators import to_camel

from penstock_agent.endpoints import finding


def capped(spec: VipSpec, node: DataPlaneNodeSpec) -> tuple[VipSpec, list[Finding]]:
    """Return a VIP's spec with times as long as the DataPlane allows, and what was cut."""
    limits = node.limits
    timeouts = {name: (value, _longest(name, limits)) for name, value in spec.timeouts.model_dump().items()}
    cut = {name: limit for name, (value, (_, limit)) in timeouts.items() if value > limit}
    notes = [_cut(f"spec.timeouts.{to_camel(name)}", timeouts[name][0], *timeouts[name][1], node) for name in cut]
    drain = min(spec.drain_seconds, limits.max_drain_seconds)
    if drain < spec.drain_seconds:
        notes.append(_cut("spec.drainSeconds", spec.drain_seconds, "maxDrainSeconds", drain, node))
    if not notes:
        return spec, []
    shorter = FlowTimeouts(**spec.timeouts.model_dump() | cut)
    return spec.model_copy(update={"timeouts": shorter, "drain_seconds": drain}), notes


def capped_policy(policy: PolicySpec, name: str, node: DataPlaneNodeSpec) -> tuple[PolicySpec, list[Finding]]:
    """Return a policy with a Maglev table as large as the DataPlane allows, and what was cut."""
    limit = node.limits.max_table_size
    if policy.table_size <= limit:
        return policy, []
    note = _cut("spec.policyName", f"policy {name}: tableSize {policy.table_size}", "maxTableSize", limit, node)
    return policy.model_copy(update={"table_size": limit}), [note]


def _longest(name: str, limits: VipLimits) -> tuple[str, int]:
    if name.startswith("tcp"):
        return "maxTcpSeconds", limits.max_tcp_seconds
    return "maxUdpSeconds", limits.max_udp_seconds


def _cut(field: str, value: object, name: str, limit: int, node: DataPlaneNodeSpec) -> Finding:
    message = (
        f"{field}: {value} is above {limit}, limits.{name} of DataPlane {node.data_plane_name}, which is used; "
        "write as much or less, or have the limit raised"
    )
    return finding(FindingReason.LIMITED, message, field)

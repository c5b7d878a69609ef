"""Checks what a node must offer before a data plane can work on it; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from penstock_node.desired import DesiredNode


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # traffic will not flow, or the node's own traffic would suffer
    WARNING = "warning"  # works now, but some traffic or a later change of the node may be hit


@dataclass(frozen=True)
class Finding:
    """Something that the node lacks, and the exact commands that give it."""

    check: str  # stable name, for example "forward-policy"
    severity: Severity
    message: str
    remedy: tuple[str, ...]  # shell commands, to be run as root on the node, in this order


@dataclass(frozen=True)
class Surroundings:
    """What the checks must know beside the desired state."""

    announce: bool = False  # needs CAP_NET_RAW
    node_ports: tuple[int, int] = (30000, 32767)  # the API server's --service-node-port-range
    shared_memory: Path = Path("/dev/shm")  # noqa: S108 - a mount point of its own, not a temporary file
    shared_memory_bytes: int = 0  # arena and frames of the data plane


def preflight(desired: DesiredNode, surroundings: Surroundings | None = None) -> tuple[Finding, ...]:
    """Return what stands in the way of `desired`, worst first; empty when the node is fit."""
    raise NotImplementedError

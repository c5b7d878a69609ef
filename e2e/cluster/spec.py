"""What cluster is asked for: its name, its nodes, their labels and taints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from e2e.cluster.errors import StateError

MAX_NODES = 32
DEFAULT_NAME = "penstock"
DEFAULT_QUOTA_PERIOD = "100ms"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}")
_ASSIGNMENT = re.compile(r"(?:(?P<first>\d+)(?:-(?P<last>\d+))?:)?(?P<what>[^:]+(?::[A-Za-z]+)?)")


@dataclass(frozen=True)
class NodeSpec:
    """One node; `index` counts from 1 and fixes its addresses.

    `quota_period` is the time over which pods' processor limits are enforced (provider `kind`: the same for all
    nodes). By the kernel's
    default a pod of a tenth of a core runs at full speed for 10 ms and then stands for 90; a short period makes it
    what a small limit usually stands for, a slow machine.

    With `exclusive_cpus` (provider `kind`: the same for all nodes) pods that ask for whole processors get them alone
    (the CPU manager's policy `static`); the first processor stays with all others.
    """

    index: int
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[str] = field(default_factory=list)
    quota_period: str = DEFAULT_QUOTA_PERIOD
    exclusive_cpus: bool = False

    @property
    def name(self) -> str:
        """The Node's name."""
        return f"node-{self.index}"

    def taint_objects(self) -> list[dict[str, str]]:
        """Return the taints (KEY[=VALUE]:EFFECT) as a Node's spec has them."""
        objects = []
        for taint in self.taints:
            key_value, _, effect = taint.partition(":")
            key, _, value = key_value.partition("=")
            objects.append({"key": key, "value": value, "effect": effect})
        return objects


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster; one per name on a machine."""

    name: str
    nodes: list[NodeSpec]

    def to_json(self) -> str:
        """Return the spec as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ClusterSpec:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        return cls(document["name"], [NodeSpec(**node) for node in document["nodes"]])

    def node(self, name: str) -> NodeSpec:
        """Return a node by its name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise StateError(f"there is no node {name!r}; there are: {', '.join(node.name for node in self.nodes)}")


def make_spec(
    nodes: int,
    *,
    name: str = DEFAULT_NAME,
    labels: Iterable[str] = (),
    taints: Iterable[str] = (),
    quota_period: str = DEFAULT_QUOTA_PERIOD,
    exclusive_cpus: bool = False,
) -> ClusterSpec:
    """Build a spec from what a user types.

    Labels are [FIRST[-LAST]:]KEY=VALUE, taints [FIRST[-LAST]:]KEY[=VALUE]:EFFECT, for nodes FIRST to LAST or for all.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise StateError(f"--nodes: {nodes} is not from 1 to {MAX_NODES}")
    if not _NAME.fullmatch(name):
        raise StateError(f"--name: {name!r} has to be 1 to 15 small letters, digits and dashes, a letter first")
    node_labels: dict[int, dict[str, str]] = {index: {} for index in range(1, nodes + 1)}
    node_taints: dict[int, list[str]] = {index: [] for index in range(1, nodes + 1)}
    for label in labels:
        indexes, what = _assignment("--label", label, nodes)
        key, equals, value = what.partition("=")
        if not equals:
            raise StateError(f"--label: {label!r} is not [FIRST[-LAST]:]KEY=VALUE")
        for index in indexes:
            node_labels[index][key] = value
    for taint in taints:
        indexes, what = _assignment("--taint", taint, nodes)
        if what.partition(":")[2] not in {"NoSchedule", "NoExecute", "PreferNoSchedule"}:
            raise StateError(f"--taint: {taint!r} is not [FIRST[-LAST]:]KEY[=VALUE]:NoSchedule (or NoExecute, ...)")
        for index in indexes:
            node_taints[index].append(what)
    specs = [NodeSpec(i, node_labels[i], node_taints[i], quota_period, exclusive_cpus) for i in range(1, nodes + 1)]
    return ClusterSpec(name, specs)


def _assignment(option: str, text: str, nodes: int) -> tuple[range, str]:
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise StateError(f"{option}: {text!r} is not [FIRST[-LAST]:]WHAT")
    first = int(match["first"] or 1)
    last = int(match["last"] or match["first"] or nodes)
    if not 1 <= first <= last <= nodes:
        raise StateError(f"{option}: {text!r} names nodes {first} to {last}; there are 1 to {nodes}")
    return range(first, last + 1), match["what"]

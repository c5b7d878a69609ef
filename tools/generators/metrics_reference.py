"""docs/reference/metrics.md: every metric of agent and operator, from the calls that make them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.generators.output import NOTICE, REFERENCE, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"agent": "agent/penstock_agent", "operator": "operator/penstock_operator"}
TYPES = {
    "GaugeMetricFamily": "gauge",
    "_gauge": "gauge",
    "CounterMetricFamily": "counter",
    "_counter": "counter",
}
BACKEND_LABELS = ("namespace", "vip", "port", "protocol", "family", "backend")
INTRODUCTION = """\
Agents serve `/metrics` on port 9402 of their pods, the operator on port 8080 of its own; `penstock run` serves the
agent's on 127.0.0.1:9402. The chart's `monitoring.serviceMonitor` makes Prometheus scrape both. Labels `vip` and
`namespace` are those of a LoadBalancerVIP; a port of it has a metric per address family. Counters start at 0 with the
process that serves them, or with the data plane's memory.
"""
ABOUT = {
    "agent": "Of one node each. Summaries are quantiles of a reservoir of 128 samples: they have no sum and no count.",
    "operator": "Only the replica that leads (`penstock_operator_leader`) works on objects.",
}


@dataclass(frozen=True)
class Metric:
    """One family as Prometheus sees it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    def row(self) -> str:
        """Return its line of the table."""
        labels = ", ".join(f"`{label}`" for label in self.labels) or "-"
        return f"| `{self.name}` | {self.type} | {labels} | {self.help} |"


def render() -> Files:
    """Return the page."""
    # Read, not imported: the page is of all metrics, also of those that exist in some states only.
    sections = [_section(role, ROOT / folder) for role, folder in PACKAGES.items()]
    notice = NOTICE.format(source=" and ".join(PACKAGES.values()))
    return {REFERENCE / "metrics.md": f"<!-- {notice} -->\n\n# Metrics\n\n{INTRODUCTION}\n" + "\n".join(sections)}


def _section(role: str, folder: Path) -> str:
    found = {metric.name: metric for path in sorted(folder.rglob("*.py")) for metric in metrics_of(path.read_text())}
    rows = "\n".join(found[name].row() for name in sorted(found))
    return f"## {role}\n{ABOUT[role]}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}\n"


def metrics_of(source: str) -> Iterator[Metric]:
    """Yield the metrics that a module makes."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from _metric(node.func.id, node, constants)


def _metric(function: str, call: ast.Call, constants: dict[str, ast.expr]) -> Iterator[Metric]:
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    names = [text for text in texts if isinstance(text, str)]
    if function == "Family" and len(names) == 3:
        extra = ("quantile",) if names[1] == "summary" else ()
        yield Metric(names[0], names[1], (*BACKEND_LABELS, *extra), names[2])
    elif function in TYPES and len(names) >= 2:
        labels = next((keyword.value for keyword in call.keywords if keyword.arg == "labels"), None)
        name = names[0] if names[0].startswith("penstock_") else f"penstock_{names[0]}"
        ending = "_total" if TYPES[function] == "counter" else ""
        yield Metric(name + ending, TYPES[function], _labels(labels, constants), names[1])


def _labels(node: ast.expr | None, constants: dict[str, ast.expr]) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return _labels(constants.get(node.id), constants)
    if isinstance(node, ast.Starred):
        return _labels(node.value, constants)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(label for element in node.elts for label in _labels(element, constants))
    return (str(node.value),) if isinstance(node, ast.Constant) else ()

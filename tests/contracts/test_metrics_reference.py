"""The page of metrics has what agents and operator serve, with the labels that they have."""

from __future__ import annotations

from penstock_agent.backend_metrics import FAMILIES
from penstock_operator.health import OperatorMetrics

from tools.generators.metrics_reference import Metric, metrics_of, render


def test_what_is_served_is_on_the_page() -> None:
    (page,) = render().values()
    names = [family.name for family in FAMILIES]
    names += [family.name + ("_total" if family.type == "counter" else "") for family in OperatorMetrics().collect()]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_names_labels_and_types_are_read_from_calls() -> None:
    source = """
LABELS = ("a", "b")
x = GaugeMetricFamily("penstock_x", "An x.", labels=(*LABELS, "c"))
y = CounterMetricFamily("penstock_y", "A y.", value=1)
z = _gauge("agent_z", "A z.", 1.0)
other("penstock_other", "Not a metric.")
"""
    assert list(metrics_of(source)) == [
        Metric("penstock_x", "gauge", ("a", "b", "c"), "An x."),
        Metric("penstock_y_total", "counter", (), "A y."),
        Metric("penstock_agent_z", "gauge", (), "A z."),
    ]

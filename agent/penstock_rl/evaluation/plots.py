"""Plots of results as SVG. The same results and the same matplotlib give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from penstock_rl.evaluation import comparison
from penstock_rl.evaluation.policies import title
from penstock_rl.evaluation.results import Results
from penstock_rl.evaluation.statistics import Interval

_STYLE: Any = {"svg.hashsalt": "penstock", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False}
_ROW_INCHES = 0.22


def set_plot(results: Results) -> str:
    """Return the log-gap closed over all scenarios by policy, with intervals."""
    rows = [row for row in comparison.of_set(results) if row.gap is not None]
    intervals = [row.gap for row in rows if row.gap is not None]
    return _figure([title(row.policy) for row in rows], [("all scenarios", intervals)], "log-gap closed")


def scenario_plot(results: Results) -> str:
    """Return the mean completion time by policy, a panel for each scenario, with intervals."""
    by_scenario = {name: comparison.of_scenario(results, name) for name in results.scenarios}
    names = [row.policy for row in next(iter(by_scenario.values()))]
    panels = []
    for scenario, rows in by_scenario.items():
        means = {row.policy: row.mean.map(lambda seconds: seconds * 1000) for row in rows}
        panels.append((scenario, [means.get(name, Interval(math.nan, math.nan, math.nan)) for name in names]))
    return _figure([title(name) for name in names], panels, "mean, ms", logarithmic=True)


def _figure(
    labels: Sequence[str], panels: Sequence[tuple[str, Sequence[Interval]]], unit: str, *, logarithmic: bool = False
) -> str:
    with matplotlib.rc_context(_STYLE):
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        size = (3.0 * columns + 1.5, rows * (_ROW_INCHES * len(labels) + 0.8))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        for axis in axes:
            axis.set_visible(False)
        for axis, (name, intervals) in zip(axes.base.flat, panels, strict=False):
            _panel(axis, labels, name, intervals, unit, logarithmic=logarithmic)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return text.getvalue()


def _panel(
    axis: Any, labels: Sequence[str], name: str, intervals: Sequence[Interval], unit: str, *, logarithmic: bool
) -> None:
    axis.set_visible(True)
    places = range(len(labels))
    estimates = [_drawn(each.estimate) for each in intervals]
    below = [_length(each.estimate, each.low) for each in intervals]
    above = [_length(each.high, each.estimate) for each in intervals]
    axis.errorbar(estimates, places, xerr=[below, above], fmt="o", markersize=3, linewidth=1, color="#1f4e79")
    axis.set_yticks(places, labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title(name, loc="left")
    axis.set_xlabel(unit)
    axis.grid(axis="x", linewidth=0.3)


def _drawn(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _length(high: float, low: float) -> float:
    length = high - low
    return max(length, 0.0) if math.isfinite(length) else 0.0

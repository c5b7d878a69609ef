"""Markdown tables of results. The same results give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from penstock_rl.evaluation import comparison
from penstock_rl.evaluation.comparison import ScenarioRow, SetRow
from penstock_rl.evaluation.policies import title
from penstock_rl.evaluation.results import Results
from penstock_rl.evaluation.statistics import Interval, Worst

NONE = "–"
_Form = Callable[[float], str]
_SCENARIO_HEAD = (
    "policy", "mean, ms", "p50", "p90", "p99", "against LSQ", "gap closed", "linear", "Jain", "max/mean", "failed",
)  # fmt: skip
_SET_HEAD = (
    "policy", "gap closed", "mean against LSQ", "worst against LSQ", "mean against the better of 1/d, l/d",
    "worst against it", "scenarios worse than it",
)  # fmt: skip


def page(results: Results, heading: str, text: str = "", *, each: bool = True) -> str:
    """Return a page: the set of scenarios as a whole, then, with `each`, one scenario after the other."""
    parts = [f"# {heading}", *([text] if text else []), _provenance(results), "## All scenarios", set_table(results)]
    for scenario in results.scenarios if each else ():
        parts += [f"## {scenario}", scenario_table(comparison.of_scenario(results, scenario))]
    return "\n\n".join(parts) + "\n"


def scenario_table(rows: Iterable[ScenarioRow]) -> str:
    """Return the table of one scenario."""
    return _table(_SCENARIO_HEAD, [_scenario_cells(row) for row in rows])


def set_table(results: Results) -> str:
    """Return the table of a set of scenarios."""
    rows = comparison.of_set(results)
    return _table(_SET_HEAD, [_set_cells(row, results.scenarios) for row in rows])


def _scenario_cells(row: ScenarioRow) -> tuple[str, ...]:
    return (
        title(row.policy),
        _interval(row.mean, _milliseconds),
        _milliseconds(row.p50),
        _milliseconds(row.p90),
        _milliseconds(row.p99),
        _interval(row.against_lsq, _percent),
        NONE if row.gap is None else _interval(row.gap, _share),
        NONE if row.linear_gap is None else _share(row.linear_gap),
        _number(row.jain, "{:.3f}"),
        _number(row.max_mean, "{:.2f}"),
        "0" if row.failed == 0 else _number(row.failed * 100, "{:.2g} %"),
    )


def _set_cells(row: SetRow, scenarios: Sequence[str]) -> tuple[str, ...]:
    return (
        title(row.policy),
        NONE if row.gap is None else _interval(row.gap, _share),
        _interval(row.against_lsq, _percent),
        _worst(row.worst, scenarios),
        NONE if row.against_better is None else _interval(row.against_better, _percent),
        NONE if row.worst_against_better is None else _worst(row.worst_against_better, scenarios),
        NONE if row.worse is None else str(row.worse),
    )


def _provenance(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    seeds = sorted({run.seed for run in results.runs})
    numbers = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "seed " + ", ".join(map(str, seeds))
    return f"`{results.command}` ({versions}; {numbers}). Brackets: 95 % intervals."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _interval(interval: Interval, form: _Form) -> str:
    estimate = form(interval.estimate)
    if math.isnan(interval.low) or math.isnan(interval.high):
        return estimate
    return f"{estimate} [{form(interval.low)}, {form(interval.high)}]"


def _worst(worst: Worst, scenarios: Sequence[str]) -> str:
    return f"{_percent(worst.regret)} ({scenarios[worst.index]})"


def _milliseconds(seconds: float) -> str:
    return _number(seconds * 1000, "{:.0f}" if seconds >= 0.1 else "{:.1f}")


def _percent(share: float) -> str:
    text = _number(share * 100, "{:+.1f} %")
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def _share(value: float) -> str:
    text = _number(value, "{:.2f}")
    return "0.00" if text == "-0.00" else text


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return NONE
    return form.format(value) if math.isfinite(value) else ("∞" if value > 0 else "-∞")

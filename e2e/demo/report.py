"""What a demonstration measured: tables for the terminal and a page with plots. Every number comes from the run."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from rich import box
from rich.console import Group
from rich.table import Table

from e2e.demo.comparison import CONFIDENCE, Interval, Latency, Results, Window, compare, pairs_of
from e2e.load import Report

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "penstock"  # the same run gives the same file

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
MEASURES: dict[str, Callable[[Latency], float]] = {
    "mean": lambda latency: latency.mean,
    "p99": lambda latency: latency.p99,
}
MEASURED_ANSWERS = 50  # from so many answers on a backend has to have been measured; a policy may leave slow ones out


@dataclass(frozen=True)
class WeightSample:
    """Weights in force at one moment, by backend."""

    elapsed_s: float  # since the load began
    weights: dict[str, float]


@dataclass(frozen=True)
class Quantiles:
    """Of one block's samples, or the mean of these over blocks; in milliseconds."""

    p50: float
    p90: float


@dataclass(frozen=True)
class Times:
    """What the data plane saw of one backend's flows; None where it took no sample."""

    handshake: Quantiles | None  # SYN until the server's answer
    first_byte: Quantiles | None  # first request until the server's first answer
    duration: Quantiles | None  # first packet of a flow until both sides closed

    @property
    def all(self) -> tuple[Quantiles | None, ...]:
        """Handshake, first byte and duration."""
        return (self.handshake, self.first_byte, self.duration)


@dataclass(frozen=True)
class Block:
    """A stretch of the load under one policy, and what the data plane measured in it, by backend."""

    window: Window
    times: dict[str, Times]

    @property
    def policy(self) -> str:
        """The policy in force."""
        return self.window.policy


@dataclass(frozen=True)
class Demonstration:
    """All that the report shows; `speeds` says how fast each backend is, in cores."""

    title: str
    setting: str
    speeds: dict[str, float]
    policies: tuple[str, str]
    blocks: tuple[Block, ...]
    load: Report
    weights: tuple[WeightSample, ...]

    @property
    def failed(self) -> int:
        """Requests that failed, while a policy settled too."""
        return self.load.summary.failed

    @property
    def backends(self) -> list[str]:
        """Backends from the slowest to the fastest."""
        return sorted(self.speeds, key=lambda name: (self.speeds[name], name))

    @cached_property
    def block_results(self) -> list[tuple[str, Results]]:
        """What became of the requests of each block."""
        return [
            (block.policy, Results.of(request for request in self.load.requests if block.window.holds(request)))
            for block in self.blocks
        ]

    @cached_property
    def results(self) -> dict[str, Results]:
        """What became of the requests of all blocks of each policy."""
        return {
            policy: Results.of(
                request
                for request in self.load.requests
                if any(block.window.holds(request) for block in self.blocks if block.policy == policy)
            )
            for policy in self.policies
        }

    def share(self, policy: str, backend: str) -> float:
        """Share of a policy's answers that came from the backend."""
        counts = self.results[policy].backends
        return counts.get(backend, 0) / max(1, sum(counts.values()))

    def times(self, policy: str, backend: str) -> Times:
        """Return the means over the policy's blocks of each block's quantiles."""
        seen = [block.times[backend].all for block in self.blocks if block.policy == policy and backend in block.times]
        return Times(*(_mean([times[number] for times in seen]) for number in range(3)))

    @property
    def unmeasured(self) -> list[str]:
        """Policies of which something is missing: weights, or the times of backends that answered often enough."""
        return [policy for policy in self.policies if not (self.weights and self._measured(policy))]

    def _measured(self, policy: str) -> bool:
        answers = self.results[policy].backends
        used = [backend for backend in self.backends if answers.get(backend, 0) >= MEASURED_ANSWERS]
        return bool(used) and all(None not in self.times(policy, backend).all for backend in used)

    def change(self, measure: str) -> Interval | None:
        """Compare the second policy with the first, pair by pair."""
        return compare(pairs_of(self.block_results, self.policies, MEASURES[measure]))

    def verdict(self) -> str:
        """Say in one sentence what this run shows of mean and tail, and nothing that its intervals do not allow."""
        first, second = self.policies
        pairs = len(self.blocks) // 2
        parts = [_change(name, self.change(name)) for name in MEASURES]
        return f"{second} against {first}, {pairs} pairs of blocks: {'; '.join(parts)}"


def _mean(quantiles: list[Quantiles | None]) -> Quantiles | None:
    found = [value for value in quantiles if value is not None]
    if not found:
        return None
    return Quantiles(statistics.fmean(v.p50 for v in found), statistics.fmean(v.p90 for v in found))


def _change(name: str, found: Interval | None) -> str:
    if found is None:
        return f"{name} not measured in every block"
    bounds = f"{CONFIDENCE:.0%} interval {found.low - 1:+.0%} to {found.high - 1:+.0%}"
    if not found.shown:
        return f"{name}: no difference shown ({bounds})"
    return f"{name} {found.ratio - 1:+.0%} ({bounds})"


def plain(value: float) -> str:
    """Return a number with three digits or more, never with an exponent."""
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _latencies(results: Results) -> tuple[str, ...]:
    latency = results.latency_ms
    return tuple(plain(value) for value in (latency.mean, latency.p50, latency.p90, latency.p99))


def tables(demonstration: Demonstration) -> Group:
    """Compare the policies: what clients felt, and who answered. Fits 80 columns."""
    felt = Table(title=demonstration.title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("policy", "requests", "failed", "retried", "mean ms", "p50", "p90", "p99"):
        felt.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for policy, results in demonstration.results.items():
        felt.add_row(policy, *counts(results), *_latencies(results))
    answered = Table(title="Share of answers per backend", title_justify="left", box=box.SIMPLE_HEAD)
    answered.add_column("backend")
    answered.add_column("speed", justify="right")
    for policy in demonstration.policies:
        answered.add_column(policy, justify="right")
    for backend in demonstration.backends:
        shares = (f"{demonstration.share(policy, backend):.1%}" for policy in demonstration.policies)
        answered.add_row(backend, f"{demonstration.speeds[backend]:g}", *shares)
    return Group(felt, _blocks_table(demonstration), answered, _times_table(demonstration), demonstration.setting)


def counts(results: Results) -> tuple[str, str, str]:
    """Return requests, failed and retried as text."""
    return (f"{results.requests:,}", f"{results.failed:,}", f"{results.retried:,}")


def _blocks_table(demonstration: Demonstration) -> Table:
    table = Table(title="Mean and p99 of each block, ms", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("block", justify="right")
    for policy in demonstration.policies:
        table.add_column(f"{policy} mean", justify="right", no_wrap=True)
        table.add_column("p99", justify="right", no_wrap=True)
    for number, (policy, results) in enumerate(demonstration.block_results, start=1):
        cells = (plain(results.latency_ms.mean), plain(results.latency_ms.p99))
        empty = ("", "")
        table.add_row(str(number), *(cells + empty if policy == demonstration.policies[0] else empty + cells))
    return table


def times_rows(demonstration: Demonstration) -> list[tuple[str, ...]]:
    """Policy, backend, and p50 and p90 of handshake, first byte and duration as text."""
    rows = []
    for policy in demonstration.policies:
        for backend in demonstration.backends:
            found = demonstration.times(policy, backend).all
            texts = (plain(value) for q in found for value in ((q.p50, q.p90) if q else (math.nan, math.nan)))
            rows.append((policy, backend, *texts))
    return rows


def _times_table(demonstration: Demonstration) -> Table:
    title = "Seen by the data plane, ms (p50, p90; means over blocks)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("policy", "backend"):
        table.add_column(name, no_wrap=True)
    for name in ("handshake", "p90", "1st byte", "p90", "duration", "p90"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in times_rows(demonstration):
        table.add_row(*row)
    return table


def write(demonstration: Demonstration, directory: Path) -> Path:
    """Write index.html, with its plots inside, into the directory; return its path."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.get_template("report.html.jinja").render(
        demonstration=demonstration,
        plain=plain,
        counts=counts,
        times=times_rows(demonstration),
        plots={
            "Latency over time": _plot_latency(demonstration),
            "Weights over time": _plot_weights(demonstration),
            "Share of requests per backend": _plot_shares(demonstration),
        },
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "index.html"
    path.write_text(page)
    return path


def _plot_latency(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    seen = [interval for interval in demonstration.load.intervals if interval.completed]
    for name, colour in (("mean", COLOURS[0]), ("p90", COLOURS[3]), ("p99", COLOURS[1])):
        axes.plot(
            [interval.elapsed_s for interval in seen],
            [getattr(interval.latency_ms, name) for interval in seen],
            color=colour,
            label=name,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("ms, per second of the run")
    return _finish(figure, axes, demonstration)


def _plot_weights(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    for number, backend in enumerate(demonstration.backends):
        samples = [sample for sample in demonstration.weights if backend in sample.weights]
        axes.plot(
            [sample.elapsed_s for sample in samples],
            [sample.weights[backend] / (sum(sample.weights.values()) or 1.0) for sample in samples],
            color=COLOURS[number % len(COLOURS)],
            label=f"{backend} ({demonstration.speeds[backend]:g} core)",
        )
    axes.set_ylabel("weight / sum of weights")
    axes.set_ylim(bottom=0)
    return _finish(figure, axes, demonstration)


def _plot_shares(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    width = 0.8 / len(demonstration.policies)
    places = range(len(demonstration.backends))
    for number, policy in enumerate(demonstration.policies):
        axes.bar(
            [place + number * width for place in places],
            [demonstration.share(policy, backend) for backend in demonstration.backends],
            width,
            color=COLOURS[number % len(COLOURS)],
            label=policy,
        )
    total = sum(demonstration.speeds.values())
    centre = (len(demonstration.policies) - 1) * width / 2
    axes.plot(
        [place + centre for place in places],
        [demonstration.speeds[backend] / total for backend in demonstration.backends],
        "k_",
        markersize=30,
        label="share of the processor",
    )
    axes.set_xticks([place + centre for place in places], demonstration.backends)
    axes.legend(frameon=False)
    return _svg(figure)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    return figure, axes


def _finish(figure: Figure, axes: Axes, demonstration: Demonstration) -> str:
    """Shade what counted of each block of the second policy, and name every block's policy."""
    origin = demonstration.load.summary.began
    for block in demonstration.blocks:
        began, ended = ((time - origin).total_seconds() for time in (block.window.began, block.window.ended))
        if block.policy == demonstration.policies[1]:
            axes.axvspan(began, ended, color="#9ca3af", alpha=0.2, linewidth=0)
        axes.annotate(block.policy, (began, 1.0), xycoords=("data", "axes fraction"), xytext=(1, -8),
                      textcoords="offset points", color="#4b5563", fontsize=7)  # fmt: skip
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the curves, never over them
    return _svg(figure)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]

"""What a demonstration measured: a table for the terminal and a page with plots. Every number comes from the run."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from rich import box
from rich.console import Group
from rich.table import Table

from e2e.load import Report

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "penstock"  # the same run gives the same file

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")


@dataclass(frozen=True)
class WeightSample:
    """Weights in force at one moment, by backend."""

    elapsed_s: float  # since the phase began
    weights: dict[str, float]


@dataclass(frozen=True)
class Quantiles:
    """Of the newest samples, in milliseconds."""

    p50: float
    p90: float


@dataclass(frozen=True)
class Times:
    """What the data plane saw of one backend's flows; None where it took no sample."""

    handshake: Quantiles | None  # SYN until the server's answer
    first_byte: Quantiles | None  # first request until the server's first answer
    duration: Quantiles | None  # first packet of a flow until both sides closed


@dataclass(frozen=True)
class Phase:
    """One policy under the load."""

    policy: str
    load: Report
    weights: tuple[WeightSample, ...]
    times: dict[str, Times]  # by backend, at the phase's end

    def saw(self, backend: str) -> bool:
        """Tell whether the data plane measured all times of a backend."""
        times = self.times.get(backend)
        return times is not None and None not in (times.handshake, times.first_byte, times.duration)


@dataclass(frozen=True)
class Demonstration:
    """All that the report shows; `speeds` says how fast each backend is, in cores."""

    title: str
    setting: str
    speeds: dict[str, float]
    phases: tuple[Phase, ...]

    @property
    def failed(self) -> int:
        """Requests that failed in all phases."""
        return sum(phase.load.summary.failed for phase in self.phases)

    @property
    def backends(self) -> list[str]:
        """Backends from the slowest to the fastest."""
        return sorted(self.speeds, key=lambda name: (self.speeds[name], name))

    def share(self, phase: Phase, backend: str) -> float:
        """Share of the phase's answers that came from the backend."""
        counts = phase.load.summary.backends
        return counts.get(backend, 0) / max(1, sum(counts.values()))

    @property
    def unmeasured(self) -> list[str]:
        """Policies of phases of which something is missing: load, weights, or a backend's times."""
        return [
            phase.policy
            for phase in self.phases
            if not (phase.weights and phase.load.intervals and all(map(phase.saw, self.backends)))
        ]

    def verdict(self) -> str:
        """Say in one sentence what the last phase did to the mean and the tail, whichever way it went."""
        first, last = self.phases[0], self.phases[-1]
        before, after = first.load.summary.latency_ms, last.load.summary.latency_ms
        mean, tail = after.mean / before.mean - 1, after.p99 / before.p99 - 1
        return (
            f"{last.policy} against {first.policy} in this run: mean {mean:+.0%} "
            f"({before.mean:.1f} to {after.mean:.1f} ms), p99 {tail:+.0%} ({before.p99:.0f} to {after.p99:.0f} ms)"
        )


def tables(demonstration: Demonstration) -> Group:
    """Compare the phases: what clients felt, and who answered. Fits 80 columns."""
    felt = Table(title=demonstration.title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("policy", "requests", "failed", "retried", "mean ms", "p50", "p90", "p99"):
        felt.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for phase in demonstration.phases:
        summary = phase.load.summary
        latency = summary.latency_ms
        felt.add_row(
            phase.policy,
            f"{summary.requests:,}",
            f"{summary.failed:,}",
            f"{summary.retried:,}",
            *(f"{value:.1f}" for value in (latency.mean, latency.p50, latency.p90, latency.p99)),
        )
    answered = Table(title="Share of answers per backend", title_justify="left", box=box.SIMPLE_HEAD)
    answered.add_column("backend")
    answered.add_column("speed", justify="right")
    for phase in demonstration.phases:
        answered.add_column(phase.policy, justify="right")
    for backend in demonstration.backends:
        shares = (f"{demonstration.share(phase, backend):.1%}" for phase in demonstration.phases)
        answered.add_row(backend, f"{demonstration.speeds[backend]:g}", *shares)
    return Group(felt, answered, _times_table(demonstration), demonstration.setting)


def times_rows(demonstration: Demonstration) -> list[tuple[str, ...]]:
    """Policy, backend, and p50 and p90 of handshake, first byte and duration as text, of what was measured."""
    rows = []
    for phase in demonstration.phases:
        for backend in demonstration.backends:
            times = phase.times.get(backend)
            if times is not None:
                found = (times.handshake, times.first_byte, times.duration)
                texts = (f"{value:.3g}" if q else "-" for q in found for value in ((q.p50, q.p90) if q else (0, 0)))
                rows.append((phase.policy, backend, *texts))
    return rows


def _times_table(demonstration: Demonstration) -> Table:
    title = "Seen by the data plane, ms (p50, p90)"
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


def _offsets(demonstration: Demonstration) -> list[float]:
    """Return where each phase begins on a common time axis, in seconds."""
    offsets, at = [], 0.0
    for phase in demonstration.phases:
        offsets.append(at)
        at += max((interval.elapsed_s for interval in phase.load.intervals), default=0.0)
    return offsets


def _plot_latency(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    for name, colour in (("mean", COLOURS[0]), ("p90", COLOURS[3]), ("p99", COLOURS[1])):
        for phase, offset in zip(demonstration.phases, _offsets(demonstration), strict=True):
            seen = [interval for interval in phase.load.intervals if interval.completed]
            axes.plot(
                [offset + interval.elapsed_s for interval in seen],
                [getattr(interval.latency_ms, name) for interval in seen],
                color=colour,
                label=name if offset == 0 else None,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("ms, per second of the run")
    return _finish(figure, axes, demonstration)


def _plot_weights(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    for number, backend in enumerate(demonstration.backends):
        for phase, offset in zip(demonstration.phases, _offsets(demonstration), strict=True):
            samples = [sample for sample in phase.weights if backend in sample.weights]
            axes.plot(
                [offset + sample.elapsed_s for sample in samples],
                [sample.weights[backend] / (sum(sample.weights.values()) or 1.0) for sample in samples],
                color=COLOURS[number % len(COLOURS)],
                label=f"{backend} ({demonstration.speeds[backend]:g} core)" if offset == 0 else None,
            )
    axes.set_ylabel("weight / sum of weights")
    axes.set_ylim(bottom=0)
    return _finish(figure, axes, demonstration)


def _plot_shares(demonstration: Demonstration) -> str:
    figure, axes = _figure()
    width = 0.8 / len(demonstration.phases)
    places = range(len(demonstration.backends))
    for number, phase in enumerate(demonstration.phases):
        axes.bar(
            [place + number * width for place in places],
            [demonstration.share(phase, backend) for backend in demonstration.backends],
            width,
            color=COLOURS[number % len(COLOURS)],
            label=phase.policy,
        )
    total = sum(demonstration.speeds.values())
    centre = (len(demonstration.phases) - 1) * width / 2
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
    for phase, offset in zip(demonstration.phases, _offsets(demonstration), strict=True):
        axes.axvline(offset, color="#9ca3af", linewidth=0.8)
        axes.annotate(phase.policy, (offset, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -10),
                      textcoords="offset points", color="#4b5563")  # fmt: skip
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the curves, never over them
    return _svg(figure)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]

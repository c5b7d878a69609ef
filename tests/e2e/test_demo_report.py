"""The demonstration's report: what is printed and plotted is what was measured, whichever way it went."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from e2e.demo import report
from e2e.load import read_report


def write_run(path: Path, mean: float, failed: int = 0) -> Path:
    latency = {"mean": mean, "p50": mean, "p90": 2 * mean, "p99": 4 * mean, "max": 5 * mean}
    counts = {
        "completed": 90,
        "failed": failed,
        "retried": 0,
        "new_connections": 45,
        "failures": {},
        "backends": {"slow": 30, "fast": 60},
        "latency_ms": latency,
    }
    lines: list[dict[str, object]] = [
        counts | {"type": "interval", "elapsed_s": second, "seconds": 1.0} for second in (1.0, 2.0)
    ]
    times = {"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:02Z"}
    rest = {"type": "summary", "rate": 45.0, "throughput": 45.0, "backend_latency_ms": {"slow": latency}}
    lines.append(counts | times | rest)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def demonstration(tmp_path: Path, failed: int = 0) -> report.Demonstration:
    weights = (report.WeightSample(1.0, {"slow": 1.0, "fast": 3.0}),)
    times = {"slow": report.Times(report.Quantiles(1.5, 2.5), report.Quantiles(33.0, 44.0), None)}
    phases = tuple(
        report.Phase(policy, read_report(write_run(tmp_path / policy, mean, failed)), weights, times)
        for policy, mean in (("lsq", 10.0), ("little", 12.0))
    )
    return report.Demonstration("title", "setting", {"fast": 0.4, "slow": 0.1}, phases)


def test_a_worse_result_is_said_as_it_is(tmp_path: Path) -> None:
    assert demonstration(tmp_path).verdict() == (
        "little against lsq in this run: mean +20% (10.0 to 12.0 ms), p99 +20% (40 to 48 ms)"
    )


def test_the_tables_fit_80_columns_and_hold_the_shares(tmp_path: Path) -> None:
    console = Console(width=80, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(report.tables(demonstration(tmp_path)))
    text = console.export_text()
    console.file.close()
    assert "33.3%" in text
    assert "66.7%" in text
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["little", "slow"])
    assert row[2:] == ["1.5", "2.5", "33", "44", "-", "-"]
    assert "…" not in text


def test_the_page_has_the_plots_inside_and_marks_failures(tmp_path: Path) -> None:
    page = report.write(demonstration(tmp_path, failed=2), tmp_path / "report").read_text()
    assert page.count("<svg") == 3
    assert 'class="bad">2<' in page
    assert "<td>33</td>" in page
    assert demonstration(tmp_path, failed=2).failed == 4


def test_a_backend_without_times_is_said(tmp_path: Path) -> None:
    found = demonstration(tmp_path)
    assert found.unmeasured == ["lsq", "little"]  # no durations of "slow", nothing of "fast"
    whole = report.Times(*[report.Quantiles(1.0, 2.0)] * 3)
    phases = [report.Phase(p.policy, p.load, p.weights, {"slow": whole, "fast": whole}) for p in found.phases]
    assert report.Demonstration("title", "setting", found.speeds, (phases[0], found.phases[1])).unmeasured == ["little"]

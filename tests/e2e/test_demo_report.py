"""The demonstration's report: what is printed and plotted is what was measured, whichever way it went."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from e2e.demo import report
from e2e.demo.comparison import Window
from e2e.load import Report, read_report

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BLOCKS = ("lsq", "little", "little", "lsq")
SECONDS = 10


def write_run(path: Path, little: float, failed: int = 0, scale: float = 1.0, slow_each: int = 3) -> Report:
    """Write ten requests a second: of lsq with 10 ms, of little with so many; `slow` answers one of `slow_each`."""
    lines: list[dict[str, object]] = []
    for number in range(len(BLOCKS) * SECONDS * 10):
        second = number / 10
        # No two pairs are quite alike: an interval has a width.
        latency = scale * (10.0 if BLOCKS[int(second // SECONDS)] == "lsq" else little) * (1 + 0.01 * (number % 7))
        intended = (BEGAN + timedelta(seconds=second)).isoformat()
        backend = "fast" if number % slow_each else "slow"
        lines.append({"type": "request", "intended": intended, "latency_ms": latency, "backend": backend})
    for line in lines[:failed]:
        line |= {"type": "error", "kind": "timeout", "time": line["intended"], "error": "no answer"}
    latencies = {"mean": 10.0, "p50": 10.0, "p90": 20.0, "p99": 40.0, "max": 50.0}
    counts = {"completed": len(lines) - failed, "failed": failed, "retried": 0, "new_connections": 45, "failures": {}}
    counts |= {"backends": {"slow": 1, "fast": 2}, "latency_ms": latencies}
    intervals = [counts | {"type": "interval", "elapsed_s": second, "seconds": 1.0} for second in range(1, 40)]
    ended = (BEGAN + timedelta(seconds=len(BLOCKS) * SECONDS)).isoformat()
    summary = {"type": "summary", "rate": 10.0, "throughput": 10.0, "backend_latency_ms": {"slow": latencies}}
    summary |= counts | {"began": BEGAN.isoformat(), "ended": ended}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *intervals, summary]))
    return read_report(path)


def demonstration(
    tmp_path: Path, little: float = 12.0, failed: int = 0, scale: float = 1.0, slow_each: int = 3
) -> report.Demonstration:
    whole = report.Times(*[report.Quantiles(1.0, 2.0)] * 3)
    partial = report.Times(report.Quantiles(1.5, 2.5), report.Quantiles(1433.0, 44.0), None)
    blocks = []
    for number, policy in enumerate(BLOCKS):
        window = Window(
            policy, BEGAN + timedelta(seconds=SECONDS * number), BEGAN + timedelta(seconds=SECONDS * (number + 1))
        )
        blocks.append(report.Block(window, {"slow": partial if policy == "little" else whole, "fast": whole}))
    weights = (report.WeightSample(1.0, {"slow": 1.0, "fast": 3.0}),)
    load = write_run(tmp_path / "run.jsonl", little, failed, scale, slow_each)
    speeds = {"fast": 0.4, "slow": 0.1}
    return report.Demonstration("title", "setting", speeds, ("lsq", "little"), tuple(blocks), load, weights)


def printed(found: report.Demonstration, tmp_path: Path) -> str:
    with (tmp_path / "out").open("w") as out:
        console = Console(width=80, record=True, file=out)
        console.print(report.tables(found))
        return console.export_text()


def test_a_worse_result_is_reported_as_it_is(tmp_path: Path) -> None:
    verdict = demonstration(tmp_path, little=12.0).verdict()
    interval = r"\(95% interval \+\d+% to \+\d+%\)"
    sentence = rf"little against lsq, 2 pairs of blocks: mean \+20% {interval}; p99 \+20% {interval}"
    assert re.fullmatch(sentence, verdict), verdict


def test_nothing_is_claimed_where_the_interval_contains_zero(tmp_path: Path) -> None:
    verdict = demonstration(tmp_path, little=10.0).verdict()
    assert "mean: no difference shown (95% interval " in verdict
    assert "p99: no difference shown" in verdict


def test_the_tables_fit_80_columns_and_hold_the_shares(tmp_path: Path) -> None:
    text = printed(demonstration(tmp_path), tmp_path)
    assert "33.0%" in text
    assert "67.0%" in text
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["little", "slow"])
    assert row[2:] == ["1.50", "2.50", "1,433", "44.0", "-", "-"]
    assert "…" not in text


def test_no_number_has_an_exponent(tmp_path: Path) -> None:
    found = demonstration(tmp_path, scale=123.0)
    page = report.write(found, tmp_path / "report").read_text()
    visible = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    for text in (printed(found, tmp_path), visible, found.verdict()):
        assert not re.search(r"\d[eE][+-]?\d", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.123, "0.12"),
        (9.99, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1e7, "10,000,000"),
    ],
)
def test_numbers_have_as_many_digits_as_they_need(value: float, text: str) -> None:
    assert report.plain(value) == text
    assert report.plain(math.nan) == "-"


def test_the_page_has_the_plots_inside_and_marks_failures(tmp_path: Path) -> None:
    found = demonstration(tmp_path, failed=2)
    page = report.write(found, tmp_path / "report").read_text()
    assert page.count("<svg") == 3
    assert 'class="bad">2<' in page
    assert "<td>1,433</td>" in page
    assert found.failed == 2


def test_times_of_a_policy_are_those_of_its_blocks(tmp_path: Path) -> None:
    found = demonstration(tmp_path)
    assert found.times("lsq", "slow").handshake == report.Quantiles(1.0, 2.0)
    assert found.times("little", "slow").handshake == report.Quantiles(1.5, 2.5)


def test_a_backend_without_times_is_reported(tmp_path: Path) -> None:
    assert demonstration(tmp_path).unmeasured == ["little"]  # no durations of "slow"


def test_a_backend_that_a_policy_hardly_uses_need_not_be_measured(tmp_path: Path) -> None:
    assert demonstration(tmp_path, slow_each=20).unmeasured == []

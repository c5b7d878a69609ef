"""`make bench`: runs every benchmark, prints a table per group, writes build/bench/GROUP.json.

A benchmark prints a line of JSON per figure: name, value, unit, and, where it knows them, bar, met and runs. Bars of
the C benchmarks stand here. `met` is computed, never written down. One that cannot run on this machine prints a line
with `skipped`, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench.figures import Figure

OUT = Path("build/bench")
BUILD = Path("build/bench-c")


@dataclass(frozen=True)
class Bar:
    """What a figure must be."""

    bound: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Tell whether the value holds."""
        return value >= self.bound if self.at_least else value <= self.bound


BARS = {
    "core_off_64k_ratio": Bar(1.4, at_least=False),
    "core_1m_uniform_ratio": Bar(1.6, at_least=False),
    "core_basic_ratio": Bar(1.20, at_least=False),
    "core_full_ratio": Bar(1.60, at_least=False),
    "core_flow_lives_16": Bar(2e6, at_least=True),
    "core_flow_lives_64": Bar(2e6, at_least=True),
    "core_flow_lives_1024": Bar(2e6, at_least=True),
    "core_arena_bytes_per_flow": Bar(96, at_least=False),
    "core_arena_bytes_per_flow_full": Bar(192, at_least=False),
    "sim_engine_8": Bar(10e6, at_least=True),
    "sim_flows_8": Bar(4e6, at_least=True),
    "sim_loop_64_6": Bar(1e6, at_least=True),
}

GROUPS: dict[str, list[str]] = {
    "core": [str(BUILD / "tests-core/bench_core")],
    "statistics": [str(BUILD / "tests-core/bench_statistics")],
    "frames": [sys.executable, "-m", "tools.bench.bench_frames"],
    "schedulers": [str(BUILD / "tests-core/bench_schedulers")],
    "sim": [str(BUILD / "tests-sim/bench_sim")],
    "embedded": [sys.executable, "-m", "tools.bench.embedded"],
    "agent": [sys.executable, "-m", "tools.bench.bench_agent"],
    "operator": [sys.executable, "-m", "tools.bench.bench_operator"],
    "node": [sys.executable, "-m", "tools.bench.bench_node"],
    "vpp": [sys.executable, "-m", "tools.bench.bench_vpp"],
}


class SkippedError(Exception):
    """A benchmark lacks something that it needs."""


def figure(line: dict[str, Any]) -> Figure:
    """Read one line; a bar of the benchmark's own stays, else ours is applied."""
    known = {key: line[key] for key in ("bar", "met", "runs") if key in line}
    found = Figure(line["name"], float(line["value"]), line["unit"], **known)
    bar = BARS.get(found.name)
    if bar is None or found.bar is not None:
        return found
    return Figure(found.name, found.value, found.unit, bar.bound, bar.met(found.value), found.runs)


def compile_c() -> None:
    """Build the C benchmarks, optimised."""
    options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DPENSTOCK_BENCH=ON"]
    subprocess.run(["cmake", "-S", "vpp-plugin", "-B", str(BUILD), *options], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(BUILD)], check=True, stdout=subprocess.DEVNULL)


def run(group: str, command: list[str]) -> list[Figure]:
    """Run one benchmark; what it says beside its figures goes to build/bench/GROUP.log."""
    figures = []
    skipped = ""
    log = OUT / f"{group}.log"
    with (
        log.open("w") as others,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=others, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                skipped = said.get("skipped", "")
                figures += [] if skipped else [figure(said)]
            else:
                others.write(line)
    if skipped:
        raise SkippedError(skipped)
    if process.returncode != 0 or not figures:
        last = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; {log} ends with\n{last}")
    return figures


def record(found: Figure) -> dict[str, Any]:
    """Return what is written of a figure: its runs only where it had several."""
    return {key: value for key, value in asdict(found).items() if key != "runs" or value}


def show(group: str, figures: list[Figure], console: Console) -> None:
    """Print a group's table."""
    table = Table(
        title=f"{group} (pages of {os.sysconf('SC_PAGE_SIZE')} bytes)",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("figure", "value", "unit", "bar", "met", "runs"):
        table.add_column(name, justify="right" if name in {"value", "bar"} else "left")
    for found in figures:
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[found.met]
        spread = f"{len(found.runs)}: {min(found.runs):.4g} .. {max(found.runs):.4g}" if found.runs else ""
        bar = "" if found.bar is None else f"{found.bar:g}"
        table.add_row(found.name, f"{found.value:.4g}", found.unit, bar, verdict, spread)
    console.print(table)


def main() -> int:
    """Run all groups, or those named; 0 even where a bar is missed: the table says so."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], metavar="GROUP", help=", ".join(GROUPS))
    groups = parser.parse_args().groups or list(GROUPS)
    OUT.mkdir(parents=True, exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if {"core", "statistics", "schedulers", "sim"} & set(groups):
        compile_c()
    failed: list[str] = []
    everything: list[Figure] = []
    for group in groups:
        try:
            with console.status(f"{group}: {OUT}/{group}.log"):
                figures = run(group, GROUPS[group])
        except SkippedError as reason:
            console.print(f"[yellow]{group}: skipped: {reason}[/]")
            continue
        except (RuntimeError, OSError) as error:
            console.print(f"{group}: {error}", style="red", markup=False)
            failed.append(group)
            continue
        (OUT / f"{group}.json").write_text(json.dumps([record(found) for found in figures], indent=1) + "\n")
        show(group, figures, console)
        everything += figures
    met = sum(found.met is True for found in everything)
    missed = [found.name for found in everything if found.met is False]
    console.print(f"bars: {met} met, {len(missed)} missed{': ' if missed else ''}{', '.join(missed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

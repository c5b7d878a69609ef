"""One load that goes on while two policies take turns; what the agents report in each block. Of both demonstrations."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock_agent.state import AgentState
from rich.console import Console

from e2e.cluster.steps import note
from e2e.demo import comparison
from e2e.demo.report import Block, Demonstration
from e2e.demo.watch import Watch, times_of
from e2e.load import Load, LoadError, Running, running

POLICIES = ("lsq", "little")
_SWITCH_SECONDS = 15.0  # at most, for a policy to be in force


@dataclass(frozen=True)
class Bench:
    """What a demonstration offers to a trial."""

    loadgen: Sequence[str]  # the program, as run on the client
    target: str
    new_share: float
    switch: Callable[[str], None]  # returns when the policy is in force
    states: Callable[[float], Sequence[AgentState]]  # with times of the last so many seconds
    backend_name: Callable[[str], str]
    vip: str
    speeds: dict[str, float]


def add_options(parser: argparse.ArgumentParser, *, rate: float, pairs: int, seconds: float, settle: float) -> None:
    """Add the options of a trial to a command line."""
    parser.add_argument("--rate", type=float, default=rate, help="requests per second")
    parser.add_argument("--pairs", type=int, default=pairs, help=f"pairs of blocks, 2 to {comparison.MAX_PAIRS}")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of each block")
    parser.add_argument("--settle", type=float, default=settle, help="seconds of each policy that do not count")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the blocks")


def run(
    bench: Bench, watch: Watch, options: argparse.Namespace, *, title: str, setting: str, out: Path
) -> Demonstration:
    """Put the load on and change the policy from block to block."""
    order = comparison.order(POLICIES, options.pairs, options.seed)
    note(f"          {options.rate:g} requests/s to {bench.target}; {len(order)} blocks: {' '.join(order)}")
    longest = len(order) * (options.seconds + options.settle + _SWITCH_SECONDS)
    load = Load(bench.target, options.rate, longest, bench.new_share, log_requests=True)
    out.mkdir(parents=True, exist_ok=True)
    bench.switch(order[0])
    watch.begin()
    with running(bench.loadgen, load, out / "load.jsonl") as running_load:
        blocks = [_block(bench, policy, watch, running_load, options) for policy in order]
        samples = watch.samples()
        running_load.stop()
        report = running_load.finish()
    return Demonstration(title, setting, bench.speeds, POLICIES, tuple(blocks), report, samples)


def _block(bench: Bench, policy: str, watch: Watch, load: Running, options: argparse.Namespace) -> Block:
    bench.switch(policy)
    time.sleep(options.settle)
    began, clock = datetime.now(UTC), time.monotonic()
    watch.show_until(lambda: time.monotonic() - clock >= options.seconds or not load.active, Console(stderr=True))
    ended = datetime.now(UTC)
    # Read before the policy changes, and of no earlier flows than those of this block.
    states = bench.states(time.monotonic() - clock)
    if not load.active:
        raise LoadError("the load ended before its last block")
    return Block(comparison.Window(policy, began, ended), times_of(states, bench.vip, bench.backend_name))

"""Speed and memory of the agent: one decision, that of a model, one interval of 100 VIPs of 64 backends, a whole
process at that size.

The process is the real one with source `files`; its data plane is the recording one of the tests, and frames are
published by this script, so that nothing but the agent is measured. Prints a JSON line per figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import penstock_core
from penstock_agent import features
from penstock_agent.desired import PolicyChoice
from penstock_agent.loop import LoopVip, WeightLoop
from penstock_agent.models import read
from penstock_agent.observation import Slots
from penstock_agent.policies import POLICIES, learned
from penstock_api.rlpolicy import PolicyMode

from tests.support.models import model_file, observation
from tests.support.recording_dataplane import RecordingDataPlane

VIPS, BACKENDS, SLOTS = 100, 64, 128
INTERVAL_SECONDS = 0.2
MEASURED = ("inverse-duration", "little")  # the policies that read reservoirs
RUNS = 5
DECISION_BAR_MS = 1.0
MODEL_SLOTS, MODEL_BAR_MS = 16, 0.3
SHARE_BAR = 0.25
SCRAPE_BAR = 0.3
MEMORY_BAR_MB = 150.0


def figure(name: str, runs: list[float], unit: str, bar: float) -> None:
    """Print the median of several runs."""
    value = statistics.median(runs)
    rounded = [round(run, 4) for run in runs]
    line = {"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "met": value <= bar, "runs": rounded}
    print(json.dumps(line), flush=True)


def frames(path: Path, seed: int) -> penstock_core.FrameWriter:
    """Make a frames object whose reservoirs are full."""
    now, rng = penstock_core.boottime_us(), random.Random(seed)
    writer = penstock_core.FrameWriter(str(path), SLOTS)
    for slot in range(BACKENDS):
        writer.open_slot(slot, 1)
        writer.count(slot, "n_flow", 1000)
        writer.count(slot, "l_assign", 4000)
        for channel in ("fct", "flow_duration"):
            for _ in range(500):
                writer.sample(slot, channel, rng.expovariate(10.0), now - rng.randrange(20_000_000))
    writer.publish(now)
    return writer


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """Make a directory where the real objects would be: on tmpfs."""
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def loop_over(directory: Path, heuristic: str, vips: int) -> WeightLoop:
    """Make a loop over VIPs whose objects lie in a directory."""
    choice = PolicyChoice(
        heuristic=heuristic,
        mode=PolicyMode.ACTIVE,
        fallback="lsq",
        interval=INTERVAL_SECONDS,
        max_weight_ratio=10.0,
        max_change_per_step=0.25,
        max_frame_age=60.0,
    )
    slots = Slots.of(SLOTS, [(slot, f"backend-{slot}", 1.0, True) for slot in range(BACKENDS)])
    loop = WeightLoop(
        open_reader=lambda path: penstock_core.FrameReader(str(path)),
        open_writer=lambda path, count: penstock_core.ActionsWriter(str(path), count),
        now_us=penstock_core.boottime_us,
    )
    loop.configure(
        LoopVip(
            id=f"{number:016x}",
            key=f"bench/vip-{number}",
            frames=directory / f"{number}.frames",
            actions=directory / f"{number}.actions",
            slots=slots,
            in_force=np.ones(SLOTS),
            choice=choice,
        )
        for number in range(vips)
    )
    return loop


def decisions(heuristic: str) -> None:
    """Time single decisions, frame to written weights: p99 of 2000, five times.

    In CPU time: what other processes of the machine take is not the agent's doing.
    """
    runs = []
    with shared_memory() as directory:
        writer = frames(directory / "0.frames", 0)
        loop = loop_over(directory, heuristic, 1)
        steering = next(iter(loop.vips.values()))
        for _ in range(RUNS):
            writer.publish(penstock_core.boottime_us())
            runs.append(_p99(lambda: loop.step(steering), 2000) * 1e3)
        assert steering.steps["active"] == RUNS * 2000, steering.error
    figure(f"agent_decision_64_{heuristic}_p99", runs, "ms", DECISION_BAR_MS)


def model() -> None:
    """Time decisions of a model with all features of counters, memory and 32 hidden units: median of 2000, five times.

    Its anchor is `lsq`, which costs nothing. In CPU time, as above.
    """
    learned_policy = learned.policy(read(model_file(features=features.DEFAULT, hidden=32)), POLICIES)
    seen = [observation(shape=(MODEL_SLOTS,), time=0.2 * step) for step in range(100)]
    state, runs = None, []
    for _ in range(RUNS):
        taken = []
        for step in range(2000):
            started = time.thread_time()
            _, state = learned_policy.decide(seen[step % len(seen)], state)
            taken.append(time.thread_time() - started)
        runs.append(statistics.median(taken) * 1e3)
    figure(f"agent_model_{MODEL_SLOTS}_median", runs, "ms", MODEL_BAR_MS)


def _p99(call: Callable[[], None], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.thread_time()
        call()
        taken.append(time.thread_time() - started)
    return float(np.percentile(taken, 99))


async def intervals(heuristic: str) -> None:
    """CPU of one turn over all VIPs, as a share of the interval."""
    runs = []
    with shared_memory() as directory:
        writers = [frames(directory / f"{number}.frames", number) for number in range(VIPS)]
        loop = loop_over(directory, heuristic, VIPS)
        await loop.turn()  # opens everything
        for _ in range(RUNS):
            for writer in writers:
                writer.publish(penstock_core.boottime_us())
            for steering in loop.vips.values():
                steering.due = 0.0
            started = time.process_time()
            await loop.turn()
            runs.append((time.process_time() - started) / INTERVAL_SECONDS)
    figure(f"agent_interval_100x64_{heuristic}", runs, "of a core", SHARE_BAR)


def vip_files(directory: Path) -> None:
    """Write 100 VIPs of 64 endpoints each, and the policy that is the dearest."""
    policy = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "RLPolicy",
        "metadata": {"name": "little"},
        "spec": {"heuristic": "little"},
    }
    (directory / "policy.yaml").write_text(json.dumps(policy))
    for number in range(VIPS):
        endpoints = [{"address": f"10.{number}.0.{host + 1}"} for host in range(BACKENDS)]
        vip = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "LoadBalancerVIP",
            "metadata": {"name": f"vip-{number}"},
            "spec": {
                "addresses": [f"203.0.113.{number + 1}"],
                "ports": [{"port": 80}],
                "backends": {"endpoints": endpoints},
                "healthCheck": {"type": "None"},
                "policyName": "little",
            },
        }
        # JSON is YAML, and quicker to read: reading is not what is measured.
        (directory / f"vip-{number}.yaml").write_text(json.dumps(vip))


async def process() -> None:
    """Run the real process at that size; CPU of its steady state and its own memory."""
    with shared_memory() as shm, tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        directory = Path(name)
        (directory / "files").mkdir()
        vip_files(directory / "files")
        async with RecordingDataPlane(directory / "control.sock", slots=SLOTS) as dataplane:
            port = _free_port()
            command = (sys.executable, "-c", _PROGRAM, str(directory), str(shm), str(port))
            agent = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr)
            try:
                shares, memory = await _measure(agent.pid, dataplane, shm)
                written = len(list(shm.iterdir())) - VIPS
                scrapes = [await _scrape(agent.pid, port) for _ in range(RUNS)]
            finally:
                agent.terminate()
                await agent.wait()
    assert written == VIPS, f"weights of {written} VIPs were written, expected {VIPS}"
    figure("agent_process_100x64", shares, "of a core", SHARE_BAR)
    figure("agent_memory", [memory], "MB", MEMORY_BAR_MB)
    figure(f"agent_scrape_{VIPS * BACKENDS}", scrapes, "s of CPU", SCRAPE_BAR)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def _scrape(pid: int, port: int) -> float:
    """CPU of one scrape as Prometheus does it, the agent's own work in that time included."""
    before = _cpu(pid)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept-Encoding": "gzip"})
    assert answer.text.count("penstock_backend_weight{") == VIPS * BACKENDS
    return _cpu(pid) - before


_PROGRAM = """
import sys
from pathlib import Path
from penstock_agent.main import run
from penstock_agent.settings import Settings
import penstock_agent.announcing, penstock_agent.reporting
directory, shm = map(Path, sys.argv[1:3])
run(Settings(source="files", files=directory / "files", run_dir=directory, shm_dir=shm, state_dir=directory / "state",
             node_addresses=["192.0.2.1"], host="127.0.0.1", port=int(sys.argv[3])))
"""


async def _measure(pid: int, dataplane: RecordingDataPlane, shm: Path) -> tuple[list[float], float]:
    async with asyncio.timeout(120):
        while dataplane.state is None:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.1)
    writers = [frames(shm / f"penstock.{vip.id}.frames", 1) for vip in dataplane.state.vips]
    shares: list[float] = []
    for second in range(2 + RUNS):
        before, started = _cpu(pid), time.monotonic()
        for _ in range(10):
            for writer in writers:
                writer.publish(penstock_core.boottime_us())
            await asyncio.sleep(0.2)
        if second >= 2:  # the first ones open objects and settle
            shares.append((_cpu(pid) - before) / (time.monotonic() - started))
    return shares, _own_memory(pid)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_memory(pid: int) -> float:
    """Resident memory less the shared objects, which are the data plane's."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(status[part].split()[0]) for part in ("RssAnon", "RssFile")) / 1024


def main() -> None:
    """Print all figures."""
    assert set(MEASURED) <= set(POLICIES)
    for heuristic in MEASURED:
        decisions(heuristic)
    model()
    for heuristic in MEASURED:
        asyncio.run(intervals(heuristic))
    asyncio.run(process())


if __name__ == "__main__":
    main()

"""Frames read and reduced in Python, per second of one core: what an agent pays for one VIP of 64 backends.

Before each frame every backend has taken a sample more on every channel, so that no reduction is taken from the cache:
this is the dearest case. Time that the writer takes is not counted. Prints a JSON line per figure.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import penstock_core

BACKENDS, SLOTS = 64, 128
RUNS = 5
RUN_SECONDS = 0.5
BARS = {"off": 20_000.0, "basic": 1_000.0, "full": 300.0}
NAMES = {"off": "counters", "basic": "basic_reduced", "full": "full_reduced"}


class Vip:
    """A frames object of a level whose reservoirs are full, and its reader."""

    def __init__(self, path: Path, level: str) -> None:
        self._writer = penstock_core.FrameWriter(str(path), SLOTS, feature_level=level)
        self._rng = random.Random(level)
        for slot in range(BACKENDS):
            self._writer.open_slot(slot, 1)
            self._writer.count(slot, "n_flow", 1000)
        self.reader = penstock_core.FrameReader(str(path))
        self.move_on(400)

    def move_on(self, samples: int = 1) -> None:
        """Publish another frame, every reservoir with so many samples more, taken within the last 20 seconds."""
        now = penstock_core.boottime_us()
        for slot in range(BACKENDS):
            for channel in self.reader.channels:
                for _ in range(samples):
                    value, age = self._rng.expovariate(10.0), self._rng.randrange(20_000_000)
                    self._writer.sample(slot, channel, value, now - age)
        self._writer.publish(now)

    def look(self) -> None:
        """Do what an agent does in an interval."""
        frame = self.reader.read()
        self.reader.reduce(self.reader.channels, frame.time_us)


def rate(vip: Vip, seconds: float = RUN_SECONDS) -> float:
    """Frames per second of this thread's processor time."""
    spent, count = 0.0, 0
    while spent < seconds:
        vip.move_on()
        started = time.thread_time()
        vip.look()
        spent += time.thread_time() - started
        count += 1
    return count / spent


def main() -> None:
    """Print all figures."""
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir="/dev/shm"))
    try:
        for level, bar in BARS.items():
            vip = Vip(directory / level, level)
            rate(vip, RUN_SECONDS / 5)
            runs = [round(rate(vip)) for _ in range(RUNS)]
            value = statistics.median(runs)
            line = {"name": f"frames_{NAMES[level]}", "value": value, "unit": "frames per core and second"}
            print(json.dumps(line | {"bar": bar, "met": value >= bar, "runs": runs}), flush=True)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

"""Which fault is injected when: a function of the seed, computed before anything starts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

WARM_UP_SECONDS = 10.0
COOL_DOWN_SECONDS = 30.0
SHORTEST_GAP_SECONDS = 8.0
LONGEST_GAP_SECONDS = 20.0


@dataclass(frozen=True)
class Planned:
    """One fault of the schedule: not before `at` seconds after the start of the load, with a seed of its own."""

    at: float
    fault: str
    seed: int


def schedule(durations: Mapping[str, float], seconds: float, seed: int) -> tuple[Planned, ...]:
    """Return the faults of a run in the order of their times.

    `durations` has the seconds that each fault lasts. Faults come in rounds: each round has every fault once, in random
    order, so that no fault comes twice before all came once. One fault ends before the next begins.
    """
    generator = random.Random(seed)
    planned: list[Planned] = []
    at = WARM_UP_SECONDS
    while True:
        names = sorted(durations)
        generator.shuffle(names)
        for name in names:
            if at + durations[name] + COOL_DOWN_SECONDS > seconds:
                return tuple(planned)
            planned.append(Planned(round(at, 1), name, generator.getrandbits(32)))
            at += durations[name] + generator.uniform(SHORTEST_GAP_SECONDS, LONGEST_GAP_SECONDS)

"""Scenarios as they are evaluated: an environment for each seed, the same for all policies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from penstock_rl.scenarios import CHOOSING, REPORTING, Scenario, ScenarioError, expand, load, named, unseen
from penstock_rl.simulation import Environment


@dataclass(frozen=True)
class Case:
    """A scenario with what the runner needs of it; sent to other processes."""

    scenario: Scenario

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.scenario.name

    def environment(self, seed: int) -> Environment:
        """Return the environment of a seed."""
        found: Environment = expand(self.scenario, seed)
        return found

    @cached_property
    def digest(self) -> str:
        """Digest of the scenario and of the environment that seed 0 makes of it."""
        digest = hashlib.sha256(self.scenario.model_dump_json().encode())
        for name, value in sorted(self.environment(0).items()):
            digest.update(name.encode() + np.asarray(value, dtype=float).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def requests(self) -> float:
        """Expected number of requests of one run."""
        environment = self.environment(0)
        if environment.get("trace") is not None:
            return float(len(np.asarray(environment["trace"])))
        rates = np.asarray(environment["rates"], dtype=float)
        ends = np.append(rates[1:, 0], self.scenario.duration)
        connections = float((np.clip(ends - rates[:, 0], 0, None) * rates[:, 1]).sum())
        return connections * self.scenario.requests_per_connection


UNSEEN = "unseen"
RANDOM = {UNSEEN: REPORTING, "choosing": CHOOSING[: len(REPORTING)]}
NAMED = "named"


def read(source: str) -> list[Case]:
    """Return the scenarios of a file, of a directory, `named`, `unseen`, `choosing`, or N of the last two (`unseen:N`).

    ScenarioError names what is wrong.
    """
    if source == NAMED:
        return [Case(scenario) for scenario in named().values()]
    word, _, count = source.partition(":")
    if word in RANDOM:
        return [Case(unseen(seed)) for seed in RANDOM[word][: _count(word, count)]]
    path = Path(source)
    if not path.is_dir():
        return [Case(load(path))]
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if not files:
        raise ScenarioError(f"{path}: has no YAML file; name a directory of scenarios")
    return [Case(load(file)) for file in files]


def one(source: str) -> Case:
    """Return the scenario of a file, or the named one; ScenarioError names what is wrong."""
    path = Path(source)
    if source in named():
        return Case(named()[source])
    if not path.exists():
        known = ", ".join(named())
        raise ScenarioError(f"{source}: is no file, and no scenario that comes with Penstock; use one of {known}")
    return Case(load(path))


def _count(word: str, count: str) -> int:
    if not count:
        return len(REPORTING)
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= len(REPORTING):
        raise ScenarioError(f"{word}:{count}: {count!r} is not a number from 1 to {len(REPORTING)}; write {word}:16")
    return int(count)

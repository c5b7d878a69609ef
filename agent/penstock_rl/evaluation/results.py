"""Results of runs: what is kept of each, and the file they are kept in.

Figures are rounded to six significant digits when a run ends, so that tables made from memory and from the file are
the same. The file is JSON with sorted keys: the same runs give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_rl.evaluation import statistics

FloatArray = NDArray[np.float64]

FORMAT = 1
DIGITS = 6
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class ResultsError(ValueError):
    """A results file that cannot be read or does not fit."""


@dataclass(frozen=True, slots=True)
class Run:
    """One environment (scenario and seed) under one policy; durations in seconds."""

    scenario: str
    policy: str
    seed: int
    completed: int  # requests that arrived after warm-up and completed
    failed: int
    mean: float  # infinite where no request completed, like the quantiles
    p50: float
    p90: float
    p99: float
    jain: float  # of the utilisation of servers
    max_mean: float  # largest utilisation over the mean

    @property
    def key(self) -> tuple[str, str, int]:
        """Return what identifies the run."""
        return self.scenario, self.policy, self.seed


METRICS = tuple(each.name for each in fields(Run))[3:]


def summarise(scenario: str, policy: str, seed: int, durations: FloatArray, utilisation: FloatArray) -> Run:
    """Reduce one run: durations of all requests (NaN: failed), utilisation by server (NaN: never there)."""
    done = durations[np.isfinite(durations)]
    if len(done):
        times = [float(done.mean()), *np.quantile(done, list(QUANTILES.values())).tolist()]
    else:
        times = [math.inf] * (1 + len(QUANTILES))
    balance = statistics.jain(utilisation), statistics.max_over_mean(utilisation)
    figures = [_rounded(value) for value in (*times, *balance)]
    return Run(scenario, policy, seed, len(done), len(durations) - len(done), *figures)


@dataclass(frozen=True, slots=True)
class Results:
    """Runs with what is needed to repeat them."""

    runs: tuple[Run, ...]
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)  # of scenarios

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Name the scenarios in the order of their first runs."""
        return tuple(dict.fromkeys(run.scenario for run in self.runs))

    @property
    def policies(self) -> tuple[str, ...]:
        """Name the policies in the order of their first runs."""
        return tuple(dict.fromkeys(run.policy for run in self.runs))

    def metric(self, name: str) -> Table:
        """Return a metric as scenario -> policy -> values by seed, for the seeds that all its policies have."""
        found: dict[str, dict[str, dict[int, float]]] = {}
        for run in self.runs:
            found.setdefault(run.scenario, {}).setdefault(run.policy, {})[run.seed] = float(getattr(run, name))
        return {scenario: _paired(policies) for scenario, policies in found.items()}

    def with_best_of(self, composites: Mapping[str, Sequence[str]]) -> Results:
        """Add policies that are, scenario by scenario, the one of their members with the lowest mean time."""
        times = self.metric("mean")
        added: list[Run] = []
        for scenario, policies in times.items():
            for name, members in composites.items():
                there = [member for member in members if member in policies]
                if len(there) != len(members) or name in policies:
                    continue
                chosen = there[statistics.best([policies[member] for member in there])]
                added += [replace(r, policy=name) for r in self.runs if (r.scenario, r.policy) == (scenario, chosen)]
        return replace(self, runs=(*self.runs, *added))


Table = dict[str, dict[str, FloatArray]]


def _paired(policies: Mapping[str, Mapping[int, float]]) -> dict[str, FloatArray]:
    common = sorted(set.intersection(*(set(values) for values in policies.values())))
    return {policy: np.array([values[seed] for seed in common]) for policy, values in policies.items()}


def versions() -> dict[str, str]:
    """Return the versions on which figures depend."""
    return {"penstock": version("penstock"), "numpy": version("numpy")}


def dump(results: Results) -> str:
    """Return the text of a results file."""
    head = {
        "format": FORMAT,
        "command": results.command,
        "versions": dict(results.versions),
        "scenarios": dict(results.digests),
        "runs": [],
    }
    lines = ",\n".join(json.dumps(block_of(block), sort_keys=True) for block in _blocks(results.runs))
    return json.dumps(head, sort_keys=True).replace('"runs": []', f'"runs": [\n{lines}\n]') + "\n"


def load(path: Path) -> Results:
    """Read a results file; ResultsError names the file and the fix."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ResultsError(f"{path}: format {document['format']} is not {FORMAT}; evaluate again")
        runs = tuple(run for block in document["runs"] for run in runs_of(block))
        return Results(runs, document["command"], document["versions"], document["scenarios"])
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}; name a results file") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{path}: is not a results file ({error}); evaluate again") from error


def block_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return runs of one scenario and policy as columns, for JSON."""
    columns = {metric: [_written(getattr(run, metric)) for run in runs] for metric in METRICS}
    return {"scenario": runs[0].scenario, "policy": runs[0].policy, "seed": [run.seed for run in runs], **columns}


def runs_of(block: Mapping[str, Any]) -> Iterable[Run]:
    """Return the runs of one block of columns."""
    columns = [block["seed"], *(block[metric] for metric in METRICS)]
    for seed, completed, failed, *figures in zip(*columns, strict=True):
        floats = [float(value) for value in figures]
        yield Run(str(block["scenario"]), str(block["policy"]), int(seed), int(completed), int(failed), *floats)


def _blocks(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.scenario, run.policy), []).append(run)
    return [tuple(sorted(block, key=lambda run: run.seed)) for block in found.values()]


def _written(value: float) -> float | str:
    """JSON has neither NaN nor infinity: they are written as text."""
    return value if math.isfinite(value) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

"""Constants of the Bayes filter, and their bounds for a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from penstock_agent.policies.tunable import Linear, Log, Number


@dataclass(frozen=True, slots=True)
class Parameters:
    """Constants of the filter. Each may be an array [rows, 1, 1], for a batch that compares values.

    The values were found by CMA-ES (`python -m penstock_rl.tuning`), except for those of starved backends
    (`idle_seconds`, `idle_share`, `served_seconds`), which the scenarios of the search do not reward.
    """

    # Evidence.
    memory_seconds: Annotated[Number, Log(10.0, 400.0, "s")] = 127.0
    trust: Annotated[Number, Log(0.1, 3.0)] = 1.0  # exponent of the likelihood, for what the model lacks
    bend: Annotated[Number, Log(1.5, 12.0)] = 5.0  # exponent of g where the load is partly a guess
    cores_mean: Annotated[Number, Log(1.0, 16.0, "cores")] = 4.0  # prior: geometric mean
    cores_spread: Annotated[Number, Log(0.2, 2.0, "log")] = 1.0  # prior: standard deviation
    cores_backends: Annotated[Number, Log(0.3, 30.0, "backends")] = 10.0  # prior: as if so many had been seen
    learned_after: Annotated[Number, Log(1.0, 100.0, "requests")] = 4.0  # that ended, until a backend counts for half
    rate_gain: Annotated[Number, Log(0.05, 1.0, "1/s")] = 0.646  # share of the mean log speed moved into mu
    # Load of the other balancers.
    load_seconds: Annotated[Number, Log(0.02, 5.0, "s")] = 0.5
    others_share: Annotated[Number, Linear(0.0, 1.0)] = 0.527
    # Fast correction.
    fast_seconds: Annotated[Number, Log(0.5, 30.0, "s")] = 2.98
    fast_evidence: Annotated[Number, Log(0.3, 20.0, "requests")] = 0.422  # prior: as if so many ended as expected
    fast_threshold: Annotated[Number, Linear(0.0, 6.0, "standard deviations")] = 1.5
    fast_gain_down: Annotated[Number, Linear(0.0, 1.5)] = 0.523
    fast_gain_up: Annotated[Number, Linear(0.0, 1.5)] = 1.14
    # Backends that may have changed.
    idle_seconds: Annotated[Number, Log(1.0, 100.0, "s")] = 5.0
    idle_share: Annotated[Number, Log(0.02, 0.8)] = 0.08  # of the mean throughput, below which it is starved
    served_seconds: Annotated[Number, Log(1.0, 30.0, "s")] = 5.0
    surprise_seconds: Annotated[Number, Log(0.2, 300.0, "s")] = 2.85  # of one e times as fast as believed
    # Action.
    caution_speed: Annotated[Number, Linear(-1.0, 4.0, "standard deviations")] = 0.7  # by which log s is taken lower
    caution_cores: Annotated[Number, Linear(-1.0, 2.0)] = 0.0  # exponent of 1 / c in the weights of numbers of cores
    speed_gain: Annotated[Number, Linear(0.0, 1.5)] = 0.8
    externality: Annotated[Number, Linear(0.0, 3.0)] = 1.2
    sharpness: Annotated[Number, Log(1.0, 20.0)] = 5.0
    stiffness: Annotated[Number, Log(0.3, 4.0)] = 1.0  # slope over that of a busy backend
    least_speed: Annotated[Number, Log(0.01, 0.3)] = 0.0105  # of the fastest backend's


OWN = Parameters()
"""Where a balancer sees its own flows only."""
SHARED = replace(OWN, stiffness=0.6)
"""Where balancers exchange their counts."""

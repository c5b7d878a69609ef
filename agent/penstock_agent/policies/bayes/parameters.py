"""Constants of the Bayes filter, and their bounds for a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from penstock_agent.policies.tunable import Linear, Log, Number


@dataclass(frozen=True, slots=True)
class Parameters:
    """Constants of the filter. Each may be an array [rows, 1, 1], for a batch that compares values.

    The values were found by CMA-ES (`python -m penstock_rl.tuning`), except for those of starved backends
    (`idle_seconds`, `idle_share`, `served_seconds`, `tolerance`), which the scenarios of the search do not reward.
    """

    # Evidence.
    memory_seconds: Annotated[Number, Log(10.0, 400.0, "s")] = 231.0
    trust: Annotated[Number, Log(0.1, 3.0)] = 0.768  # exponent of the likelihood, for what the model lacks
    bend: Annotated[Number, Log(1.5, 12.0)] = 7.42  # exponent of g where the load is partly a guess
    cores_mean: Annotated[Number, Log(1.0, 16.0, "cores")] = 6.35  # prior: geometric mean
    cores_spread: Annotated[Number, Log(0.2, 2.0, "log")] = 0.441  # prior: standard deviation
    cores_backends: Annotated[Number, Log(0.3, 30.0, "backends")] = 19.7  # prior: as if so many had been seen
    learned_after: Annotated[Number, Log(1.0, 100.0, "requests")] = 6.57  # that ended, until a backend counts for half
    rate_gain: Annotated[Number, Log(0.05, 1.0, "1/s")] = 1.0  # share of the mean log speed moved into mu
    # Load of the other balancers.
    load_seconds: Annotated[Number, Log(0.02, 5.0, "s")] = 0.1
    others_share: Annotated[Number, Linear(0.0, 1.0)] = 0.448
    # Fast correction.
    fast_seconds: Annotated[Number, Log(0.5, 30.0, "s")] = 10.0
    fast_evidence: Annotated[Number, Log(0.3, 20.0, "requests")] = 0.3  # prior: as if so many ended as expected
    fast_threshold: Annotated[Number, Linear(0.0, 6.0, "standard deviations")] = 3.0
    fast_gain_down: Annotated[Number, Linear(0.0, 1.5)] = 0.846
    fast_gain_up: Annotated[Number, Linear(0.0, 1.5)] = 0.666
    # Backends that may have changed.
    idle_seconds: Annotated[Number, Log(1.0, 100.0, "s")] = 5.0
    idle_share: Annotated[Number, Log(0.02, 0.8)] = 0.08  # of the mean throughput, below which it is starved
    served_seconds: Annotated[Number, Log(1.0, 30.0, "s")] = 5.0
    surprise_seconds: Annotated[Number, Log(0.2, 300.0, "s")] = 1.0  # of one e times as fast as believed
    # Action.
    caution_speed: Annotated[Number, Linear(-1.0, 4.0, "standard deviations")] = 1.87  # by which log s is taken lower
    caution_cores: Annotated[Number, Linear(-1.0, 2.0)] = -0.37  # exponent of 1 / c in the weights of numbers of cores
    speed_gain: Annotated[Number, Linear(0.0, 1.5)] = 0.5
    externality: Annotated[Number, Linear(0.0, 3.0)] = 0.0256
    sharpness: Annotated[Number, Log(1.0, 20.0)] = 2.48
    stiffness: Annotated[Number, Log(0.3, 4.0)] = 0.938  # slope over that of a busy backend
    tolerance: Annotated[Number, Linear(0.0, 1.0, "log")] = 0.03  # of the index over the least one
    least_speed: Annotated[Number, Log(0.01, 0.3)] = 0.0122  # of the fastest backend's


OWN = Parameters()
"""Where a balancer sees its own flows only."""
SHARED = replace(
    OWN,
    memory_seconds=400.0,
    trust=1.87,
    bend=5.89,
    cores_mean=16.0,
    cores_spread=0.2,
    cores_backends=4.52,
    learned_after=1.0,
    rate_gain=0.62,
    load_seconds=0.0399,
    others_share=0.298,
    fast_seconds=5.06,
    fast_evidence=5.65,
    fast_threshold=1.8,
    fast_gain_down=0.151,
    fast_gain_up=1.5,
    surprise_seconds=12.0,
    caution_speed=1.81,
    caution_cores=-0.34,
    speed_gain=0.813,
    externality=0.919,
    sharpness=12.5,
    stiffness=0.696,
    tolerance=0.1,
    least_speed=0.069,
)
"""Where balancers exchange their counts."""

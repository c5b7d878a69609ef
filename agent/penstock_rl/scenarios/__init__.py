"""Scenarios: files that people write, generated ones, and the environments that they expand to."""

from penstock_rl.scenarios.errors import ScenarioError
from penstock_rl.scenarios.expansion import capacities, expand
from penstock_rl.scenarios.generated import CHOOSING, KINDS, REPORTING, TRAINING, unseen
from penstock_rl.scenarios.model import Scenario
from penstock_rl.scenarios.reading import dump, load, named
from penstock_rl.scenarios.training import training

__all__ = [
    "CHOOSING",
    "KINDS",
    "REPORTING",
    "TRAINING",
    "Scenario",
    "ScenarioError",
    "capacities",
    "dump",
    "expand",
    "load",
    "named",
    "training",
    "unseen",
]

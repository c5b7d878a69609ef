"""A scenario that takes a fraction of a second."""

from penstock_rl.evaluation.cases import Case
from penstock_rl.scenarios import Scenario

_BODY = {
    "name": "small",
    "duration": 12.0,
    "warmUp": 2.0,
    "balancers": {"count": 2},
    "servers": [{"count": 2, "cores": 1}, {"count": 2, "cores": 4}],
    "arrivals": {"load": 0.8},
}


def small(**changes: object) -> Scenario:
    """Return the scenario with other fields."""
    return Scenario.model_validate(_BODY | changes)


_SHORT = {
    "duration": 4.0,
    "warmUp": 1.0,
    "arrivals": {"load": 0.7},
    "classes": [{"work": {"mean": 0.05}}],
}


def short(**changes: object) -> Scenario:
    """Return a scenario of 4 seconds, or with other fields."""
    return small(**_SHORT | changes)


def case(**changes: object) -> Case:
    """Return it as the runner takes it."""
    return Case(small(**changes))
